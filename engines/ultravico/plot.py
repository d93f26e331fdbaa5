"""Pictures that explain a run: the row attention pattern with its bands, and a contact sheet of all its videos.

Drawn with Pillow alone, with its own font, so that the same numbers give the same bytes everywhere. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (33, 37, 41), (173, 181, 189), (255, 255, 255)
CURVE, WINDOW, BAND, FAR = (28, 110, 190), (220, 240, 224), (252, 221, 214), (255, 246, 222)
SIZE, MARGIN = (1120, 520), (84, 60, 28, 96)  # pixels: width and height; left, top, right, bottom
COLUMNS, TALL = 12, 96  # frames of a contact sheet's row, and their height in pixels at most
LABEL = 22  # pixels of a row's caption


@dataclass(frozen=True)
class Pattern:
    """What the diagram shows; distances are latent frames."""

    distance: np.ndarray  # float [D]
    logit: np.ndarray  # float [D], what that distance adds to the mean logit
    trained: float  # training length
    half_window: float
    bands: tuple[tuple[float, float], ...]  # from, to
    alpha: float | None  # None: nothing decays
    beta: float | None
    period: float  # of the strongest frequency
    share: float  # of the amplitude that it and its harmonics carry


def pattern_plot(shown: Pattern) -> Image.Image:
    """S(dt) over the distance, with the window, the decayed range and the bands behind it."""
    picture = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGIN
    box = (left, top, SIZE[0] - right, SIZE[1] - bottom)
    low, high = float(shown.logit.min()), float(shown.logit.max())
    pad = 0.06 * max(high - low, 1e-6)
    low, high, last = low - pad, high + pad, float(shown.distance[-1])

    def across(distance: float) -> float:
        return box[0] + min(max(distance / last, 0), 1) * (box[2] - box[0])

    def down(value: float) -> float:
        return box[3] - (value - low) / (high - low) * (box[3] - box[1])

    def stripe(start: float, end: float, colour: tuple[int, int, int]) -> None:
        if start < last and end > 0:
            draw.rectangle((across(start), box[1], across(end), box[3]), fill=colour)

    stripe(0, shown.half_window, WINDOW)
    if shown.alpha is not None:
        stripe(shown.half_window, last, FAR)
        for start, end in shown.bands:
            stripe(max(start, shown.half_window), end, BAND)
    _axes(draw, box, low, high, last, across, down)
    draw.line((across(shown.trained), box[1], across(shown.trained), box[3]), fill=FAINT, width=2)
    draw.text((across(shown.trained) + 5, box[1] + 4), "training length", fill=INK, font=_font(14))
    points = [(across(float(d)), down(float(s))) for d, s in zip(shown.distance, shown.logit, strict=True)]
    draw.line(points, fill=CURVE, width=3, joint="curve")
    _captions(draw, shown, box)
    return picture


def _axes(
    draw: ImageDraw.ImageDraw, box: tuple[int, ...], low: float, high: float, last: float, across, down
) -> None:  # type: ignore[no-untyped-def]
    """A frame, a line at zero, and round numbers along both sides."""
    for value in _ticks(0, last):
        draw.line((across(value), box[3], across(value), box[3] + 5), fill=INK)
        draw.text((across(value), box[3] + 8), f"{value:g}", fill=INK, font=_font(14), anchor="ma")
    for value in _ticks(low, high):
        draw.line((box[0] - 5, down(value), box[0], down(value)), fill=INK)
        draw.text((box[0] - 9, down(value)), f"{value:g}", fill=INK, font=_font(14), anchor="rm")
    if low < 0 < high:
        draw.line((box[0], down(0), box[2], down(0)), fill=FAINT)
    draw.rectangle(box, outline=INK)
    draw.text((box[2], box[3] + 28), "distance in time, latent frames", fill=INK, font=_font(15), anchor="ra")


def _captions(draw: ImageDraw.ImageDraw, shown: Pattern, box: tuple[int, ...]) -> None:
    draw.text(
        (box[0], 16), "Row attention pattern: what distance in time adds to the mean logit", fill=INK, font=_font(20)
    )
    said = (
        f"Strongest period {shown.period:.1f} latent frames; with its harmonics {100 * shown.share:.0f} % of it all"
    )
    draw.text((box[0], 40), said, fill=INK, font=_font(14))
    entries = [(WINDOW, "window: untouched")]
    if shown.alpha is not None:
        entries.append((FAR, f"decayed by alpha {shown.alpha:g}"))
        if shown.bands and shown.beta is not None:
            entries.append((BAND, f"bands: decayed by beta {shown.beta:g}"))
    place = box[0]
    for colour, words in entries:
        draw.rectangle((place, box[3] + 52, place + 18, box[3] + 70), fill=colour, outline=FAINT)
        draw.text((place + 26, box[3] + 53), words, fill=INK, font=_font(14))
        place += 60 + round(draw.textlength(words, font=_font(14)))


def _ticks(low: float, high: float) -> list[float]:
    """Five to ten round numbers between two values."""
    span = max(high - low, 1e-9)
    raw = span / 7
    unit = 10.0 ** np.floor(np.log10(raw))
    step = float(unit * next(m for m in (1, 2, 5, 10) if m * unit >= raw))
    first = np.ceil(low / step) * step
    return [round(float(first + i * step), 10) for i in range(int((high - first) / step) + 1)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def thumbnails(frames: np.ndarray) -> np.ndarray:  # uint8 [T, H, W, 3] -> uint8 [COLUMNS, h, w, 3]
    """Evenly spaced frames, first and last among them, small enough for a contact sheet."""
    chosen = frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]
    height, width = chosen.shape[1:3]
    tall = min(TALL, height)
    size = (max(1, round(width * tall / height)), tall)
    if size == (width, height):
        return chosen.copy()
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in chosen])


def contact_sheet(rows: Mapping[str, np.ndarray], times: Sequence[float]) -> Image.Image:
    """A row of frames for each video, uint8 [COLUMNS, h, w, 3] by caption, with the seconds they stand at above."""
    height, width = next(iter(rows.values())).shape[1:3]
    gap = 3
    sheet = Image.new("RGB", (COLUMNS * (width + gap) + gap, LABEL + len(rows) * (height + LABEL + gap) + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, time in enumerate(times):
        draw.text(
            (gap + column * (width + gap) + width / 2, 4), f"{time:.1f} s", fill=INK, font=_font(12), anchor="ma"
        )
    for number, (caption, frames) in enumerate(rows.items()):
        above = LABEL + number * (height + LABEL + gap)
        draw.text((gap + 2, above + 3), caption, fill=INK, font=_font(14))
        for column, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (gap + column * (width + gap), above + LABEL))
    return sheet
