"""The attention pattern of a running transformer is read where queries and keys are, and nothing is changed."""

from __future__ import annotations

import math

import pytest
import torch

from engines.ultravico.diagnosis import reading
from engines.ultravico.hooks import self_attentions
from engines.ultravico.pattern import amplitudes, coefficients
from tests.engines.ultravico.tiny import MODELS, TEXT, built, forward

SHAPES = {"wan": (44, 2), "hunyuan": (16, 2), "cogvideox": (16, 2)}  # temporal channels, heads


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_read_and_nothing_changes(name: str):
    model = built(name)
    plain = forward(model)
    dim, heads = SHAPES[name]
    with reading(model, dim, heads, 72) as found:
        assert torch.equal(forward(model), plain)
    amplitude, phase = found.result()
    assert found.heads == heads * len(self_attentions(model))
    assert amplitude.shape == phase.shape == (dim // 2,)
    assert (amplitude > 0).all()
    assert not any(module._forward_hooks for module in model.modules())


# Where a norm's output holds the heads and the video: [B, h, N, d] of video tokens alone.
LAYOUTS = {
    "wan": lambda x: x.unflatten(-1, (2, -1)).transpose(1, 2),
    "hunyuan": lambda x: x[:, :72].transpose(1, 2),
    "cogvideox": lambda x: x[:, :, TEXT:],
}


@pytest.mark.parametrize("name", MODELS)
def test_one_layer_is_read_as_its_own_queries_and_keys_say(name: str):
    """By hand from the norms of the first layer, unrotated, heads apart, without text."""
    model = built(name)
    blocks = "blocks" if name == "wan" else "transformer_blocks"
    setattr(model, blocks, torch.nn.ModuleList([getattr(model, blocks)[0]]))
    if name == "hunyuan":
        model.single_transformer_blocks = torch.nn.ModuleList()
    layer, seen = self_attentions(model)[0], {}
    handles = [
        norm.register_forward_hook(lambda _m, _i, out, n=n: seen.__setitem__(n, LAYOUTS[name](out)))
        for n, norm in (("q", layer.norm_q), ("k", layer.norm_k))
    ]
    dim, heads = SHAPES[name]
    with reading(model, dim, heads, 72) as found:
        forward(model)
    for handle in handles:
        handle.remove()
    assert seen["q"].shape[1:3] == (heads, 72)
    one = [amplitudes(*(seen[n][:, head, :, :dim] for n in ("q", "k"))) for head in range(heads)]
    expected = sum(torch.polar(*pair) for pair in one) / heads / math.sqrt(seen["q"].shape[-1])
    torch.testing.assert_close(torch.polar(*found.result()), expected)


def test_coefficients_agree_with_amplitudes():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 3, 10, 8, generator=generator)
    found = coefficients(q, k)
    assert found.shape == (3, 4)
    for head in range(3):
        amplitude, phase = amplitudes(q[:, head], k[:, head])
        torch.testing.assert_close(found[head].abs(), amplitude)
        torch.testing.assert_close(found[head].angle(), phase)
