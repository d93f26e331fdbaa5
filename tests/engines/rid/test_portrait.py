"""Portraits: phones that turn them, transparency, palettes, and odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from engines.rid.framing import squares
from engines.rid.portrait import apply_perturbation, preprocess_portrait, protect_levels, taken
from tests.engines.rid.tiny import picture


def halves(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = 255
    return Image.fromarray(pixels)


def test_a_turned_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # quarter turn clockwise
    halves().save(tmp_path / "phone.jpg", exif=exif)
    rgb, tensor = preprocess_portrait(Image.open(tmp_path / "phone.jpg"), 32)
    assert rgb.shape == (60, 40, 3)
    assert tensor[:, 16, 4].mean() < -0.8
    assert tensor[:, 16, 28].mean() > 0.8


def test_transparency_becomes_white():
    rgb, _ = preprocess_portrait(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), 16)
    assert (rgb == 255).all()
    palette = Image.new("P", (20, 20))
    palette.putpalette([0, 0, 0] * 256)
    palette.info["transparency"] = 0
    assert (preprocess_portrait(palette, 16)[0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "CMYK", "I;16"])
def test_every_mode_comes_out_in_colour(mode: str):
    rgb, tensor = preprocess_portrait(Image.new(mode, (20, 30)), 16)
    assert (rgb.shape, tuple(tensor.shape)) == ((30, 20, 3), (3, 16, 16))


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (16, 16), (16, 90), (3000, 40)])
def test_any_size_gives_the_square(size: tuple[int, int]):
    _, tensor = preprocess_portrait(Image.new("RGB", size, (255, 255, 255)), 16)
    assert tuple(tensor.shape) == (3, 16, 16)
    assert tensor.min() == 1


@pytest.mark.parametrize("size", [(40, 32), (32, 40), (16, 16)])
def test_squares_are_taken_as_a_crop_of_them_would_be(size: tuple[int, int]):
    rgb = picture(1, *size)
    parts = squares(*size)
    found = taken(rgb, parts, 16)
    assert found.shape == (len(parts), 3, 16, 16)
    for square, part in zip(found, parts, strict=True):
        box = (part.left, part.top, part.left + part.side, part.top + part.side)
        assert torch.equal(square, preprocess_portrait(rgb.crop(box), 16)[1])


def test_a_picture_protected_in_bands_is_the_one_protected_at_once():
    levels = np.asarray(picture(2, 40, 24))
    delta = 0.1 * torch.rand(3, 24, 40) - 0.05
    image = torch.from_numpy(levels.copy()).permute(2, 0, 1).float() / 127.5 - 1
    whole = apply_perturbation(image, delta)[1].permute(1, 2, 0).numpy()
    rows = [slice(0, 10), slice(10, 24)]
    made = protect_levels(levels, ((part, slice(0, 40), delta[:, part]) for part in rows))
    assert np.array_equal(made, whole)
    assert np.abs(whole.astype(int) - levels).max() > 3
