"""The differentiable JPEG: close to the real one, and with gradients that a real one does not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from engines.rid.jpeg import jpeg_proxy, quantisation_tables
from engines.rid.portrait import jpeg_roundtrip


def picture() -> np.ndarray:
    y, x = np.mgrid[0:45, 0:51]
    waves = [np.sin(x / 5 + k) + np.cos(y / (6 + k)) for k in range(3)]
    return ((np.stack(waves, -1) + 2) / 4 * 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_it_is_close_to_the_real_one(quality: int, tmp_path):
    """Without halved colours, which the proxy does not have."""
    image = picture()
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=quality, subsampling=0)
    real = np.asarray(Image.open(tmp_path / "a.jpg")).astype(float)
    tensor = torch.from_numpy(image).double().permute(2, 0, 1)[None] / 255
    mine = 255 * jpeg_proxy(tensor, quality, "round")[0].permute(1, 2, 0).numpy()
    assert np.abs(mine - real).mean() < 1
    assert np.abs(real - image).mean() > np.abs(mine - real).mean() / 2


def test_the_cubic_has_gradients_and_rounding_has_none():
    tensor = torch.from_numpy(picture()).double().permute(2, 0, 1)[None] / 255
    for rounding, some in (("cubic", True), ("round", False)):
        given = tensor.clone().requires_grad_()
        jpeg_proxy(given, 50, rounding).square().sum().backward()
        assert bool((given.grad.abs() > 0).any()) == some


def test_tables_are_scaled_as_published():
    assert quantisation_tables(50)[0, 0, 0] == 16
    assert quantisation_tables(75)[0, 0, :3].tolist() == [8, 6, 5]
    assert quantisation_tables(100).unique().tolist() == [1]
    assert quantisation_tables(1).max() == 255
    with pytest.raises(ValueError, match="from 1 to 100"):
        quantisation_tables(0)


def test_the_round_trip_keeps_size_and_loses_detail():
    out = jpeg_roundtrip(picture(), 75)
    assert out.shape == picture().shape
    assert (out != picture()).any()


@pytest.mark.parametrize("quality", [10, 25, 50])
def test_what_lies_between_two_steps_falls_to_the_same_side_in_single_precision(quality: int):
    flat = (torch.arange(256) / 255).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    double, single = (jpeg_proxy(given, quality, "round") for given in (flat.double(), flat))
    assert single.dtype == torch.float32
    assert (single - double).abs().max() < 1e-4
