"""The hash grid: equal to trilinear lookup where nothing hashes, and differentiable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engines.prolificdreamer import hashgrid
from engines.prolificdreamer.hashgrid import dense_volumes, encode_quickly, hash_grid_encode, hash_grid_layout


def test_the_published_layout():
    offsets, growth = hash_grid_layout()
    assert int(offsets[-1]) == 6_119_864
    assert growth == pytest.approx(1.3819, abs=1e-4)


def test_without_hashing_it_is_a_trilinear_lookup():
    offsets, growth = hash_grid_layout(1, 8, None, 19, align_corners=True)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(int(offsets[-1]), 2, generator=generator)
    x = torch.rand(200, 3, generator=generator)
    mine = hash_grid_encode(x, table, offsets, growth, 8, align_corners=True, interpolation="linear")
    dense = table[: 8**3].view(8, 8, 8, 2).permute(3, 0, 1, 2)[None]  # z, y, x
    looked_up = F.grid_sample(dense, 2 * x[None, None, None] - 1, align_corners=True)[0, :, 0, 0].T
    torch.testing.assert_close(mine, looked_up, atol=1e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_gradients_are_exact(interpolation: str):
    offsets, growth = hash_grid_layout(3, 4, 16, 6)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(int(offsets[-1]), 2, generator=generator, dtype=torch.float64, requires_grad=True)
    x = (0.1 + 0.8 * torch.rand(5, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    encode = lambda x, table: hash_grid_encode(x, table, offsets, growth, 4, interpolation=interpolation)  # noqa: E731
    assert torch.autograd.gradcheck(encode, (x, table))


def test_one_level_is_a_grid_of_the_base_resolution():
    offsets, growth = hash_grid_layout(1, 4, 2048, 10)
    assert offsets.tolist() == [0, 128]
    assert growth > 0


def test_outside_is_nothing():
    offsets, growth = hash_grid_layout(2, 4, 8, 10)
    table = torch.ones(int(offsets[-1]), 2, requires_grad=True)
    x = torch.tensor([[0.5, 0.5, 1.01], [-0.01, 0.5, 0.5], [0.5, 0.5, 0.5]], requires_grad=True)
    features = hash_grid_encode(x, table, offsets, growth, 4)
    assert (features[:2] == 0).all()
    assert (features[2] == 1).all()
    features[:2].sum().backward()
    assert table.grad.abs().max() == 0
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize(("levels", "log2_table", "dense"), [(3, 16, 3), (5, 12, 2), (4, 5, 0)])
def test_the_quick_way_is_the_plain_way(interpolation: str, levels: int, log2_table: int, dense: int):
    offsets, growth = hash_grid_layout(levels, 4, 4 * 2 ** (levels - 1), log2_table)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(int(offsets[-1]), 3, generator=generator, dtype=torch.float64, requires_grad=True)
    x = 1.2 * torch.rand(300, 3, generator=generator, dtype=torch.float64) - 0.1
    x[0], x[1] = 0.0, 1.0
    wanted = torch.randn(300, 3 * levels, generator=generator, dtype=torch.float64)
    found = []
    for encode in (hash_grid_encode, encode_quickly):
        features = encode(x, table, offsets, growth, 4, interpolation=interpolation)
        (slope,) = torch.autograd.grad((features * wanted).sum(), table)
        found.append((features.detach(), slope))
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-9, rtol=1e-9)
    assert len(dense_volumes(table, offsets, growth, 4)) == dense


def test_no_points_have_no_features():
    offsets, growth = hash_grid_layout(4, 16, 128, 12)
    table = torch.randn(int(offsets[-1]), 2)
    for encode in (hash_grid_encode, encode_quickly):
        assert encode(torch.zeros(0, 3), table, offsets, growth, 16).shape == (0, 8)


def test_resolutions_and_scales_round_as_the_released_code_does():
    for base, desired, levels, rows in ((16, 48, 6, 246184), (16, 100, 7, 1237592), (8, 48, 8, 237848)):
        assert hash_grid_layout(levels, base, desired, 19)[0][-1] == rows
    offsets, growth = hash_grid_layout(16, 16, 2048, 19)
    scales = hashgrid._levels(tuple(offsets.tolist()), growth, 16, False, 3)[0]
    assert scales[15] == float(np.exp2(np.float32(15) * np.float32(np.log2(growth))) * np.float32(16) - np.float32(1))
