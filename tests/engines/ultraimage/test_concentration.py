"""Head entropies and focus factors: their bounds, their edges, and the equivalence that the hooks rely on."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from engines.ultraimage.concentration import (
    attention_entropy,
    block_attention_mass,
    block_entropy,
    focus_factor,
    focused_attention,
    proportional_scale,
)


def heads(tokens: int, dim: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, 2, tokens, dim, generator=generator) for _ in range(3))


@pytest.mark.parametrize("tokens", [64, 100, 129])
def test_mass_of_every_row_is_the_block(tokens: int):
    q, k, _ = heads(tokens)
    mass = block_attention_mass(q, k, block_size=32)
    blocks = -(-tokens // 32)
    assert mass.shape == (1, 2, blocks, blocks)
    torch.testing.assert_close(mass.sum(-1), torch.full((1, 2, blocks), 32.0))


def test_padding_takes_its_share_and_is_uniform():
    q, k, _ = heads(40)
    mass = block_attention_mass(q * 0, k, block_size=32)  # all logits 0: uniform over 64 padded keys
    torch.testing.assert_close(mass, torch.full((1, 2, 2, 2), 16.0))


def test_sampled_rows_are_rows_of_the_whole():
    q, k, _ = heads(160)
    whole = block_attention_mass(q, k, block_size=32)
    torch.testing.assert_close(block_attention_mass(q, k, block_size=32, rows=[0, 3]), whole[:, :, [0, 3]])


def test_entropy_of_uniform_and_of_identity():
    uniform = torch.full((1, 1, 6, 6), 128 / 6)
    assert float(block_entropy(uniform)[1]) == pytest.approx(math.log(6))
    assert float(block_entropy(torch.eye(6)[None, None] * 128)[1]) == pytest.approx(0.0, abs=1e-5)


def test_mass_that_is_not_a_number_fails_loudly():
    mass = torch.full((1, 1, 2, 2), 64.0)
    mass[..., 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not numbers"):
        block_entropy(mass)
    with pytest.raises(ValueError, match="not a number"):
        focus_factor(torch.tensor([float("nan")]), 0, 1)


def test_exact_entropy_runs_from_nothing_to_all_tokens():
    q, k, _ = heads(50)
    assert torch.allclose(attention_entropy(q * 0, k), torch.full((1, 2), math.log(50)))
    assert float(attention_entropy(q * 1e4, k).max()) < 1e-2
    chunked, whole = (attention_entropy(q, k, chunk=c) for c in (7, 50))
    torch.testing.assert_close(chunked, whole)
    assert attention_entropy(q.bfloat16(), k.bfloat16()).dtype == torch.float32


@given(
    entropies=st.lists(st.floats(-1, 9), min_size=2, max_size=12),
    gamma=st.floats(0.3, 5),
    func=st.sampled_from(["power", "linear"]),
)
def test_factors_stay_in_range_and_fall_with_entropy(entropies, gamma, func):
    entropy = torch.tensor(sorted(entropies), dtype=torch.float64)
    factor = focus_factor(entropy, 0.44, 6.0, 1.1, 1.3, func, gamma)
    assert not factor.isnan().any()
    assert float(factor.min()) >= 1.1 - 1e-12
    assert float(factor.max()) <= 1.3 + 1e-12
    assert torch.all(factor.diff() <= 1e-12)


def test_published_power_rule_bends_upwards_beyond_its_range():
    entropy = torch.tensor([6.0, 9.0], dtype=torch.float64)
    bent = focus_factor(entropy, 0.44, 6.0, 1.1, 1.3, clip=False)
    assert float(bent[1]) > float(bent[0])
    assert focus_factor(entropy, 0.44, 6.0, 1.1, 1.3, gamma=1.5, clip=False)[1].isnan()
    assert float(focus_factor(entropy, 0.44, 6.0, 1.1, 1.3, gamma=1.5)[1]) == pytest.approx(1.1)


def test_heads_alike_are_left_alone():
    assert torch.equal(focus_factor(torch.full((3,), 2.0), 2.0, 2.0), torch.ones(3))


def test_scaling_queries_is_scaling_logits():
    q, k, v = heads(60)
    factor = torch.tensor([[1.3, 1.0]])
    scaled = F.scaled_dot_product_attention(q * factor[..., None, None], k, v)
    torch.testing.assert_close(focused_attention(q, k, v, factor), scaled, atol=1e-6, rtol=1e-5)


def test_entropy_scale_is_the_plain_scale_at_the_training_length():
    assert proportional_scale(4608, 4608, 128) == pytest.approx(128**-0.5)
    assert proportional_scale(51137, 4608, 128) > 128**-0.5
