"""Long runs of any stage: progress, previews, checkpoints, pauses, and steps that gave no numbers.

A stage is a step function with a state. A run that is killed goes on from its newest checkpoint and ends with the
same numbers as an undisturbed one; one that is paused or cancelled keeps what it has first. Knows no algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from studio.contract import Context
from studio.errors import Cancelled, EngineFailed, Paused

MOST_ROLLBACKS = 5
KEPT_ROWS = 400  # of the diary; older ones are thinned out


class Stage(Protocol):
    """What can be trained for long."""

    name: str
    title: str
    steps: int
    pace: float  # factor on all rates

    def step(self, index: int) -> dict[str, float]:
        """Do step `index` and say something about it."""
        ...

    def healthy(self) -> bool:
        """Whether all numbers are still numbers."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that following steps depend on, as copies."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        ...


@dataclass
class Diary:
    """What steps told, thinned to a few hundred rows; and what went wrong."""

    rows: list[dict[str, float]] = field(default_factory=list)
    stride: int = 1
    rollbacks: int = 0
    notes: list[str] = field(default_factory=list)
    done: int = 0  # steps

    def write(self, index: int, told: dict[str, float]) -> None:
        """Count the step, and keep every `stride`-th row."""
        self.done = index + 1
        if index % self.stride == 0:
            self.rows.append({"step": float(index), **told})
        if len(self.rows) > KEPT_ROWS:
            self.stride *= 2
            self.rows = [row for row in self.rows if row["step"] % self.stride == 0]

    def state(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "rows": [dict(row) for row in self.rows],
            "stride": self.stride,
            "rollbacks": self.rollbacks,
            "notes": list(self.notes),
            "done": self.done,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Diary:
        """From what `state` gave."""
        told = list(state["rows"]), int(state["stride"]), int(state["rollbacks"]), list(state["notes"])
        return cls(*told, int(state.get("done", 0)))


@dataclass(frozen=True)
class Pulse:
    """How often a run shows and keeps itself."""

    preview_every: int
    checkpoint_every: int


@dataclass
class Keeper:
    """One stage of a run within its context: where it is, and how it is kept."""

    ctx: Context
    pulse: Pulse
    label: str  # before the title of the stage in messages
    offset: int  # steps of the run before this stage
    total: int  # steps of the run
    keep: Callable[[int, dict[str, Any], Diary], dict[str, Any]]  # (step, stage's state, diary) -> checkpoint
    preview: Callable[[int, Diary], Any]  # (step, diary) -> picture

    def report(
        self, stage: Stage, done: int, told: dict[str, float], preview: Any | None = None, note: str = ""
    ) -> None:
        """Progress with what a researcher watches, and a note of what has just gone wrong."""
        words = f"{self.label}, {stage.title}: step {done} of {stage.steps}"
        if "low" in told:
            words += f", t {told['low']:.0f} to {told['high']:.0f}"
        words += "".join(
            f", {title} {told[name]:.3g}"
            for name, title in (("gradient", "gradient"), ("phi", "phi's loss"), ("regularisers", "regularisers"))
            if name in told
        )
        self.ctx.progress(self.offset + done, self.total, f"{words}. {note}" if note else words, preview)

    def checkpoint(self, done: int, state: dict[str, Any], diary: Diary) -> None:
        """Keep the run durably; where the disk is full the house puts the job off and takes it up again later."""
        self.ctx.checkpoint(self.offset + done, self.keep(done, state, diary))


def train(stage: Stage, keeper: Keeper, start: int, diary: Diary) -> None:
    """Run the stage from step `start` to its end.

    A step that gives no numbers is undone: back to the newest kept state, at half the rates. Ends early where the
    owner has enough. Raises EngineFailed if numbers fail too often, and Cancelled or Paused after what there is has
    been kept.
    """
    index, good = start, (start, stage.state())
    keeper.report(stage, index, {})
    while index < stage.steps:
        if keeper.ctx.enough():
            keeper.checkpoint(index, stage.state(), diary)  # so that a later attempt stops here as well
            return
        try:
            keeper.ctx.check()
        except (Cancelled, Paused):
            keeper.checkpoint(index, stage.state(), diary)
            raise
        told = stage.step(index)
        if not (all(map(math.isfinite, told.values())) and stage.healthy()):
            index = _roll_back(stage, good, index, diary)
            keeper.report(stage, index, {}, note=diary.notes[-1])
            continue
        diary.write(index, told)
        index += 1
        shown = index % keeper.pulse.preview_every == 0 or index == stage.steps
        keeper.report(stage, index, told, keeper.preview(index, diary) if shown else None)
        if index % keeper.pulse.checkpoint_every == 0 or index == stage.steps:
            good = (index, stage.state())
            keeper.checkpoint(index, good[1], diary)


def _roll_back(stage: Stage, good: tuple[int, dict[str, Any]], index: int, diary: Diary) -> int:
    """To the newest kept state, at half the rates."""
    diary.rollbacks += 1
    if diary.rollbacks > MOST_ROLLBACKS:
        raise EngineFailed(
            f"Step {index} of the stage {stage.title} gave no numbers, even at rates halved {MOST_ROLLBACKS} times.",
            "Lower the guidance or the learning rates.",
        )
    pace = stage.pace / 2
    stage.load(good[1])
    stage.pace = min(pace, stage.pace / 2)
    diary.done = good[0]
    diary.rows = [row for row in diary.rows if row["step"] < good[0]]
    diary.notes.append(
        f"Step {index} gave no numbers; went back to step {good[0]} and on at {stage.pace:g} times the rates."
    )
    return good[0]
