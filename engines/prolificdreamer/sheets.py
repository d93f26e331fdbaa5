"""Pictures about a run: contact sheets, curves, and the analytic toy as a plot. Knows PIL and arrays only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

PAPER, INK, QUIET = (250, 250, 248), (40, 40, 46), (170, 170, 176)
COLOURS = ((196, 74, 48), (38, 98, 168), (70, 140, 60), (140, 90, 170))
GAP = 4  # pixels between tiles
PLOT = 420  # pixels a side of the toy's plot


def to_bytes(pictures: np.ndarray) -> np.ndarray:  # float [..., 3, S, S] about [0, 1] -> uint8 [..., S, S, 3]
    """Clamped and rounded, channels last."""
    return (np.moveaxis(pictures, -3, -1).clip(0, 1) * 255).round().astype(np.uint8)


def sheet(rows: Sequence[np.ndarray], tile: int) -> Image.Image:
    """Rows of uint8 pictures [n, S, S, 3], every picture as a tile of `tile` pixels."""
    columns = max(len(row) for row in rows)
    width, height = columns * (tile + GAP) - GAP, len(rows) * (tile + GAP) - GAP
    page = Image.new("RGB", (width, height), PAPER)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(enlarged(picture, tile), (x * (tile + GAP), y * (tile + GAP)))
    return page


def enlarged(picture: np.ndarray, side: int) -> Image.Image:
    """A picture at another size: pixels stay squares when it grows."""
    image = Image.fromarray(picture)
    if image.size == (side, side):
        return image
    how = Image.Resampling.NEAREST if side % image.width == 0 else Image.Resampling.BICUBIC
    return image.resize((side, side), how)


def grid(pictures: np.ndarray, tile: int) -> Image.Image:  # uint8 [n, S, S, 3]
    """As square an arrangement as there is."""
    columns = math.ceil(math.sqrt(len(pictures)))
    return sheet([pictures[start : start + columns] for start in range(0, len(pictures), columns)], tile)


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    page = Image.new("RGB", (max(p.width for p in parts), sum(p.height + GAP for p in parts) - GAP), PAPER)
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height + GAP
    return page


def curves(rows: Sequence[Mapping[str, float]], names: Sequence[str], width: int, height: int = 72) -> Image.Image:
    """What steps told over the run, each name on a logarithmic scale of its own."""
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    for name, colour in zip(names, COLOURS, strict=False):
        points = [(row["step"], math.log(row[name])) for row in rows if row.get(name, 0) > 0]
        if len(points) < 2:
            continue
        xs, ys = np.array(points).T
        low, high = ys.min(), max(ys.max(), ys.min() + 0.1)
        across = (xs - xs[0]) / max(1.0, xs[-1] - xs[0]) * (width - 1)
        down = (height - 14) - (ys - low) / (high - low) * (height - 18)
        draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=colour)
    x = 4
    for name, colour in zip(names, COLOURS, strict=False):
        draw.text((x, height - 12), name, fill=colour)
        x += 8 * len(name) + 12
    return page


def toy_plot(
    particles: Mapping[str, np.ndarray],  # title -> [n, 2]
    mean: Sequence[float],
    variance: Sequence[float],
) -> Image.Image:
    """Particles of each algorithm beside each other, over the ellipses of one and two deviations of the truth."""
    parts = []
    for (title, points), colour in zip(particles.items(), COLOURS, strict=False):
        page = Image.new("RGB", (PLOT, PLOT), PAPER)
        draw = ImageDraw.Draw(page)
        unit = PLOT / 7.0  # pixels

        def at(x: float, y: float, unit: float = unit) -> tuple[float, float]:
            return PLOT / 2 + (x - mean[0]) * unit, PLOT / 2 - (y - mean[1]) * unit

        for count in (1, 2):
            wide, tall = (count * math.sqrt(v) for v in variance)
            left, top = at(mean[0] - wide, mean[1] + tall)
            right, bottom = at(mean[0] + wide, mean[1] - tall)
            draw.ellipse((left, top, right, bottom), outline=QUIET, width=2)
        for x, y in points:
            px, py = at(float(x), float(y))
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=colour)
        spread = ", ".join(f"{value:.3g}" for value in points.var(axis=0, ddof=1))
        truth = ", ".join(f"{value:g}" for value in variance)
        draw.text((8, 6), f"{title}: variance {spread}; truth {truth}", fill=INK)
        parts.append(page)
    page = Image.new("RGB", (sum(p.width + GAP for p in parts) - GAP, PLOT), PAPER)
    for index, part in enumerate(parts):
        page.paste(part, (index * (PLOT + GAP), 0))
    return page
