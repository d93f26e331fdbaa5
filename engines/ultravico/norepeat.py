"""The NoRepeat score: which share of a video is not a second showing of what came one period before.

UltraViCo (arXiv 2511.20123), section 4, in the version `norepeat-v1`: distances are root mean squares over pixels
and channels on 0..255, so that scores compare only with scores of this function.
"""

from __future__ import annotations

import numpy as np

SAMPLED = 8  # frames that decide whether a video moves at all


def no_repeat_score(
    frames: np.ndarray,  # uint8 [T, H, W, 3]
    period_frames: float,  # pixel frames after which the plain model repeats
    threshold: float = 55,
    radius: int | None = None,  # of the search around the period; None: an eighth of it
) -> dict[str, float]:
    """static (1: hardly moves, excluded, all else not a number), start, repeated (frames) and score (0 .. 100).

    The frame most like the first one is looked for around the period; from there on, frames closer than `threshold`
    to those at the beginning count as repeated. Where there is no room to look the score is 100.
    """
    count = len(frames)
    pictures = frames.reshape(count, -1)  # a pair at a time in float64: a long video would not fit
    sampled = pictures[np.linspace(0, count - 1, SAMPLED).round().astype(int)]
    pairs = [_distance(sampled[a], sampled[b]) for a in range(SAMPLED) for b in range(a + 1, SAMPLED)]
    nothing = float("nan")
    if np.mean(pairs) < threshold:
        return {"static": 1.0, "start": nothing, "repeated": nothing, "score": nothing}
    reach = round(period_frames / 8) if radius is None else radius
    candidates = range(max(1, round(period_frames - reach)), min(count - 1, round(period_frames + reach)) + 1)
    if not candidates:
        return {"static": 0.0, "start": nothing, "repeated": 0.0, "score": 100.0}
    start = min(candidates, key=lambda s: _distance(pictures[s], pictures[0]))
    repeated = sum(_distance(pictures[start + j], pictures[j]) < threshold for j in range(count - start))
    return {
        "static": 0.0,
        "start": float(start),
        "repeated": float(repeated),
        "score": 100.0 * (1 - repeated / count),
    }


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))
