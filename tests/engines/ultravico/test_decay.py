"""Decayed attention: the published properties of lambda, and every path against the plain one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engines.ultravico.decay import Decay, chunked_attention, decay_multiplier, dense_attention, flex_attention

PLAIN = Decay(tokens_per_frame=6, window_frames=5, alpha=1.0)
BANDS = Decay(6, 5, 0.9, 0.6, 8, 1)
ODD = Decay(7, 3, 0.85, 0.5, 4.5, 0.7, text_tokens_start=3, text_tokens_end=5, padded_keys_end=2)
WAN = Decay(6, 5, 0.9, first_frame_mask=True)


def qkv(length: int = 97, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(2, 3, length, 16, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("smooth", [True, False])
def test_alpha_one_is_plain_attention(smooth: bool):
    q, k, v = qkv()
    torch.testing.assert_close(
        dense_attention(q, k, v, replace(PLAIN, smooth_k=smooth)),
        F.scaled_dot_product_attention(q, k, v),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("decay", [BANDS, ODD, WAN], ids=["bands", "odd", "wan"])
def test_every_path_agrees(decay: Decay, smooth: bool):
    decay = replace(decay, smooth_k=smooth)
    q, k, v = qkv()
    rows = slice(0, 97 - decay.padded_keys_end)  # rows of padding are undefined
    plain = dense_attention(q, k, v, decay)[..., rows, :]
    for chunk in (1, 10, 96, 200):
        torch.testing.assert_close(chunked_attention(q, k, v, decay, chunk)[..., rows, :], plain, atol=1e-5, rtol=0)
    flex = flex_attention(q, k, v, decay, compiled=False)[..., rows, :]
    torch.testing.assert_close(flex, plain, atol=1e-5, rtol=0)
    half = chunked_attention(*qkv(dtype=torch.bfloat16), decay)[..., rows, :]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=6e-2, rtol=2e-2)


def test_keys_are_left_as_they_were():
    q, k, v = qkv()
    before = k.clone()
    dense_attention(q, k, v, BANDS)
    assert torch.equal(k, before)


def test_masked_keys_at_the_end_change_nothing():
    """Without smoothing, whose mean counts them, a padded sequence gives what the unpadded one gives."""
    q, k, v = qkv(90)
    decay = replace(BANDS, smooth_k=False)
    longer = [F.pad(x, (0, 0, 0, 38), value=3.0) for x in (q, k, v)]
    padded = replace(decay, text_tokens_end=38, padded_keys_end=38)
    torch.testing.assert_close(dense_attention(*longer, padded)[..., :90, :], dense_attention(q, k, v, decay))


def test_lambda_is_symmetric_and_leaves_neighbours_and_text_alone():
    table = decay_multiplier(60, 4, 5, 0.9, 0.6, 7, 1, text_tokens_start=3, text_tokens_end=6)
    assert torch.equal(table, table.T)
    assert (table.diagonal() == 1).all()
    assert (table[:3] == 1).all()
    assert (table[54:] == 1).all()
    assert set(table.unique().tolist()) == {1.0, 0.9, 0.6}


def test_window_and_band_ends_are_inclusive_and_bands_go_on():
    row = decay_multiplier(400, 3, 5, 0.9, 0.6, 10, 1)[0]
    assert row[7] == 1, "7 <= 7.5"
    assert row[8] == 0.9
    assert row[26] == 0.9
    for turn in range(1, 13):
        assert (row[30 * turn - 3 : 30 * turn + 4] == 0.6).all()
        assert row[30 * turn - 4] == 0.9
        assert row[30 * turn + 4] == 0.9


def test_the_window_wins_over_a_band():
    row = decay_multiplier(40, 2, 10, 0.9, 0.5, 4, 1)[0]
    assert (row[:11] == 1).all()
    assert row[14] == 0.5


def test_other_profiles_run_from_one_factor_to_the_other():
    linear = decay_multiplier(100, 1, 2, 0.9, profile="linear", alpha1=0.8, alpha2=1.0)[0]
    bent = decay_multiplier(100, 1, 2, 0.9, profile="parabolic", alpha1=0.8, alpha2=1.0)[0]
    assert linear[50].item() == pytest.approx(0.9)
    assert bent[50].item() == pytest.approx(0.8 * 0.25 + 0.75)
    assert linear[1] == 1


def test_less_alpha_never_looks_further_where_far_logits_are_positive():
    q, k = torch.rand(1, 1, 40, 8) + 0.1, torch.rand(1, 1, 40, 8) + 0.1
    far = decay_multiplier(40, 4, 4, 0.5) != 1
    shares = []
    for alpha in (1.0, 0.95, 0.9, 0.8, 0.5):
        decay = Decay(4, 4, alpha, smooth_k=False)
        weights = dense_attention(q, k, torch.eye(40)[None, None], decay)[0, 0]
        shares.append((weights * far).sum(dim=-1))
    for more, less in zip(shares, shares[1:], strict=False):
        assert (less <= more + 1e-6).all()


def test_the_first_frame_of_wan_does_not_see_beyond_the_training_length():
    q, k, _ = qkv(60)
    weights = dense_attention(q, k, torch.eye(60).expand(2, 3, 60, 60), WAN)
    assert (weights[..., :7, 31:] == 0).all()
    assert (weights[..., 7, 31:] > 0).all()
    assert (weights[..., :7, 30] > 0).all()


def test_half_a_band_is_refused():
    with pytest.raises(ValueError, match="bands"):
        Decay(4, 4, 0.9, beta=0.6)
