"""What the page prints under an UltraImage result: how often the picture repeats itself, and how washed out it is.

Everything is measured on the finished uint8 RGB picture [H, W, 3], without a learned model, by the rules of the
flat world: objects are saturated, sky and ground are not, the sky is bright and the ground is not. Lengths are
shares of the shorter side, so one rule serves all sizes. Recognising what an object is takes a judge, which is
handed in. On photographs only `vividness` and `seam_visibility` mean anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pocket.flatworld import parse

SATURATED = 0.5  # the world's sky and ground stay below 0.3, its objects above 0.7
MIN_AREA = 0.001  # of the squared shorter side; the smallest object covers 0.009 of it
SKY, GROUND = 0.78, 0.70  # luminance: above is sky, below is ground, between stays what it was
STRIPS = 12  # vertical strips in which horizons are counted
MIN_BAND = 0.04  # of the height: a thinner band of sky or ground is texture, not a horizon
PATCH = 8  # pixels per token of the pocket model


@dataclass(frozen=True)
class Component:
    """One connected region of saturated pixels: its bounding box and its area in pixels."""

    top: int
    left: int
    bottom: int
    right: int
    area: int


@dataclass(frozen=True)
class Recognition:
    """What a judge takes a component for; `kind` is None when it looks like nothing the world contains."""

    kind: str | None
    colour: str
    probability: float  # of the kind


Judge = Callable[[np.ndarray, list[Component]], list[Recognition]]


def saturation(image: np.ndarray) -> np.ndarray:  # uint8 [H, W, 3] -> float32 [H, W] in [0, 1]
    """HSV saturation; 0 for black."""
    high, low = image.max(-1).astype(np.float32), image.min(-1).astype(np.float32)
    return (high - low) / np.maximum(high, 1.0)


def find_objects(image: np.ndarray) -> list[Component]:  # uint8 [H, W, 3]
    """Connected components (8 neighbours) of saturated pixels that are large enough to be meant, largest first."""
    labels, _ = ndimage.label(saturation(image) > SATURATED, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel())
    smallest = MIN_AREA * min(image.shape[:2]) ** 2
    found = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if areas[index] >= smallest:
            rows, columns = box
            found.append(Component(rows.start, columns.start, rows.stop, columns.stop, int(areas[index])))
    return sorted(found, key=lambda component: -component.area)


def count_objects(image: np.ndarray) -> int:  # uint8 [H, W, 3]
    """How many separate saturated things there are; a picture that repeats itself has too many."""
    return len(find_objects(image))


def count_horizons(image: np.ndarray) -> int:  # uint8 [H, W, 3]
    """Borders between sky and ground met on the way down, in either direction; the median over vertical strips.

    1 in every true picture; sky, ground, sky, ground has 3; a grey wash has none.
    """
    short = min(image.shape[:2])
    background = ~ndimage.binary_dilation(saturation(image) > 0.35, iterations=max(1, round(0.015 * short)))
    luminance = image @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    strips = zip(np.array_split(luminance, STRIPS, 1), np.array_split(background, STRIPS, 1), strict=True)
    borders = [_borders(light, known) for light, known in strips]
    return int(np.median(borders) + 0.5)


def vividness(image: np.ndarray) -> float:  # uint8 [H, W, 3]
    """97th percentile of saturation: how strong the strongest colours are; falls when attention is diluted."""
    return float(np.percentile(saturation(image), 97))


def seam_visibility(image: np.ndarray, patch: int = PATCH) -> float:  # uint8 [H, W, 3]
    """Mean step across patch borders over mean step inside patches: 1 is seamless, more is a visible grid."""
    pixels = image.astype(np.float32)
    border, inside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels, axis=axis)).mean(-1)
        steps = steps if axis == 0 else steps.T
        at_border = np.arange(1, pixels.shape[axis]) % patch == 0
        border.append(steps[at_border].mean())
        inside.append(steps[~at_border].mean())
    return float(np.sum(border) / max(np.sum(inside), 1e-6))


def measure(image: np.ndarray, prompt: str, judge: Judge | None = None) -> dict[str, object]:
    """Everything the page shows; what the prompt leaves open, or no judge was there to say, is None."""
    wanted = parse(prompt)
    found = find_objects(image)
    result: dict[str, object] = {
        "objects": len(found),
        "expected_objects": wanted.count,
        "exact": None if wanted.count is None else len(found) == wanted.count,
        "horizons": count_horizons(image),
        "vividness": round(vividness(image), 4),
        "seam": round(seam_visibility(image), 4),
        "recognised": None,
        "seen": None,
    }
    if judge is not None:
        seen = judge(image, found)
        result["seen"] = ", ".join(f"{s.colour} {s.kind or 'thing of no known kind'}" for s in seen) or "nothing"
        if wanted.count is not None:
            result["recognised"] = recognised(prompt, seen)
    return result


def recognised(prompt: str, seen: list[Recognition]) -> float:
    """Share of the asked-for objects for which the judge saw one of that kind and colour, each used once."""
    left, hits = list(seen), 0
    wanted = parse(prompt).objects
    for thing in wanted:
        for candidate in left:
            if candidate.kind == thing.kind and thing.colour in (None, candidate.colour):
                left.remove(candidate)
                hits += 1
                break
    return hits / len(wanted) if wanted else 0.0


def _borders(light: np.ndarray, known: np.ndarray) -> int:  # float [H, w] luminance, bool [H, w] background
    """Sky-ground borders down one strip, by hysteresis; rows hidden behind objects continue what was above."""
    weight = known.sum(1)
    rows = np.where(weight > 0, (light * known).sum(1) / np.maximum(weight, 1), np.nan)
    thin = MIN_BAND * len(rows)
    bands: list[list[int]] = []  # [is sky, rows]
    for value in rows[~np.isnan(rows)]:
        state = 1 if value > SKY else 0 if value < GROUND else (bands[-1][0] if bands else -1)
        if bands and bands[-1][0] == state:
            bands[-1][1] += 1
        elif state >= 0:
            bands.append([state, 1])
    kept = [state for state, rows_in_band in bands if rows_in_band >= thin]
    return sum(a != b for a, b in zip(kept, kept[1:], strict=False))
