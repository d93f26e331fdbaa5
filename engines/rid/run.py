"""RID, top to bottom: open each photo, predict its perturbation, add it within the budget, measure, save, report.

Photos go through one by one or in small batches; one that cannot be used is named in the report and the others go on.
A killed run goes on with the first photo that is not done. Playing the thief is in `lab.py`. Knows no page, no store.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.rid import lab
from engines.rid.album import Photo, Refused, opened, photos, refusals
from engines.rid.defender import GREY_LEVELS
from engines.rid.framing import Square, bands, squares
from engines.rid.metrics import amplified, measured
from engines.rid.pipeline import locate
from engines.rid.plain import Plain
from engines.rid.portrait import middle, over_white, protect_levels, taken
from engines.rid.spec import RidParams, validate
from studio.contract import Context
from studio.errors import InvalidInput

BATCH = {"cpu": 4, "cuda": 16}  # squares that go through the network at once
GROUP_PIXELS = 16_000_000  # of photos that are held at once: with so many, no more are opened
REPORT = "report.csv"
WITHHELD = ("images",)  # what a picture that is posted does not tell: the names of all files it was handed over with
NAME_BYTES = 180  # of a result's name: with an ending, folders take 255
TABLE = 12  # photos up to which the numbers of each stand on the page; those of more are in the report


def run(ctx: Context, params: RidParams) -> None:
    """Protect every photo, or play the thief with them."""
    validate(params)
    ctx.check()
    given = [Photo(file.name, partial(ctx.input, file.sha256)) for file in params.images]
    if params.task == "thief":
        lab.play(ctx, params, given)
        return
    protect(ctx, params, given)


@dataclass(frozen=True)
class Ready:
    """A photo that can be protected."""

    name: str  # of its results, without ending
    source: str  # as its owner calls it
    image: Image.Image  # opened
    seen: Image.Image  # what the network looks at: RGB, over white, of the size of the result

    @property
    def parts(self) -> list[Square]:
        """The squares that it is covered with."""
        return squares(*self.seen.size)


@torch.no_grad()
def protect(ctx: Context, params: RidParams, given: list[Photo]) -> None:
    """All photos in order, in groups; the report at the end."""
    checkpoint = locate(params.model, params.budget, ctx.weights)
    _, state = ctx.resume() or (0, {})
    rows: list[dict[str, Any]] = list(state.get("rows", []))
    names = free_names([file.name for file in photos(given)])
    todo = islice(zip(names, photos(given), strict=True), len(rows), None)
    ctx.progress(len(rows), len(names), f"{len(rows)} of {len(names)} photos")
    with checkpoint.lend(ctx) as defender:
        found = (ready(name, file, params, defender.shape.input_size) for name, file in todo)
        for group in grouped(found, BATCH[torch.device(ctx.device).type]):
            deltas = iter(perturbations(defender, [row for row in group if isinstance(row, Ready)], params, ctx))
            for row in group:
                ctx.check()
                if isinstance(row, Ready):
                    row = _finish(ctx, params, row, next(deltas), of=len(names))
                rows.append(row)
                ctx.progress(len(rows), len(names), f"{len(rows)} of {len(names)} photos")
            ctx.checkpoint(len(rows), {"rows": rows})
    _report(ctx, params, rows, checkpoint.revision)


def ready(name: str, file: Photo | Refused, params: RidParams, side: int) -> Ready | dict[str, Any]:
    """The opened photo, or the row of the report that says why not."""
    if isinstance(file, Photo):
        try:
            image = opened(file)
            seen = over_white(image)
            return Ready(name, file.name, image, middle(seen, side) if params.framing == "crop" else seen)
        except InvalidInput as error:
            file = Refused(file.name, error)
    return {"file": file.name, "state": "refused", "why": str(file.error)}


def grouped(found: Iterable[Ready | dict[str, Any]], most: int) -> Iterator[list[Ready | dict[str, Any]]]:
    """Photos that are held at once: up to `most`, and no more once they have 16 million pixels together."""
    group: list[Ready | dict[str, Any]] = []
    pixels = 0
    for photo in found:
        group.append(photo)
        pixels += photo.image.width * photo.image.height if isinstance(photo, Ready) else 0
        if len(group) == most or pixels >= GROUP_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def perturbations(defender: Plain, usable: list[Ready], params: RidParams, ctx: Context) -> Iterator[Tensor]:
    """For every square of each photo, [N, 3, S, S] in [-1, 1]; squares of several photos go through together."""
    if not usable:
        return
    side, eps, device = defender.shape.input_size, params.budget / GREY_LEVELS, torch.device(ctx.device)
    predicted = []
    for batch in torch.cat([taken(photo.seen, photo.parts, side) for photo in usable]).split(BATCH[device.type]):
        ctx.check()
        predicted.append(defender(batch.to(device)).float().cpu() * (eps / defender.eps))
    yield from torch.cat(predicted).split([len(photo.parts) for photo in usable])


def _finish(ctx: Context, params: RidParams, photo: Ready, deltas: Tensor, of: int) -> dict[str, Any]:
    """Save the protected photo, the original and the difference, all lossless; the row of the report.

    `of` photos in all: one alone needs no name in its titles, and many have their numbers in the report only.
    """
    # The network saw it over white; what is stored is not.
    see_through = params.framing == "keep" and photo.image.mode == "RGBA"
    original = np.asarray(photo.image.convert("RGB") if see_through else photo.seen)
    height, width = original.shape[:2]
    protected = protect_levels(original, bands(deltas, photo.parts, height, width, params.budget / GREY_LEVELS))
    numbers = measured(original, protected)
    colours: tuple[str, ...] = ("icc_profile",)
    result = _like(photo.image, protected, params, (*colours, "exif") if params.keep_exif else colours)
    file, whose = f"{photo.name}.png", "" if of == 1 else f"{photo.source}: "

    def save(name: str, value: Any, role: str, method: str, title: str, **more: Any) -> None:
        facts = {"role": role, "method": method, "title": f"{whose}{title}", "seed": params.seed, **more}
        ctx.save(name, "image", value, group=photo.name, withholds=WITHHELD, **facts)

    before = _like(photo.image, original, params, colours)
    save(f"{photo.name}-original.png", before, "baseline", "original", "original", carries=list(before.info))
    save(file, result, "method", "rid", "protected", carries=list(result.info))
    if params.differences:
        shown = amplified(original, protected, params.budget)
        times = f"{GREY_LEVELS / params.budget:.3g}"
        save(f"{photo.name}-difference.png", shown, "control", "difference", f"difference, {times} times amplified")
    if of <= TABLE:
        ctx.metrics(file, **numbers)
    return {"file": photo.source, "state": "protected", "result": file, "budget": params.budget, **numbers}


def _like(source: Image.Image, pixels: np.ndarray, params: RidParams, carried: tuple[str, ...]) -> Image.Image:
    """A picture with the transparency of its source, and what of its `info` is `carried`."""
    image = Image.fromarray(pixels)
    if params.framing == "keep" and source.mode == "RGBA":
        image.putalpha(source.getchannel("A"))
    image.info = {name: source.info[name] for name in carried if source.info.get(name)}
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
    refused = [f"{row['file']}: {row['why']}" for row in rows if row["state"] == "refused"]
    told = {"notice": refusals(refused, len(rows), f", see {REPORT}")} if refused else {}
    ctx.save(REPORT, "table", text.getvalue(), **told)
    ctx.metrics("", protected=len(done), refused=len(refused))


def free_names(names: list[str]) -> list[str]:
    """A name for the results of each file: its own without ending, with a number where any two would be the same."""
    taken_names: set[str] = set()
    free = []
    for name in names:
        stem = PurePath(PurePath(name.replace("\\", "/")).name).stem or "photo"
        safe = (
            "".join(letter if letter.isalnum() or letter in "-_. ()" else "_" for letter in stem).strip(" .")
            or "photo"
        )
        safe = safe.encode()[:NAME_BYTES].decode(errors="ignore")
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
