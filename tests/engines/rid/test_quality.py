"""The numbers: identity, distribution, visibility, naturalness."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engines.rid.portrait import jpeg_roundtrip
from engines.rid.quality import (
    brisque,
    frechet_distance,
    halved,
    identity_metrics,
    kept_identity,
    survival,
    visibility_metrics,
)


def test_identity_ignores_scale_and_undetected_faces():
    rng = np.random.default_rng(0)
    faces, references = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    seen = np.array([True, True, False, True, False])
    ism, failure = identity_metrics(faces, seen, references)
    assert failure == pytest.approx(0.4)
    faces[~seen] = 1e9
    assert identity_metrics(faces * 7, seen, references)[0] == pytest.approx(ism)
    assert identity_metrics(np.tile(references.mean(0), (2, 1)), np.ones(2, bool), references)[0] == pytest.approx(1)
    none, failure = identity_metrics(faces, np.zeros(5, bool), references)
    assert math.isnan(none)
    assert failure == 1


def test_an_identity_is_kept_by_faces_above_the_threshold_alone():
    references = np.array([[3.0, 1.0], [3.0, -1.0]])  # on average along the first axis
    faces = np.array([[1.0, 0.0], [5.0, 5.0], [0.0, 1.0], [-1.0, 0.0]])  # cosines 1, 0.71, 0, -1
    everywhere = np.ones(4, bool)
    assert kept_identity(faces, everywhere, references, 0.5) == 0.5
    assert kept_identity(faces, everywhere, references, 0.8) == 0.25
    assert kept_identity(faces, everywhere, references, -0.5) == 0.75
    assert kept_identity(faces, np.array([False, True, True, True]), references, 0.5) == 0.25
    assert kept_identity(faces, ~everywhere, references, -2) == 0, "nobody is kept where no face is"


def test_the_distance_of_known_gaussians():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(20_000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, 2 * one + [3, 0, 0]) == pytest.approx(9 + 3, rel=0.03)


def test_visibility_counts_grey_levels():
    clean = np.full((4, 4, 3), 100, np.uint8)
    changed = clean.copy()
    changed[0, 0, 0] = 94
    largest, mean, psnr = visibility_metrics(clean, changed)
    assert (largest, mean) == (6, 6 / 48)
    assert psnr == pytest.approx(10 * math.log10(255**2 / (36 / 48)))
    assert visibility_metrics(clean, clean)[2] == math.inf


def natural(side: int = 128) -> np.ndarray:
    """A picture with the spectrum of natural ones, amplitude 1 / frequency."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    waves = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / frequency).real
    grey = (128 + 45 * waves / waves.std()).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def test_noise_and_blocks_look_less_natural_than_the_picture():
    picture = natural()
    noise = np.random.default_rng(1).normal(scale=40, size=picture.shape)
    noisy = (picture + noise).clip(0, 255).astype(np.uint8)
    assert brisque(noisy)[1] > brisque(picture)[1] + 5
    assert brisque(jpeg_roundtrip(picture, 8))[1] > brisque(picture)[1] + 5


def test_what_is_left_of_a_perturbation_counts_nothing_but_itself():
    rng = np.random.default_rng(0)
    clean = rng.integers(60, 190, (64, 64, 3)).astype(np.uint8)
    change = rng.choice([-20, 20], clean.shape)
    protected = (clean + change).astype(np.uint8)
    other = rng.integers(-20, 21, clean.shape)  # of no direction, as the blocks of a JPEG are
    energy, alike = survival(clean, protected, clean, (clean + change // 2 + other).astype(np.uint8))
    assert energy == pytest.approx(0.25, abs=0.02)
    assert 0.6 < alike < 0.7
    assert survival(clean, protected, clean, protected) == (1, 1)
    assert survival(clean, protected, clean, (clean - change).astype(np.uint8)) == (0, 0)


def test_a_flat_picture_has_nothing_to_measure():
    with pytest.raises(ValueError, match="no texture"):
        brisque(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("side", [8, 9, 11, 12])
def test_halving_steps_by_two_pixels_at_odd_sides_too(side: int):
    """A slope stays the slope it was; nothing is stretched to reach a whole number of pixels."""
    half = halved(np.arange(side, dtype=np.float64) * np.ones((6, 1)))
    assert half.shape == (3, round(side / 2))
    inside = half[0, 1 : (side - 3) // 2]
    assert inside == pytest.approx(2 * np.arange(1, 1 + len(inside)) + 0.5)


def test_a_distance_of_distributions_needs_two_of_each():
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
