"""Dominant frequencies, their correction, and the tables built from them."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope
from hypothesis import given
from hypothesis import strategies as st

from engines.ultraimage.dype import LEAST_TIME, dype_frequencies
from engines.ultraimage.frequency import (
    corrected_frequencies,
    dominant_frequency_index,
    interpolated_frequencies,
    ntk_frequencies,
    periods,
    recursive_correction,
    rope_frequencies,
    yarn_frequencies,
)
from engines.ultraimage.rope import flux_grid_ids, flux_rope_table, flux_table, qwen_rope_table, qwen_table


@pytest.mark.parametrize(("tokens", "index"), [(128, 9), (83, 8), (64, 7)])
def test_published_indices(tokens: int, index: int):
    """9 for FLUX.1 (2048 px), 8 for Qwen-Image; the naive reading of 1024 px would give 7."""
    assert dominant_frequency_index(56, 10000, tokens)[0] == index


def test_pocket_training_length_lies_just_below_its_period():
    index, period = dominant_frequency_index(28, 10000, 12)
    assert (index, round(period, 2)) == (1, 12.13)


@given(
    train=st.integers(8, 300),
    factor=st.floats(1.01, 8),
    margin=st.floats(0.5, 1.0),
    observed=st.lists(st.floats(4, 900), max_size=4),
)
def test_corrected_periods_cover_the_target_and_nothing_else_changes(train, factor, margin, observed):
    target = train * factor
    frequencies, indices = recursive_correction(56, 10000, train, target, observed, margin)
    original = rope_frequencies(56, 10000)
    assert indices
    assert len(set(indices)) == len(indices)
    for index in range(28):
        if index in indices:
            assert float(periods(frequencies)[index]) >= target * (1 - 1e-9)
        else:
            assert frequencies[index] == original[index]


def test_recursion_follows_what_was_seen():
    assert recursive_correction(56, 10000, 83, 256, [121.3])[1] == [8, 9]
    assert recursive_correction(56, 10000, 83, 100, [121.3])[1] == [8]  # already beyond the target
    assert recursive_correction(56, 10000, 83, 256, [87.0, 121.3])[1] == [8, 9]  # an index is corrected once
    assert recursive_correction(56, 10000, 83, 83, [121.3])[1] == []
    divided, _ = recursive_correction(56, 10000, 83, 256, [121.3], mode="interpolate")
    assert float(divided[9]) == pytest.approx(float(rope_frequencies(56, 10000)[9]) * 83 / 256)


def test_order_and_duplicates_of_indices_do_not_matter():
    def table(ids: list[int]) -> torch.Tensor:
        return corrected_frequencies(56, 10000, "single_period", 9000, 4608, ids, length=225)

    assert torch.equal(table([9, 8]), table([8, 9, 9]))


def test_short_sequences_and_smaller_pictures_are_left_alone():
    original = rope_frequencies(56, 10000)
    for method in ("interpolation", "ntk", "yarn", "single_period", "interpolate_selected"):
        same = corrected_frequencies(56, 10000, method, 4608, 4608, [9], 225, 0.85, 2.0, 10.0)
        assert torch.equal(same, original)
    shrunk = corrected_frequencies(56, 10000, "interpolate_selected", 9000, 0, [8, 9], linear_factor=0.7)
    assert torch.equal(shrunk, original)


def test_published_yarn_counts_pixels_and_ours_tokens():
    ours, published = (yarn_frequencies(56, 10000, n, 3.0) for n in (83, 1328))
    original = rope_frequencies(56, 10000)
    assert torch.all(ours <= published)
    assert torch.all(published <= original)
    assert torch.equal(published, corrected_frequencies(56, 10000, "yarn", 9000, 0, linear_factor=3.0))
    assert int((published == original).sum()) > int((ours == original).sum())


def test_baselines_agree_where_nothing_is_enlarged():
    original = rope_frequencies(56, 10000)
    for same in (
        interpolated_frequencies(56, 10000, 0.5),
        ntk_frequencies(56, 10000, 1.0),
        dype_frequencies(56, 10000, 64, 64)[0],
    ):
        assert torch.equal(same, original)
    slowest = ntk_frequencies(56, 10000, 4.0)[-1] / original[-1]
    assert float(slowest) == pytest.approx(1 / 4.0)


def test_dype_returns_to_the_trained_frequencies_as_noise_vanishes():
    original = rope_frequencies(56, 10000)
    noisy, late = (dype_frequencies(56, 10000, 256, 64, timestep=t)[0] for t in (1.0, LEAST_TIME))
    torch.testing.assert_close(late[:26], original[:26])
    assert not torch.allclose(noisy[:26], original[:26])
    torch.testing.assert_close(
        dype_frequencies(56, 10000, 256, 64, timestep=LEAST_TIME, method="ntk")[0], original, rtol=1e-3, atol=0
    )
    with pytest.raises(ValueError, match="above 0"):
        dype_frequencies(56, 10000, 256, 64, timestep=0.0)


def test_flux_table_is_the_models_own_where_nothing_is_corrected():
    ids = flux_grid_ids(7, 9, 5)
    theirs = FluxPosEmbed(10000, [8, 28, 28])(ids)
    ours = flux_table(ids, [rope_frequencies(dim, 10000) for dim in (8, 28, 28)])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_qwen_table_is_the_models_own_where_nothing_is_corrected():
    theirs = QwenEmbedRope(10000, [16, 56, 56], scale_rope=True)(
        [(1, 5, 8)], device=torch.device("cpu"), max_txt_seq_len=6
    )
    ours = qwen_table(5, 8, 6, [rope_frequencies(dim, 10000) for dim in (16, 56, 56)])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


def test_oblong_targets_have_a_table_for_each_side():
    cos, _ = flux_rope_table(
        text_tokens=2,
        grid_height=40,
        grid_width=20,
        train_sequence=1,
        height_indices=[9],
        width_indices=[9],
        margin=1.0,
    )
    height, width = (cos[:, 16 + 2 * 9], cos[:, 16 + 56 + 2 * 9])
    assert float(height[2 + 20 * 20]) == pytest.approx(math.cos(2 * math.pi * 20 / 40), abs=1e-6)  # row 20 of 40
    assert float(width[2 + 10]) == pytest.approx(math.cos(2 * math.pi * 10 / 20), abs=1e-6)  # column 10 of 20


def test_qwen_text_starts_behind_the_grid_with_the_corrected_frequencies():
    corrections = {"freq_id": [8, 9], "linear_factor": 3.0}
    _, text = qwen_rope_table(6, 10, 2, name_height="interpolate_selected", hyper_parameters_height=corrections)
    frequency = float(rope_frequencies(56, 10000)[8]) / 3
    assert float(text[0, 8 + 8].imag) == pytest.approx(math.sin(5 * frequency), abs=1e-6)


def test_bfloat16_positions_would_collide_and_ours_do_not():
    rounded = torch.arange(400, dtype=torch.bfloat16).float().unique()
    assert len(rounded) == 329
    ids = flux_grid_ids(0, 400, 1)
    assert len(ids[:, 1].unique()) == 400


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="spiral"):
        corrected_frequencies(56, 10000, "spiral", 2, 1)
    with pytest.raises(ValueError, match="spiral"):
        recursive_correction(56, 10000, 10, 20, mode="spiral")
    with pytest.raises(ValueError, match="spiral"):
        dype_frequencies(56, 10000, 256, method="spiral")
