"""Rotary frequencies: which rule changes what, and the tables against those of diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from engines.ultravico.methods import riflex_frequency
from engines.ultravico.presets import MODELS
from engines.ultravico.rope import (
    LAYOUTS,
    extrapolated_frequencies,
    identify_intrinsic_frequency,
    rope_frequencies,
    video_rope_table,
)
from engines.ultravico.spec import UltraVicoParams, validate
from studio.errors import InvalidInput


def test_riflex_changes_exactly_one_frequency_and_only_beyond_its_period():
    trained = rope_frequencies(16, 256.0)
    assert torch.equal(extrapolated_frequencies(16, 256.0, "riflex", 33, 50, k=4), trained)
    changed = extrapolated_frequencies(16, 256.0, "riflex", 33, 66, k=4)
    assert (changed != trained).nonzero().flatten().tolist() == [3]
    assert changed[3] < trained[3]


@pytest.mark.parametrize("method", ["pi", "ntk", "yarn", "tasr", "riflex"])
def test_nothing_changes_up_to_the_training_length(method: str):
    found = extrapolated_frequencies(44, 10_000.0, method, 21, 21, k=1, t=0.3)
    assert torch.equal(found, rope_frequencies(44, 10_000.0))


def test_the_rules_stretch_as_they_should():
    trained = rope_frequencies(44, 10_000.0)
    pi = extrapolated_frequencies(44, 10_000.0, "pi", 21, 63)
    ntk = extrapolated_frequencies(44, 10_000.0, "ntk", 21, 63)
    yarn = extrapolated_frequencies(44, 10_000.0, "yarn", 21, 63)
    torch.testing.assert_close(pi, trained / 3)
    assert ntk[0] == trained[0]
    torch.testing.assert_close(ntk[-1], pi[-1])
    assert ((yarn >= pi - 1e-12) & (yarn <= trained + 1e-12)).all()
    early = extrapolated_frequencies(44, 10_000.0, "tasr", 21, 63, t=0.9)
    late = extrapolated_frequencies(44, 10_000.0, "tasr", 21, 63, t=0.1)
    assert torch.equal(early, pi)
    assert torch.equal(late, ntk)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="noise level"):
        extrapolated_frequencies(44, 1e4, "tasr", 21, 63)
    with pytest.raises(ValueError, match="index k"):
        extrapolated_frequencies(44, 1e4, "riflex", 21, 63)
    with pytest.raises(ValueError, match="frequency rule"):
        extrapolated_frequencies(44, 1e4, "linear", 21, 63)


def test_published_periods():
    assert identify_intrinsic_frequency(16, 256.0, 48) == (4, 50)
    assert identify_intrinsic_frequency(16, 10_000.0, 18) == (2, 20)


def test_wan_table_is_that_of_diffusers():
    rope = WanRotaryPosEmbed(128, (1, 2, 2), 64)
    cos, sin = rope(torch.zeros(1, 16, 5, 6, 8))
    mine = video_rope_table("wan", 5, 3, 4)
    torch.testing.assert_close(mine[0], cos.flatten(0, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(mine[1], sin.flatten(0, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(30, 45), (20, 31), (45, 30)])
def test_cogvideox_table_is_that_of_diffusers(grid: tuple[int, int]):
    crops = get_resize_crop_region_for_grid(grid, 45, 30)
    cos, sin = get_3d_rotary_pos_embed(64, crops, grid, 7)
    mine = video_rope_table("cogvideox", 7, *grid)
    torch.testing.assert_close(mine[0], cos, atol=2e-5, rtol=0)
    torch.testing.assert_close(mine[1], sin, atol=2e-5, rtol=0)


@pytest.mark.parametrize("model", LAYOUTS)
def test_riflex_touches_no_spatial_channel(model: str):
    cos, sin = video_rope_table(model, 6, 2, 3)
    changed = video_rope_table(model, 6, 2, 3, riflex_k=2, riflex_length=90)
    at = [channel for channel in range(cos.shape[1]) if not torch.equal(sin[:, channel], changed[1][:, channel])]
    assert at == [2, 3]


@pytest.mark.parametrize(
    ("model", "dim", "theta"), [("pocket", 24, 1e4), ("hunyuan", 16, 256.0), ("cogvideox", 16, 1e4)]
)
def test_riflex_takes_the_frequency_whose_period_is_seen(model: str, dim: int, theta: float):
    seen = UltraVicoParams(prompt="a ball", model=model)
    assert riflex_frequency(seen, dim, theta) == MODELS[model].riflex_k, "the published one, where there is one"
    assert riflex_frequency(seen.model_copy(update={"riflex_k": 3}), dim, theta) == 3
    assert riflex_frequency(seen.model_copy(update={"period": 6.0}), dim, theta) == 1


def test_a_period_may_be_given_for_riflex_alone():
    validate(UltraVicoParams(prompt="a ball", strength="custom", period=13.0, methods=("riflex", "direct")))
    with pytest.raises(InvalidInput, match="no beta"):
        validate(UltraVicoParams(prompt="a ball", strength="custom", period=13.0, methods=("ultravico",)))
