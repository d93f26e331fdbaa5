"""Numbers that have to tell a true object from a broken one before they count."""

from __future__ import annotations

import numpy as np
import pytest

from engines.prolificdreamer import metrics

CAMERA = (3.2, 73.0, 42.0)
PROMPT = "a red car"


def measured(colour: np.ndarray, cover: np.ndarray, prompt: str = PROMPT) -> dict:
    return metrics.of_object(colour, cover, prompt, *CAMERA)


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    return metrics.true_views(PROMPT, *CAMERA, metrics.AROUND)


def test_the_truth_is_true(truth: tuple[np.ndarray, np.ndarray]):
    found = measured(*truth)
    assert found["iou"] == pytest.approx(1)
    assert found["rmse"] == pytest.approx(0, abs=1e-6)
    assert found["side_error"] == 0
    assert found["consistent"]
    assert found["sharpness"] == pytest.approx(found["true_sharpness"])


def test_a_silhouette_is_what_is_covered_by_more_than_half(truth: tuple[np.ndarray, np.ndarray]):
    colour, cover = truth
    assert measured(colour, 0.1 + 0.8 * (cover > 0.5))["iou"] == 1
    assert measured(colour, 0.4 * cover)["iou"] == 0


def test_broken_objects_fail(truth: tuple[np.ndarray, np.ndarray]):
    colour, cover = truth
    many_fronts = measured(np.repeat(colour[:1], 8, axis=0), np.repeat(cover[:1], 8, axis=0))
    assert not many_fronts["consistent"]
    assert many_fronts["iou"] < 0.85
    turned = measured(np.roll(colour, 2, axis=0), np.roll(cover, 2, axis=0))
    assert turned["side_error"] == 90
    pure = np.where(cover[:, None] > 0.5, (colour > 0.5).astype(float), colour)
    assert measured(pure, cover)["rmse"] > 0.08
    assert measured(pure, cover)["clipped"] > 0.1
    nothing = measured(np.full_like(colour, 0.5), np.zeros_like(cover))
    assert nothing["iou"] == 0
    assert nothing["sharpness"] == 0
    other = metrics.true_views("a yellow house", *CAMERA, metrics.AROUND)
    assert measured(*other)["rmse"] > 0.08
    blurred = np.repeat(np.repeat(colour[:, :, ::4, ::4], 4, axis=2), 4, axis=3)
    assert measured(blurred, cover)["rmse"] > 0.03


def test_prompts_nobody_knows_the_truth_of(truth: tuple[np.ndarray, np.ndarray]):
    for prompt in ("a dragon", "a car", "two red cars"):
        assert "iou" not in measured(*truth, prompt)
        assert metrics.distance_to_truth(truth[0], prompt) is None
    assert metrics.spec_of("a red car, on a plain grey background") is not None


def test_variety():
    one = np.random.default_rng(0).random((1, 3, 32, 32))
    same = np.repeat(one, 4, axis=0)
    assert metrics.variety(same) == (0.0, 0.0)
    assert metrics.variety(one) == (0.0, 0.0)
    noisy = same + 0.2 * np.random.default_rng(1).standard_normal(same.shape)
    mean, least = metrics.variety(noisy)
    assert mean < 0.08  # noise of single pixels is not variety
    different = np.stack([np.full((3, 16, 16), level) for level in (0.0, 0.1, 1.0)])
    mean, least = metrics.variety(different)
    assert least == pytest.approx(0.1)
    assert mean == pytest.approx((0.1 + 1.0 + 0.9) / 3)


def test_pictures():
    grey, red = np.full((1, 3, 8, 8), 0.5), np.zeros((1, 3, 8, 8))
    red[:, 0] = 1.2
    numbers = metrics.of_pictures(np.concatenate([grey, red]))
    assert numbers["saturation"] == pytest.approx(0.5)
    assert numbers["vividness"] == pytest.approx(1)
    assert numbers["clipped"] == pytest.approx(1 / 6)


def test_true_pictures_are_near_the_truth():
    from pocket.world import render, sample_scene

    spec = metrics.spec_of(PROMPT)
    near = render([sample_scene(900 + i, spec) for i in range(3)], 32).rgb.numpy()
    far = render([sample_scene(900 + i, metrics.spec_of("a blue mushroom")) for i in range(3)], 32).rgb.numpy()
    assert metrics.distance_to_truth(near, PROMPT) < metrics.distance_to_truth(far, PROMPT)
