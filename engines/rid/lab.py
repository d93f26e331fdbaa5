"""The thief's laboratory: one person stolen from clean, protected and otherwise perturbed pictures, side by side.

RID (arXiv 2412.09844), evaluation protocol. What a theft is stands in `theft.py`; this borrows the models, reports,
measures and saves, one condition after the other. Knows no page and no store.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from engines.rid.album import NAMED, Photo, Refused, opened, photos, refusals
from engines.rid.defender import GREY_LEVELS
from engines.rid.identity import Recogniser, shipped
from engines.rid.levels import stored
from engines.rid.pipeline import locate, locate_surrogate
from engines.rid.portrait import preprocess_portrait
from engines.rid.presets import JUDGE, MODELS, SURROGATES
from engines.rid.purify import WAYS, left
from engines.rid.quality import visibility_metrics
from engines.rid.spec import CONDITIONS, THIEF_PHOTOS, RidParams
from engines.rid.surrogate import Diffusion
from engines.rid.theft import likeness, perturbed, seed_of, stolen_pictures
from engines.rid.thief import Way, passes
from studio.contract import Context
from studio.errors import InvalidInput

ROLES = {"clean": "baseline", "rid": "method"}  # of all others: ablation
COLUMNS = 4  # of a sheet
GAP = 4  # pixels between pictures of a sheet


def play(ctx: Context, params: RidParams, given: list[Photo]) -> None:
    """One thief for every condition; a killed run goes on with the first that is not done."""
    work = _Theft(ctx, params, given)
    for name in params.conditions:
        if not ctx.done(f"{name}-photos.png"):
            work.steal(name)
        work.reached = (params.conditions.index(name) + 1) * work.each


class _Theft:
    """One run: the pictures, the model they are learned by, and how far it has come."""

    def __init__(self, ctx: Context, params: RidParams, given: list[Photo]) -> None:
        self.ctx, self.params = ctx, params
        self.preset = MODELS[params.model]
        self.surrogate = SURROGATES[self.preset.surrogate]
        self.folder = locate_surrogate(self.preset.surrogate, ctx.weights)
        if "rid" in params.conditions:  # what is missing is told before hours are spent on the others
            locate(params.model, params.budget, ctx.weights)
        self.clean, self.notice = self._pictures(given)
        way = self.surrogate.ways[params.thief]
        self.way = Way(params.thief, **(way | ({"steps": params.thief_steps} if params.thief_steps else {})))
        self.each = self.way.steps + passes(params.generated)
        self.reached = 0

    def _pictures(self, given: list[Photo]) -> tuple[Tensor, str]:  # [N, 3, S, S] in [-1, 1]
        """4 to 8 photos as the model takes them, and what is to be said of all others. Raises InvalidInput for fewer.

        Further ones are not looked at.
        """
        least, most = THIEF_PHOTOS
        usable, refused, further = [], [], 0
        for file in photos(given):
            if len(usable) == most:
                further += 1
                continue
            try:
                if isinstance(file, Refused):
                    raise file.error
                usable.append(preprocess_portrait(opened(file), self.surrogate.side)[1])
            except InvalidInput as error:
                refused.append(f"{file.name}: {error}")
        if len(usable) < least:
            raise InvalidInput(
                " ".join(
                    [f"A thief needs at least {least} pictures of one person; {len(usable)} can be used."]
                    + refused[:NAMED]
                ),
                "Add some more of the same person.",
                field="images",
            )
        said = [refusals(refused, len(usable) + len(refused))] if refused else []
        if further:
            said.append(f"A thief learns {most} pictures at most: the first {most}. {further} more are left out.")
        return torch.stack(usable), " ".join(said)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return len(self.params.conditions) * self.each

    @cached_property
    def judge(self) -> Recogniser:
        """The identity embedder that ships with the project."""
        return shipped(JUDGE)

    def stream(self, purpose: str) -> torch.Generator:
        """Randomness for one purpose, the same for every condition."""
        return self.ctx.generator(seed_of(self.params.seed, purpose))

    def steal(self, name: str) -> None:
        """Perturb, purify, learn, draw, measure, save."""
        hear = partial(self._report, CONDITIONS[name])
        with self.folder.lend_whole(self.ctx) as model:
            posted = perturbed(
                name,
                self.clean,
                eps=self.params.budget / GREY_LEVELS,
                models=[model],
                surrogate=self.surrogate,
                defend=self._defended,
                stream=self.stream,
                on_step=hear,
            )
            drawn = stolen_pictures(
                model,
                posted,
                self.way,
                self.params.generated,
                surrogate=self.surrogate,
                purify=self.params.purify,
                stream=self.stream,
                on_step=hear,
            )
            table = "" if name == "clean" else self._robustness(model, posted)
        self._save(name, posted, drawn, table)

    def _report(self, title: str, stage: str, done: int) -> None:
        self.ctx.check()
        steps, drawing = self.way.steps, self.each - self.way.steps
        at, said = {
            "search": (0, f"searching, step {done}"),  # takes long, but is no step of a theft
            "learn": (done, f"learning, step {done} of {steps}"),
            "draw": (steps + done, f"drawing, step {done} of {drawing}"),
        }[stage]
        self.ctx.progress(self.reached + at, self.total, f"{title}: {said}")

    @torch.no_grad()
    def _defended(self, clean: Tensor) -> Tensor:
        with locate(self.params.model, self.params.budget, self.ctx.weights).lend(self.ctx) as defender:
            predicted = defender(clean.to(self.ctx.device)).cpu()
        return predicted * (self.params.budget / GREY_LEVELS / defender.eps)

    def _robustness(self, model: Diffusion, posted: Tensor) -> str:
        """What each purification leaves of the perturbation, as CSV; no thief is needed for that."""
        rows = []
        for way in (*WAYS, "diffusion"):
            self.ctx.check()
            found = left(
                self.clean.to(self.ctx.device),
                posted.to(self.ctx.device),
                way,
                model=model,
                prompt=self.surrogate.person,
                guidance=self.surrogate.guidance,
                stream=partial(self.stream, "purify"),
            )
            numbers = {f"left: {what}": round(value, 4) for what, value in asdict(found).items()}
            rows.append({"purification": way, **numbers})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _save(self, name: str, posted: Tensor, drawn: Tensor, robustness: str) -> None:
        largest, _, psnr = visibility_metrics(stored(self.clean), stored(posted))
        seen = {"max_change": largest, "psnr": round(psnr, 2) if np.isfinite(psnr) else None}
        numbers = likeness(self.judge, stored(self.clean), posted, drawn, same=True) | seen
        facts = {"method": name, "seed": self.params.seed}
        file, role = f"{name}-generated.png", ROLES.get(name, "ablation")
        told = {"notice": self.notice} if self.notice and name == self.params.conditions[0] else {}
        self.ctx.save(file, "image", sheet(stored(drawn)), role=role, title=CONDITIONS[name], **facts, **told)
        self.ctx.metrics(file, **numbers)
        if robustness:
            title = f"{CONDITIONS[name]}: what purification leaves"
            self.ctx.save(f"{name}-robustness.csv", "table", robustness, role="sheet", title=title, **facts)
        title = f"{CONDITIONS[name]}: what the thief gets"  # saved last: where it is, the numbers are
        self.ctx.save(f"{name}-photos.png", "image", sheet(stored(posted)), role="sheet", title=title, **facts)


def sheet(pictures: np.ndarray, columns: int = COLUMNS) -> np.ndarray:  # uint8 [N, S, S, 3] -> uint8 [H, W, 3]
    """Pictures in rows, pixel for pixel."""
    count, side = pictures.shape[:2]
    rows = -(-count // columns)
    page = np.full((rows * (side + GAP) - GAP, columns * (side + GAP) - GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (place * (side + GAP) for place in divmod(index, columns))
        page[top : top + side, left : left + side] = picture
    return page
