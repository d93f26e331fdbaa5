"""The numbers under a video, on clips whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from engines.ultravico.metrics import (
    consistency,
    drift,
    flow,
    follow,
    measure,
    most_repetition,
    motion,
    repetition,
    speed,
    survival,
)


def clip(
    path: list[tuple[float, float]],
    *,
    side: int = 64,
    radius: float = 8,
    colour: tuple[int, int, int] = (220, 30, 30),
    grey: float | list[float] = 128,
) -> np.ndarray:
    """A ball at the given centres (row, column) over plain grey, with a soft rim."""
    rows, columns = np.mgrid[:side, :side]
    shades = grey if isinstance(grey, list) else [grey] * len(path)
    frames = []
    for (row, column), shade in zip(path, shades, strict=True):
        cover = np.clip(radius + 0.5 - np.hypot(rows - row, columns - column), 0, 1)[..., None]
        frames.append(cover * np.array(colour) + (1 - cover) * shade)
    return np.stack(frames).round().astype(np.uint8)


def straight(count: int, step: float) -> list[tuple[float, float]]:
    return [(32.0, 12 + step * index) for index in range(count)]


def test_a_moving_ball_is_followed():
    track = follow(clip(straight(20, 2.0)))
    assert (track.counts == 1).all()
    assert survival(track) == 1
    assert speed(track) == pytest.approx(2.0, abs=0.02)
    assert track.centres[5] == pytest.approx([32, 22], abs=0.1)


def test_two_balls_and_none_are_not_one():
    two, other = clip(straight(4, 1.0)), clip([(14.0, 50.0)] * 4)
    two[:, :30, 40:] = other[:, :30, 40:]
    nothing = np.full((4, 64, 64, 3), 128, np.uint8)
    track = follow(np.concatenate([clip(straight(4, 1.0)), two, nothing]))
    assert list(track.counts) == [1] * 4 + [2] * 4 + [0] * 4
    assert survival(track) == pytest.approx(1 / 3)
    assert speed(follow(nothing)) is None
    assert repetition(follow(nothing), 1) is None


def test_specks_and_pale_things_are_no_objects():
    frames = clip([(32.0, 32.0)] * 2, radius=1.0)
    assert follow(frames).counts.max() == 0
    assert follow(clip([(32.0, 32.0)] * 2, colour=(150, 128, 128))).counts.max() == 0
    assert follow(np.full((2, 64, 64, 3), (4, 0, 0), np.uint8)).counts.max() == 0, "black has no colour"


def test_a_loop_repeats_at_its_period_alone():
    once = [(32.0, 12 + 3 * index) for index in range(13)]
    track = follow(clip(once * 3))
    assert repetition(track, 13) == pytest.approx(1)
    assert repetition(track, 6) < 0.3
    assert most_repetition(track, 12) == pytest.approx(1)
    fresh = follow(clip(straight(14, 3.0)))
    assert repetition(fresh, 12) == 0
    assert repetition(fresh, 14) is None


def test_drift_is_of_the_background():
    still = clip(straight(10, 4.0))
    assert drift(still) < 1e-3
    shades = list(np.linspace(100, 150, 10))
    assert drift(clip(straight(10, 4.0), grey=shades)) == pytest.approx(np.std(shades) / 255, rel=0.05)


def test_consistency_sees_colours_and_not_places():
    assert consistency(clip(straight(10, 4.0))) > 0.98
    changed = np.concatenate([clip(straight(5, 4.0)), clip(straight(5, 4.0), colour=(30, 30, 220), grey=60)])
    assert consistency(changed) < 0.75
    assert consistency(changed[:1]) == 1


@pytest.mark.parametrize("step", [0.5, 1.5, 3.0])
def test_flow_measures_motion(step: float):
    frames = clip([(32.0, 24 + step * index) for index in range(4)], radius=10)
    everywhere, fastest = motion(frames)
    assert fastest == pytest.approx(step, rel=0.3, abs=0.25)
    assert everywhere < fastest, "most of the picture stands still"
    assert motion(clip([(32.0, 24.0)] * 3))[1] < 0.05
    assert motion(frames[:1]) == (0, 0)


def test_flow_has_a_direction():
    frames = clip([(32.0, 32.0), (33.5, 30.5)], radius=10)
    grey = frames.mean(-1)
    down, right = flow(grey[0], grey[1])
    rim = np.abs(np.hypot(*(np.mgrid[:64, :64] - 32)) - 10) < 2
    assert down[rim].mean() == pytest.approx(1.5, rel=0.4)
    assert right[rim].mean() == pytest.approx(-1.5, rel=0.4)


def test_only_what_can_be_said_is_said():
    frames = clip(straight(12, 3.0))
    assert set(measure(frames, None, countable=False)) == {"mean_flow", "motion", "consistency", "drift"}
    whole = measure(frames, 8, countable=True, repeat_distance=10)
    assert {"static", "no_repeat", "survival", "speed", "repetition"} <= set(whole)
    assert "no_repeat" not in measure(clip([(32.0, 32.0)] * 12), 8, countable=True)
