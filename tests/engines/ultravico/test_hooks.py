"""What is installed reaches every self-attention and nothing else, and is gone afterwards whatever happened."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend
from torch import Tensor

from engines.ultravico.decay import Decay, chunked_attention, dense_attention
from engines.ultravico.hooks import decayed, positions, self_attentions
from engines.ultravico.rope import extrapolated_frequencies, rope_frequencies
from tests.engines.ultravico.tiny import MODELS, PUBLISHED, built, forward

DECAY = Decay(tokens_per_frame=12, window_frames=2, alpha=0.5)
TOKENS = 72


@pytest.mark.parametrize("name", MODELS)
def test_alpha_one_gives_the_plain_model_and_less_does_not(name: str):
    model = built(name)
    plain = forward(model)
    with decayed(model, Decay(12, 2, 1.0), dense_attention, TOKENS):
        torch.testing.assert_close(forward(model), plain, atol=1e-5, rtol=1e-4)
    with decayed(model, DECAY, dense_attention, TOKENS):
        changed = forward(model)
    assert (changed - plain).abs().max() > 2e-4
    assert torch.equal(forward(model), plain)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_reached_once_and_paths_agree(name: str):
    model = built(name)
    with decayed(model, DECAY, dense_attention, TOKENS) as installed:
        dense = forward(model)
    assert installed.calls == len(self_attentions(model))
    with decayed(model, DECAY, partial(chunked_attention, chunk=13), TOKENS):
        torch.testing.assert_close(forward(model), dense, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_published_models_are_reached_whole(name: str, monkeypatch: pytest.MonkeyPatch):
    with torch.device("meta"):
        model = MODELS[name](**PUBLISHED[name])
    seen: list[int] = []

    def path(q: Tensor, _k: Tensor, v: Tensor, decay: Decay) -> Tensor:
        seen.append(q.shape[-2] - decay.text_tokens_start - decay.text_tokens_end)
        return v

    layers = {"wan": 30, "hunyuan": 60, "cogvideox": 42}[name]
    assert len(self_attentions(model)) == layers
    monkeypatch.setattr("engines.ultravico.hooks.padding_of", lambda _mask: 0)  # there are no values to be counted
    with decayed(model, DECAY, path, TOKENS) as installed:
        forward(model, device="meta")
    assert installed.calls == layers
    assert len(seen) == layers * (2 if name == "hunyuan" else 1), "prompts with a mask are looked at one by one"
    assert set(seen) == {TOKENS}


def test_added_positions_make_no_difference_to_what_is_reached():
    """CogVideoX-2B at its published size: positions are added to its tokens instead of rotating them."""
    with torch.device("meta"):
        model = MODELS["cogvideox"](
            num_attention_heads=30,
            num_layers=30,
            text_embed_dim=4096,
            use_rotary_positional_embeddings=False,
        )
    with decayed(model, DECAY, lambda _q, _k, v, _decay: v, TOKENS) as installed:
        forward(model, device="meta")
    assert installed.calls == 30


def test_wan_from_a_picture_is_reached_in_its_self_attention_alone():
    """At the published size: the picture's tokens enter by the text attention, which is another module."""
    with torch.device("meta"):
        model = MODELS["wan"](
            num_attention_heads=40,
            num_layers=40,
            ffn_dim=13824,
            text_dim=4096,
            in_channels=36,
            out_channels=16,
            image_dim=1280,
            added_kv_proj_dim=5120,
        )
    seen: list[tuple[int, ...]] = []

    def path(q: Tensor, _k: Tensor, v: Tensor, decay: Decay) -> Tensor:
        seen.append(tuple(q.shape))
        return v

    def given(*shape: int) -> Tensor:
        return torch.zeros(*shape, device="meta")

    with torch.no_grad(), decayed(model, DECAY, path, TOKENS) as installed:
        model(
            hidden_states=given(1, 36, 6, 6, 8),
            timestep=torch.full((1,), 500, device="meta"),
            encoder_hidden_states=given(1, 512, 4096),
            encoder_hidden_states_image=given(1, 257, 1280),
        )
    assert installed.calls == 40
    assert set(seen) == {(1, 40, TOKENS, 128)}


def test_padding_is_found_for_each_prompt():
    model, found = built("hunyuan"), []

    def path(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:
        found.append((len(q), decay.text_tokens_end, decay.padded_keys_end))
        return dense_attention(q, k, v, decay)

    with decayed(model, DECAY, path, TOKENS):
        forward(model, padded=3)
    assert found == [(1, 5, 0), (1, 5, 3)] * 3


@pytest.mark.parametrize("name", MODELS)
def test_an_error_leaves_the_model_as_it_was(name: str):
    model = built(name)
    plain = forward(model)

    def path(*_: object) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError), decayed(model, DECAY, path, TOKENS):
        forward(model)
    assert torch.equal(forward(model), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_threads_side_by_side_do_not_mix():
    model = built("wan")
    plain, inside, go_on = forward(model), threading.Event(), threading.Event()
    alone = {}
    for alpha in (0.5, 0.8):
        with decayed(model, Decay(12, 2, alpha), dense_attention, TOKENS):
            alone[alpha] = forward(model)
    results: dict[float, Tensor] = {}

    def job() -> None:
        with decayed(model, Decay(12, 2, 0.8), dense_attention, TOKENS):
            inside.set()
            assert go_on.wait(60)
            results[0.8] = forward(model)

    thread = threading.Thread(target=job)
    thread.start()
    assert inside.wait(60)
    try:
        assert torch.equal(forward(model), plain)
        with decayed(model, Decay(12, 2, 0.5), dense_attention, TOKENS):
            assert torch.equal(forward(model), alone[0.5])
    finally:
        go_on.set()
        thread.join()
    assert torch.equal(results[0.8], alone[0.8])


def test_attention_that_goes_another_way_is_noticed():
    model = built("wan")
    with (
        pytest.raises(RuntimeError, match="nothing was decayed"),
        attention_backend("flex"),
        decayed(model, DECAY, dense_attention, TOKENS),
    ):
        forward(model)


@pytest.mark.parametrize("name", ["wan", "hunyuan"])
def test_trained_frequencies_reproduce_the_model(name: str):
    model = built(name)
    plain = forward(model)
    dim, theta = (44, 10_000.0) if name == "wan" else (16, 256.0)
    with positions(model, lambda: rope_frequencies(dim, theta)):
        torch.testing.assert_close(forward(model), plain, atol=1e-4, rtol=1e-4)
    with positions(model, lambda: extrapolated_frequencies(dim, theta, "pi", 3, 6)):
        assert (forward(model) - plain).abs().max() > 1e-4
    assert torch.equal(forward(model), plain)


def test_cogvideox_gets_its_table_from_outside():
    with pytest.raises(TypeError, match="pass another one"), positions(built("cogvideox"), lambda: torch.zeros(8)):
        pass
