"""The world of moving things: the same for the same seed, true to its captions, and never still."""

from __future__ import annotations

import numpy as np
import pytest

from pocket.clips import (
    COLOURS,
    DIRECTIONS,
    KINDS,
    SPEED,
    WORDS,
    Clip,
    ClipSpec,
    centres,
    parse,
    render,
    sample,
    speak,
    write,
)

SEEDS = range(60)


def test_the_same_seed_gives_the_same_clip():
    assert sample(5) == sample(5)
    assert np.array_equal(render(sample(5), 9), render(sample(5), 9))
    assert np.array_equal(render(sample(5), 20)[:9], render(sample(5), 9)), "a longer clip only goes on"


def test_what_is_written_is_read_again():
    for seed in SEEDS:
        truth = sample(seed).truth
        assert parse(write(truth)) == truth
        said = speak(truth, np.random.default_rng(seed))
        assert parse(write(said)) == said
        assert set(write(said).split()) <= set(WORDS)
    assert write(ClipSpec("star", "orange")) == "an orange star"
    assert parse("a ball of yarn") is None


def test_a_spec_is_fulfilled():
    spec = ClipSpec("ring", "blue", "large", "up", "misty")
    assert all(sample(seed, spec).truth == spec for seed in SEEDS)
    truths = [sample(seed, ClipSpec("ball")).truth for seed in SEEDS]
    assert {truth.kind for truth in truths} == {"ball"}
    assert {truth.direction for truth in truths} == set(DIRECTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_stay_inside_keep_their_speed_and_bounce(kind: str):
    for seed in SEEDS:
        clip = sample(seed, ClipSpec(kind))
        path = centres(clip, 200)
        assert (path > clip.radius - 1e-9).all()
        assert (path < 1 - clip.radius + 1e-9).all()
        steps = np.abs(np.diff(path, axis=0))
        straight = steps[np.hypot(*steps.T) > 0.999 * np.hypot(*clip.velocity)]
        assert SPEED[0] < np.hypot(*straight[0]) < SPEED[1]
        assert len(straight) > 150, "all but the frames of a bounce"
    assert np.ptp(centres(sample(1), 200), axis=0).max() > 0.5


def saturated(frame: np.ndarray) -> np.ndarray:
    return np.ptp(frame.astype(int), axis=-1) > 110


def test_only_the_object_is_saturated_and_it_is_where_it_should_be():
    for seed in SEEDS:
        clip = sample(seed)
        for frame, (x, y) in zip(render(clip, 30)[::10], centres(clip, 30)[::10], strict=True):
            rows, columns = np.nonzero(saturated(frame))
            middle = (columns.min() + columns.max() + 1) / 128, (rows.min() + rows.max() + 1) / 128
            assert middle == pytest.approx((x, y), abs=0.35 * clip.radius)


def test_colours_are_told_apart():
    pictures = {
        colour: render(Clip("ball", colour, "large", "misty", 0.15, (0.5, 0.5), (0.01, 0.0)), 1)[0, 32, 32]
        for colour in COLOURS
    }
    values = np.stack(list(pictures.values())).astype(int)
    apart = np.abs(values[:, None] - values[None]).sum(-1)
    assert apart[~np.eye(len(COLOURS), dtype=bool)].min() > 60
