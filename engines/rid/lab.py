"""The thief's laboratory: one person stolen from clean, protected and otherwise perturbed pictures, side by side.

RID (arXiv 2412.09844), evaluation protocol: protect, personalise, generate, measure. Everything but what was done to
the pictures is the same for every thief: seeds, steps, prompts. Knows no page and no store.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.rid.album import Photo, Refused, opened, photos
from engines.rid.defender import GREY_LEVELS
from engines.rid.identity import Recogniser, shipped
from engines.rid.pgd import protect_by_search
from engines.rid.pipeline import locate, locate_surrogate
from engines.rid.portrait import apply_perturbation, preprocess_portrait
from engines.rid.presets import JUDGE, MODELS, SURROGATES
from engines.rid.purify import purified
from engines.rid.quality import brisque, frechet_distance, identity_metrics, visibility_metrics
from engines.rid.spec import CONDITIONS, THIEF_PHOTOS, RidParams
from engines.rid.surrogate import Diffusion
from engines.rid.thief import Way, generate, personalise
from studio.contract import Context
from studio.errors import InvalidInput

ROLES = {"clean": "baseline", "rid": "method", "random": "ablation", "pgd": "ablation"}
SEARCH = (10, 9)  # rounds and steps a round of the search, and of it alone
COLUMNS = 4  # of a sheet
GAP = 4  # pixels between pictures of a sheet
STREAMS = {"random": 1, "pgd": 2, "purify": 3, "learn": 4, "draw": 5}  # independent randomness under one seed


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
        self.clean = self._pictures(given)
        way = self.surrogate.ways[params.thief]
        self.way = Way(params.thief, **(way | ({"steps": params.thief_steps} if params.thief_steps else {})))
        self.each = self.way.steps + params.generated
        self.reached = 0

    def _pictures(self, given: list[Photo]) -> Tensor:  # [N, 3, S, S] in [-1, 1]
        """4 to 8 photos as the model takes them. Raises InvalidInput for fewer."""
        least, most = THIEF_PHOTOS
        usable = []
        for file in photos(given):
            if isinstance(file, Refused):
                raise InvalidInput(f"{file.name}: {file.error}", field="images")
            usable.append(preprocess_portrait(opened(file), self.surrogate.side)[1])
        if len(usable) < least:
            raise InvalidInput(
                f"A thief needs at least {least} pictures of one person; here are {len(usable)}.",
                "Add some more of the same person.",
                field="images",
            )
        return torch.stack(usable[:most])

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return len(self.params.conditions) * self.each

    @cached_property
    def judge(self) -> Recogniser:
        """The identity embedder that ships with the project."""
        return shipped(JUDGE)

    def stream(self, name: str) -> torch.Generator:
        """Randomness for one purpose, the same for every condition."""
        return self.ctx.generator((self.params.seed + 0x9E3779B97F4A7C15 * STREAMS[name]) % 2**63)

    def steal(self, name: str) -> None:
        """Perturb, purify, learn, draw, measure, save."""
        title = CONDITIONS[name]
        with self.folder.lend_whole(self.ctx) as model:
            handed_over = self.perturbed(name, model)
            learned = purified(handed_over, self.params.purify, model=model, generator=self.stream("purify"))
            stolen = personalise(
                model,
                learned.to(self.ctx.device),
                self.way,
                subject=self.surrogate.subject,
                person=self.surrogate.person,
                generator=self.stream("learn"),
                on_step=lambda done: self._report(done, f"{title}: learning, step {done} of {self.way.steps}"),
            )
            drawn = generate(
                stolen,
                self.params.generated,
                generator=self.stream("draw"),
                guidance=self.surrogate.guidance,
                on_step=lambda done: self._report(self.way.steps + done, f"{title}: drawing"),
            )
        self._save(name, handed_over, drawn.cpu())

    def _report(self, done: int, message: str) -> None:
        self.ctx.check()
        self.ctx.progress(self.reached + done, self.total, message)

    def perturbed(self, name: str, model: Diffusion) -> Tensor:  # [N, 3, S, S] in [-1, 1], on whole grey levels
        """The pictures under one condition, as they would be posted."""
        eps = self.params.budget / GREY_LEVELS
        if name == "clean":
            return self.clean
        if name == "random":
            signs = torch.randint(0, 2, self.clean.shape, generator=self.stream("random")) * 2.0 - 1
            delta = eps * signs
        elif name == "rid":
            delta = self._defended(eps)
        else:
            rounds, inner = SEARCH
            found = protect_by_search(
                [model],
                self.clean.to(self.ctx.device),
                eps=eps,
                rounds=rounds,
                inner=inner,
                prompt=self.surrogate.person,
                generator=self.stream("pgd"),
                on_step=lambda done: self._report(0, f"{CONDITIONS[name]}: step {done} of {rounds * inner}"),
            )
            delta = found.cpu() - self.clean
        return apply_perturbation(self.clean, delta)[1].float() / 127.5 - 1

    @torch.no_grad()
    def _defended(self, eps: float) -> Tensor:
        with locate(self.params.model, self.params.budget, self.ctx.weights).lend(self.ctx) as defender:
            predicted = defender(self.clean.to(self.ctx.device)).cpu()
        return predicted * (eps / defender.eps)

    def _save(self, name: str, handed_over: Tensor, drawn: Tensor) -> None:
        largest, _, psnr = visibility_metrics(levels(self.clean), levels(handed_over))
        seen = {"max_change": largest, "psnr": round(psnr, 2) if np.isfinite(psnr) else None}
        numbers = likeness(self.judge, levels(self.clean), levels(drawn)) | seen
        facts = {"method": name, "seed": self.params.seed}
        file = f"{name}-generated.png"
        self.ctx.save(file, "image", sheet(levels(drawn)), role=ROLES[name], title=CONDITIONS[name], **facts)
        self.ctx.metrics(file, **numbers)
        title = f"{CONDITIONS[name]}: what the thief gets"  # saved last: where it is, the numbers are
        self.ctx.save(f"{name}-photos.png", "image", sheet(levels(handed_over)), role="sheet", title=title, **facts)


def likeness(
    judge: Recogniser,
    person: np.ndarray,  # uint8 [N, S, S, 3], true pictures
    drawn: np.ndarray,  # uint8 [M, S, S, 3], what the thief made
) -> dict[str, Any]:
    """Identity, faces, distribution and naturalness of what was made.

    Where the judge finds no face in most of the person's own pictures, it says nothing about identity.
    """
    reference, seen = judge(person)
    embeddings, faces = judge(drawn)
    numbers: dict[str, Any] = {}
    if seen.mean() > 0.5:
        ism, fdfr = identity_metrics(embeddings, faces, reference)
        numbers |= {"ism": None if np.isnan(ism) else round(ism, 4), "fdfr": round(fdfr, 4)}
        if min(len(reference), len(embeddings)) > 1:
            numbers |= {"fid": round(frechet_distance(embeddings, reference), 4)}
    scores = [score for picture in drawn if (score := _naturalness(picture)) is not None]
    return numbers | ({"brisque": round(float(np.mean(scores)), 2)} if scores else {})


def _naturalness(picture: np.ndarray) -> float | None:
    try:
        return brisque(picture)[1]
    except ValueError:  # a picture without any texture
        return None


def levels(pictures: Tensor) -> np.ndarray:  # [N, 3, S, S] in [-1, 1] -> uint8 [N, S, S, 3]
    """Grey levels, rounded half up as pictures are saved."""
    return ((pictures + 1) * 127.5 + 0.5).floor().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def sheet(pictures: np.ndarray, columns: int = COLUMNS) -> np.ndarray:  # uint8 [N, S, S, 3] -> uint8 [H, W, 3]
    """Pictures in rows, pixel for pixel."""
    count, side = pictures.shape[:2]
    rows = -(-count // columns)
    page = np.full((rows * (side + GAP) - GAP, columns * (side + GAP) - GAP, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (place * (side + GAP) for place in divmod(index, columns))
        page[top : top + side, left : left + side] = picture
    return page
