"""What objects and playground share: one run of several methods, its checkpoints, previews and teacher.

Knows the context and the parameters; what a stage is, the two kinds of work say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from engines.prolificdreamer.configs import Part, guidance_of, learning_of, wording_of
from engines.prolificdreamer.distillation import Distiller
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.pipeline import lend_estimator, lend_teacher, second_weights, weights_of
from engines.prolificdreamer.presets import METHODS
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.training import Diary, Keeper, Pulse, Stage, train
from studio.contract import Context

State = dict[str, Any]


class MethodWork:
    """One run: how far it has come, and what an earlier attempt left."""

    def __init__(self, ctx: Context, params: ProlificDreamerParams) -> None:
        self.ctx, self.params = ctx, params
        self.weights = weights_of(params.model, ctx)
        self.second = None  # what is missing is told before anything is trained, not when phi is wanted
        if params.estimator == "lora_separate" and any(METHODS[m].algorithm == "vsd" for m in params.methods):
            self.second = second_weights(params.model, ctx)
        self.wording = wording_of(params)
        self.streams = Streams(ctx.generator, "prolificdreamer", params.seed)
        self.reached = 0
        self.total = 0
        self.resumed: State = {}

    def run(self) -> None:
        """Every method that has not finished in an earlier attempt; none is begun once the owner has enough."""
        self.total = sum(self.steps(method) for method in self.params.methods)
        self.resumed = (self.ctx.resume() or (0, {}))[1]
        self.ctx.progress(0, self.total, "Reading the prompt")
        with lend_teacher(self.ctx, self.weights, self.wording) as teacher:
            for position, method in enumerate(self.params.methods):
                if position and self.ctx.enough():
                    break
                if not self.ctx.done(self.diary_name(method)):
                    self.make(method, teacher)
                self.reached += self.steps(method)
        self.ctx.progress(self.total, self.total, "Done")

    def steps(self, method: str) -> int:
        """Steps of one method."""
        raise NotImplementedError

    def make(self, method: str, teacher: Teacher) -> None:
        """Train, save and measure one method."""
        raise NotImplementedError

    def name(self, method: str, particle: int | None = None) -> str:
        """Of a method's files, without ending."""
        several = self.params.particles > 1 and particle is not None
        return f"{method}-{self.params.seed}" + (f"-{(particle or 0) + 1}" if several else "")

    def diary_name(self, method: str) -> str:
        """The file that is saved last: its being there proves a method finished."""
        return f"{self.name(method)}-steps.csv"

    def about(self, method: str, **more: Any) -> dict[str, Any]:
        """What is said of a method's files."""
        known = METHODS[method]
        scale = self.params.guidance if known.guidance is None else known.guidance
        title = f"{known.title}, guidance {scale:g}" if known.guidance is None else known.title
        return {"role": known.role, "method": method, "title": title, "seed": self.params.seed, **more}

    @contextmanager
    def distiller(self, method: str, part: Part, teacher: Teacher, *path: object) -> Iterator[Distiller]:
        """Teacher and, where the method wants one, a fresh phi."""
        guidance = guidance_of(self.params, method, part)
        streams = self.streams.under(part, *path)
        with ExitStack() as stack:
            estimator = None
            if guidance.algorithm == "vsd":
                made = lend_estimator(
                    self.ctx,
                    self.params.estimator,
                    self.second,
                    teacher,
                    self.params.rank,
                    streams.at("estimator"),
                )
                estimator = stack.enter_context(made)
            yield Distiller(teacher, estimator, self.wording, guidance, learning_of(self.params))

    def train(self, method: str, stage: Stage, before: State, position: int, preview: Any) -> Diary:
        """Run one stage of a method, from the checkpoint if it belongs to this stage.

        `before` is what finished stages left and later ones need; `position` counts the stages of a method.
        """
        start, diary = 0, Diary()
        kept = self.resumed
        if kept.get("method") == method and kept.get("position") == position:
            start, diary = int(kept["done"]), Diary.restored(kept["diary"])
            stage.load(kept["stage"])
            self.resumed = {}
        keeper = Keeper(
            self.ctx,
            Pulse(self.params.preview_every, self.params.checkpoint_every),
            METHODS[method].title,
            self.reached + int(before.get("steps", 0)),
            self.total,
            lambda done, state, written: {
                "method": method,
                "position": position,
                "done": done,
                "stage": state,
                "diary": written.state(),
                "before": before,
            },
            preview,
        )
        train(stage, keeper, start, diary)
        return diary

    def save_diary(self, method: str, diaries: list[tuple[str, Diary]]) -> None:
        """What steps told, as a table; the last file of a method."""
        names = ("low", "high", "gradient", "phi", "regularisers", "smoothness", "faces", "particle")
        rows = [
            {"stage": title, "step": int(row["step"]), **{name: row.get(name, "") for name in names}}
            for title, diary in diaries
            for row in diary.rows
        ]
        rolled = sum(diary.rollbacks for _, diary in diaries)
        notes = list(dict.fromkeys(note for _, diary in diaries for note in diary.notes))
        about = self.about(method) | {"role": ""}
        if notes:
            about["note"] = " ".join(notes)
            self.ctx.metrics("", **{f"{method}_rollbacks": rolled, f"{method}_notes": " ".join(notes)})
        self.ctx.save(self.diary_name(method), "table", rows, **about)
