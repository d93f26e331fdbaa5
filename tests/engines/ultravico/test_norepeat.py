"""The NoRepeat score on videos whose repetition is known."""

from __future__ import annotations

import math

import numpy as np

from engines.ultravico.norepeat import no_repeat_score


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_a_loop_is_found_where_it_starts():
    found = no_repeat_score(np.tile(noise(20, 0), (3, 1, 1, 1)), 22)
    assert found == {"static": 0.0, "start": 20.0, "repeated": 40.0, "score": 100 * (1 - 40 / 60)}


def test_fresh_frames_score_full():
    assert no_repeat_score(noise(60, 1), 20)["score"] == 100


def test_a_still_is_excluded():
    found = no_repeat_score(np.tile(noise(1, 2), (30, 1, 1, 1)), 10)
    assert found["static"] == 1
    assert math.isnan(found["score"])


def test_a_period_beyond_the_video_leaves_nothing_to_repeat():
    assert no_repeat_score(noise(10, 3), 200)["score"] == 100
