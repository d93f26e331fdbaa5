"""RID, top to bottom: open each photo, predict its perturbation, add it within the budget, measure, save, report.

Photos go through one by one or in small batches; one that cannot be used is named in the report and the others go on.
A killed run goes on with the first photo that is not done. Playing the thief is in `lab.py`. Knows no page, no store.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.rid import lab
from engines.rid.album import Photo, Refused, opened, photos
from engines.rid.defender import Defender
from engines.rid.framing import spread, squares, taken
from engines.rid.metrics import amplified, measured
from engines.rid.pipeline import locate
from engines.rid.portrait import apply_perturbation, over_white, preprocess_portrait
from engines.rid.spec import RidParams, validate
from studio.contract import Context
from studio.errors import InvalidInput

BATCH = {"cpu": 4, "cuda": 16}  # squares that go through the network at once
REPORT = "report.csv"
TABLE = 12  # photos up to which the numbers of each stand on the page; those of more are in the report


def run(ctx: Context, params: RidParams) -> None:
    """Protect every photo, or play the thief with them."""
    validate(params)
    ctx.check()
    given = [Photo(file.name, ctx.input(file.sha256)) for file in params.images]
    if params.task == "thief":
        lab.play(ctx, params, given)
        return
    protect(ctx, params, list(photos(given)))


@dataclass(frozen=True)
class Ready:
    """A photo that can be protected."""

    name: str  # of its results, without ending
    source: str  # as its owner calls it
    image: Image.Image


@torch.no_grad()
def protect(ctx: Context, params: RidParams, given: list[Photo | Refused]) -> None:
    """All photos in order, in groups; the report at the end."""
    checkpoint = locate(params.model, params.budget, ctx.weights)
    _, state = ctx.resume() or (0, {})
    rows: list[dict[str, Any]] = list(state.get("rows", []))
    names = free_names([file.name for file in given])
    todo = list(zip(names, given, strict=True))[len(rows) :]
    size = BATCH[torch.device(ctx.device).type]
    ctx.progress(len(rows), len(given), f"{len(rows)} of {len(given)} photos")
    with checkpoint.lend(ctx) as defender:
        for start in range(0, len(todo), size):
            group = todo[start : start + size]
            ready = [_ready(name, file) for name, file in group]
            usable = [photo for photo in ready if isinstance(photo, Ready)]
            deltas = iter(perturbations(defender, [photo.image for photo in usable], params, ctx))
            for row in ready:
                ctx.check()
                if isinstance(row, Ready):
                    row = _finish(ctx, params, row, next(deltas), of=len(given))
                rows.append(row)
                ctx.progress(len(rows), len(given), f"{len(rows)} of {len(given)} photos")
            ctx.checkpoint(len(rows), {"rows": rows})
    _report(ctx, params, rows, checkpoint.revision)


def perturbations(
    defender: Defender, images: list[Image.Image], params: RidParams, ctx: Context
) -> Iterator[tuple[Tensor, Tensor]]:
    """Picture and perturbation of each, [3, H, W] in [-1, 1], at the size of the result."""
    side, eps = defender.shape.input_size, params.budget / 127.5
    pictures = [_tensor(image, params, side) for image in images]
    parts = [squares(picture.shape[2], picture.shape[1]) for picture in pictures]
    inputs = [taken(picture, part, side) for picture, part in zip(pictures, parts, strict=True)]
    if not inputs:
        return
    flat = torch.cat(inputs).split(BATCH[torch.device(ctx.device).type])
    predicted = torch.cat([defender(part.to(ctx.device)).float().cpu() for part in flat]) * (eps / defender.eps)
    for picture, part, deltas in zip(pictures, parts, predicted.split([len(p) for p in parts]), strict=True):
        yield picture, spread(deltas, part, picture.shape[1], picture.shape[2], eps)


def _tensor(image: Image.Image, params: RidParams, side: int) -> Tensor:  # [3, H, W] in [-1, 1]
    if params.framing == "crop":
        return preprocess_portrait(image, side)[1]
    return _levels(over_white(image))


def _levels(image: Image.Image) -> Tensor:  # RGB -> [3, H, W] in [-1, 1]
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _ready(name: str, file: Photo | Refused) -> Ready | dict[str, Any]:
    """The opened photo, or the row of the report that says why not."""
    if isinstance(file, Photo):
        try:
            return Ready(name, file.name, opened(file))
        except InvalidInput as error:
            file = Refused(file.name, error)
    return {"file": file.name, "state": "refused", "why": str(file.error)}


def _finish(ctx: Context, params: RidParams, photo: Ready, made: tuple[Tensor, Tensor], of: int) -> dict[str, Any]:
    """Save the protected photo, the original and the difference, all lossless; the row of the report.

    `of` photos in all: one alone needs no name in its titles, and many have their numbers in the report only.
    """
    picture, delta = made
    if params.framing == "keep" and photo.image.mode == "RGBA":
        picture = _levels(photo.image.convert("RGB"))  # the network saw it over white; what is stored is not
    _, levels = apply_perturbation(picture, delta)
    protected = levels.permute(1, 2, 0).numpy()
    original = ((picture + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    numbers = measured(original, protected)
    result = _with_what_it_carried(protected, photo.image, params)
    file, whose = f"{photo.name}.png", "" if of == 1 else f"{photo.source}: "

    def save(name: str, value: Any, role: str, method: str, title: str, **more: Any) -> None:
        facts = {"role": role, "method": method, "title": f"{whose}{title}", "seed": params.seed, **more}
        ctx.save(name, "image", value, **facts)

    save(f"{photo.name}-original.png", original, "baseline", "original", "original")
    save(file, result, "method", "rid", "protected", carries=list(result.info))
    if params.differences:
        shown = amplified(original, protected, params.budget)
        times = f"{127.5 / params.budget:.3g}"
        save(f"{photo.name}-difference.png", shown, "control", "difference", f"difference, {times} times amplified")
    if of <= TABLE:
        ctx.metrics(file, **numbers)
    return {"file": photo.source, "state": "protected", "result": file, "budget": params.budget, **numbers}


def _with_what_it_carried(protected: np.ndarray, source: Image.Image, params: RidParams) -> Image.Image:
    """The picture with the transparency and the colour profile of its source, and on request with its EXIF."""
    image = Image.fromarray(protected)
    if params.framing == "keep" and source.mode == "RGBA":
        image.putalpha(source.getchannel("A"))
    wanted = ("icc_profile", "exif") if params.keep_exif else ("icc_profile",)
    image.info = {name: source.info[name] for name in wanted if source.info.get(name)}
    return image


def _report(ctx: Context, params: RidParams, rows: list[dict[str, Any]], revision: str) -> None:
    """The table of all files; raises the first refusal where nothing could be protected."""
    done = [row for row in rows if row["state"] == "protected"]
    if not done:
        first = rows[0]
        raise InvalidInput(
            f"{first['file']}: {first['why']}"
            if len(rows) == 1
            else f"None of {len(rows)} files could be used. The first, {first['file']}: {first['why']}",
            field="images",
        )
    columns = list(dict.fromkeys(name for row in rows for name in row)) + ["checkpoint"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "checkpoint": revision} for row in rows)
    ctx.save(REPORT, "table", text.getvalue())
    ctx.metrics("", protected=len(done), refused=len(rows) - len(done))


def free_names(names: list[str]) -> list[str]:
    """A name for the results of each file: its own without ending, with a number where any two would be the same."""
    taken_names: set[str] = set()
    free = []
    for name in names:
        stem = PurePath(PurePath(name).name).stem[:120] or "photo"
        safe = (
            "".join(letter if letter.isalnum() or letter in "-_. ()" else "_" for letter in stem).strip(" .")
            or "photo"
        )
        number, candidate = 1, safe
        while taken_names & results_of(candidate):
            number += 1
            candidate = f"{safe}-{number}"
        taken_names |= results_of(candidate)
        free.append(candidate)
    return free


def results_of(name: str) -> set[str]:
    """What the results of a photo are called, in lower case, since to some disks case makes no difference."""
    return {f"{name}{part}".lower() for part in ("", "-original", "-difference")}
