"""What the page prints under an UltraViCo result: repetition, motion, consistency, drift, and what the object did.

Everything is measured on finished uint8 RGB frames [T, H, W, 3] without a learned model. What is said of objects
holds for saturated things on plain backgrounds; the rest holds for any video. Lengths are pixels, colours in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from engines.ultravico.norepeat import no_repeat_score

SATURATED = 0.45  # HSV saturation of an object; backgrounds stay below 0.3
MIN_AREA = 0.004  # of a frame: smaller specks are no objects
BINS = 8  # of each colour channel in a histogram
FASTEST = 0.05  # share of the pixels whose flow counts as motion
LEVELS = 3  # of the pyramid on which flow is found
WINDOW = 2.0  # pixels, deviation of the neighbourhood that moves together


@dataclass(frozen=True)
class Track:
    """The saturated things of every frame."""

    counts: np.ndarray  # int [T], how many there are
    centres: np.ndarray  # float [T, 2], row and column of the largest; not a number where there is none
    masks: np.ndarray  # bool [T, H, W], the largest


def saturation(frames: np.ndarray) -> np.ndarray:  # uint8 [..., 3] -> float32 [...] in [0, 1]
    """HSV saturation; near black, where it means nothing, it fades to 0."""
    high, low = frames.max(-1).astype(np.float32), frames.min(-1).astype(np.float32)
    return (high - low) / np.maximum(high, 48.0)


def follow(frames: np.ndarray) -> Track:  # uint8 [T, H, W, 3]
    """Connected saturated regions, 8 neighbours, large enough to be meant."""
    count, height, width = frames.shape[:3]
    smallest = MIN_AREA * height * width
    counts, centres = np.zeros(count, int), np.full((count, 2), np.nan)
    masks = np.zeros((count, height, width), bool)
    for index, frame in enumerate(saturation(frames)):
        labels, _ = ndimage.label(frame > SATURATED, structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        counts[index] = int((areas >= smallest).sum())
        if counts[index]:
            masks[index] = labels == int(areas.argmax())
            centres[index] = np.argwhere(masks[index]).mean(0)
    return Track(counts, centres, masks)


def survival(track: Track) -> float:
    """Share of frames with exactly one object."""
    return float((track.counts == 1).mean())


def speed(track: Track) -> float | None:
    """Mean way of the largest object's centre from frame to frame, where both have one; None if none do."""
    steps = np.linalg.norm(np.diff(track.centres, axis=0), axis=-1)
    steps = steps[~np.isnan(steps)]
    return float(steps.mean()) if len(steps) else None


def repetition(track: Track, lag: int) -> float | None:
    """Mean cosine similarity of the object's mask with itself `lag` frames later; None where no pair has objects."""
    return _at_lag(_likeness(track), lag)


def most_repetition(track: Track, least_lag: int, pairs: int = 8) -> float | None:
    """The largest mean similarity over all lags from `least_lag` on that leave at least `pairs` pairs of frames."""
    likeness = _likeness(track)
    found = [_at_lag(likeness, lag) for lag in range(max(1, least_lag), len(likeness) - pairs + 1)]
    known = [value for value in found if value is not None]
    return max(known) if known else None


def _likeness(track: Track) -> np.ndarray:  # float32 [T, T]
    """Cosine similarity of every two masks; not a number where one of them is empty."""
    flat = track.masks.reshape(len(track.masks), -1).astype(np.float32)
    norms = np.linalg.norm(flat, axis=1)
    norms[norms == 0] = np.nan
    return (flat @ flat.T) / norms / norms[:, None]


def _at_lag(likeness: np.ndarray, lag: int) -> float | None:  # [T, T]
    if not 0 < lag < len(likeness):
        return None
    pairs = np.diagonal(likeness, lag)
    known = pairs[~np.isnan(pairs)]
    return float(known.mean()) if len(known) else None


def drift(frames: np.ndarray) -> float:  # uint8 [T, H, W, 3]
    """Deviation over time of the mean colour outside saturated things, averaged over channels, in [0, 1]."""
    near = ndimage.binary_dilation(saturation(frames) > SATURATED / 2, np.ones((1, 5, 5)))
    weight = (~near).astype(np.float64)
    total = weight.sum((1, 2))
    if (total == 0).any():  # a colourful video: the whole frame
        weight, total = np.ones_like(weight), np.full(len(frames), float(weight[0].size))
    colours = [(frame / 255.0 * part[..., None]).sum((0, 1)) for frame, part in zip(frames, weight, strict=True)]
    return float((np.stack(colours) / total[:, None]).std(0).mean())


def consistency(frames: np.ndarray) -> float:  # uint8 [T, H, W, 3]
    """Mean overlap of every frame's colour histogram with the first frame's and the previous one's, in [0, 1]."""
    places = np.array([BINS * BINS, BINS, 1])
    codes = ((frame // (256 // BINS) @ places).ravel() for frame in frames)
    shares = np.stack([np.bincount(row, minlength=BINS**3) for row in codes]) / (frames[0].size // 3)
    if len(shares) < 2:
        return 1.0
    first = np.minimum(shares[1:], shares[:1]).sum(1)
    previous = np.minimum(shares[1:], shares[:-1]).sum(1)
    return float((first + previous).mean() / 2)


def motion(frames: np.ndarray) -> tuple[float, float]:  # uint8 [T, H, W, 3]
    """Optical flow, pixels a frame, means over frame pairs: of all pixels, and of the fastest twentieth of them."""
    grey = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    if len(grey) < 2:
        return 0.0, 0.0
    lengths = [np.sort(np.hypot(*flow(one, other)).ravel()) for one, other in zip(grey, grey[1:], strict=False)]
    most = max(1, round(FASTEST * lengths[0].size))
    return float(np.mean(lengths)), float(np.mean([length[-most:].mean() for length in lengths]))


def flow(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # float [H, W] twice
    """Rows and columns that every pixel of `one` moves to be found in `other`: Lucas and Kanade's, coarse to fine."""
    levels = min(LEVELS, max(1, int(np.log2(min(one.shape) / 8))))
    pyramid = [(one, other)]
    for _ in range(levels - 1):
        pyramid.append(tuple(ndimage.zoom(ndimage.gaussian_filter(x, 1), 0.5, order=1) for x in pyramid[-1]))  # type: ignore[arg-type]
    down = np.zeros(pyramid[-1][0].shape)
    right = np.zeros_like(down)
    for first, second in reversed(pyramid):
        scale = [new / old for new, old in zip(first.shape, down.shape, strict=True)]
        down = ndimage.zoom(down, scale, order=1) * scale[0]
        right = ndimage.zoom(right, scale, order=1) * scale[1]
        for _ in range(2):
            down, right = _refined(first, second, down, right)
    return down, right


def _refined(
    first: np.ndarray, second: np.ndarray, down: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One Gauss-Newton step of every pixel's displacement, from its neighbourhood."""
    rows, columns = np.mgrid[: first.shape[0], : first.shape[1]]
    moved = ndimage.map_coordinates(second, [rows + down, columns + right], order=1, mode="nearest")
    dy, dx = np.gradient(moved)
    error = first - moved
    mean = lambda x: ndimage.gaussian_filter(x, WINDOW)  # noqa: E731
    a, b, c = mean(dy * dy) + 1.0, mean(dy * dx), mean(dx * dx) + 1.0  # +1: flat regions stay where they are
    p, q = mean(dy * error), mean(dx * error)
    determinant = a * c - b * b
    return down + (c * p - b * q) / determinant, right + (a * q - b * p) / determinant


def measure(
    frames: np.ndarray,  # uint8 [T, H, W, 3]
    period_frames: float | None,  # pixel frames after which the plain model repeats; None: it does not
    countable: bool,  # whether objects can be found
    repeat_distance: float = 55,  # below which frames count as equal, see norepeat.py
) -> dict[str, float | bool | None]:
    """Everything the page shows of one video; what cannot be said of it is left out."""
    everywhere, fastest = motion(frames)
    result: dict[str, float | bool | None] = {
        "mean_flow": round(everywhere, 3),
        "motion": round(fastest, 3),
        "consistency": round(consistency(frames), 4),
        "drift": round(drift(frames), 4),
    }
    if period_frames is not None and len(frames) > period_frames:
        found = no_repeat_score(frames, period_frames, repeat_distance)
        result["static"] = bool(found["static"])
        result["no_repeat"] = None if found["static"] else round(found["score"], 2)
    if countable:
        track = follow(frames)
        result["survival"] = round(survival(track), 4)
        result["speed"] = _rounded(speed(track))
        if period_frames is not None:
            result["repetition"] = _rounded(repetition(track, round(period_frames)))
    return {name: value for name, value in result.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
