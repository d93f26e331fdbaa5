"""Installing and removing: every block is reached, nothing stays behind, and measuring sees what attention sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel
from torch import Tensor

from engines.ultraimage.concentration import attention_entropy
from engines.ultraimage.frequency import recursive_correction, rope_frequencies
from engines.ultraimage.hooks import FluxPlace, QwenPlace, Seen, attentions, focus, measured, positions
from engines.ultraimage.rope import flux_grid_ids
from tests.engines.ultraimage import tiny

Model = FluxTransformer2DModel | QwenImageTransformer2DModel
GRID, TEXT = (4, 6), 5


def call(model: Model, grid: tuple[int, int] = GRID, device: str = "cpu") -> Tensor:
    """One forward pass on fixed inputs."""
    generator = torch.Generator().manual_seed(0)
    tokens, config = grid[0] * grid[1], model.config

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    latents, text = random(1, tokens, config.in_channels), random(1, TEXT, config.joint_attention_dim)
    time = torch.tensor([0.7], device=device)
    if isinstance(model, QwenImageTransformer2DModel):
        return model(latents, text, None, time, [[(1, *grid)]], return_dict=False)[0]
    ids = flux_grid_ids(TEXT, *grid, device=device)
    pooled = random(1, config.pooled_projection_dim)
    guidance = time if config.guidance_embeds else None
    return model(latents, text, pooled, time, ids[TEXT:], ids[:TEXT], guidance, return_dict=False)[0]


def rule_for(model: Model, grid: tuple[int, int] = GRID) -> Callable[[float], Any]:
    dims = model.config.axes_dims_rope
    spatial = [recursive_correction(dim, 10000, 2, n)[0] for dim, n in zip(dims[1:], grid, strict=True)]
    return lambda sigma: ([rope_frequencies(dims[0], 10000), *spatial], [1.0] * 3)


def plain_rule(model: Model) -> Callable[[float], Any]:
    return lambda sigma: ([rope_frequencies(dim, 10000) for dim in model.config.axes_dims_rope], [1.0] * 3)


def table(model: Model, value: float = 1.3) -> Tensor:
    return torch.full((1, len(attentions(model)), model.config.num_attention_heads), value)


@pytest.fixture(params=["flux", "qwen"])
def model(request: pytest.FixtureRequest) -> Model:
    return tiny.flux_transformer() if request.param == "flux" else tiny.qwen_transformer()


@torch.no_grad()
def test_factor_one_and_trained_frequencies_change_nothing(model: Model):
    before = call(model)
    with focus(model, table(model, 1.0)):
        assert torch.equal(call(model), before)
    with positions(model, plain_rule(model)) as place:
        place.at(*GRID, 0.5)
        torch.testing.assert_close(call(model), before, atol=1e-5, rtol=1e-5)
    with positions(model, None) as place, focus(model, None) as focused:
        assert place is None
        assert focused is None
        assert torch.equal(call(model), before)


@torch.no_grad()
@pytest.mark.parametrize("failure", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_stays_behind(model: Model, failure: type[BaseException] | None):
    before, embedding = call(model), model.pos_embed
    hooks = [dict(module._forward_hooks) for module in model.modules()]

    def inside() -> None:
        with (
            positions(model, rule_for(model)) as place,
            focus(model, table(model)),
            measured(model, attention_entropy),
        ):
            place.at(*GRID, 1.0)
            assert not torch.allclose(call(model), before)
            if failure is not None:
                raise failure

    if failure is None:
        inside()
    else:
        with pytest.raises(failure):
            inside()
    assert model.pos_embed is embedding
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    assert torch.equal(call(model), before)


@torch.no_grad()
def test_a_table_of_the_wrong_depth_is_refused(model: Model):
    with pytest.raises(ValueError, match="layers"):
        with focus(model, table(model)[:, :1]):
            pass


@torch.no_grad()
def test_scaling_queries_is_scaling_logits_in_the_model(model: Model, monkeypatch: pytest.MonkeyPatch):
    """Text queries too: the same output as attention with its scale multiplied, true only if all are hooked."""
    with focus(model, table(model)):
        focused = call(model)
    plain = F.scaled_dot_product_attention

    def sharper(query: Tensor, **options: Any) -> Tensor:
        return plain(query, **{**options, "scale": 1.3 * query.shape[-1] ** -0.5})

    monkeypatch.setattr(F, "scaled_dot_product_attention", sharper)
    torch.testing.assert_close(call(model), focused, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_each_head_gets_its_own_factor_on_each_branch(model: Model):
    factors = torch.stack([table(model, 1.0)[0], table(model, 1.3)[0]])
    before = call(model)
    with focus(model, factors) as state:
        assert torch.equal(call(model), before)
        state.branch = 1
        changed = call(model)
    single = table(model, 1.3)
    with focus(model, single):
        assert torch.equal(call(model), changed)


@torch.no_grad()
def test_measuring_sees_the_queries_and_keys_of_attention(model: Model, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tensor] = []
    plain = F.scaled_dot_product_attention

    def recording(query: Tensor, key: Tensor, **options: Any) -> Tensor:
        seen.append(attention_entropy(query, key))
        return plain(query, key, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording)
    with measured(model, attention_entropy) as found:
        before = call(model)
    assert len(found) == len(attentions(model)) == len(seen)
    for ours, theirs in zip(found, seen, strict=True):
        torch.testing.assert_close(ours, theirs)
    monkeypatch.undo()
    assert torch.equal(call(model), before)


@torch.no_grad()
def test_a_sample_of_the_queries_is_the_same_as_choosing_from_all(model: Model):
    chosen = torch.tensor([0, 3, 7])
    with measured(model, lambda q, _: q[..., chosen, :]) as whole:
        call(model)
    with measured(model, lambda q, _: q, lambda _: chosen) as found:
        call(model)
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


@torch.no_grad()
def test_a_pass_that_is_only_looked_at_ends_at_the_last_layer(model: Model):
    reached: list[bool] = []
    last = attentions(model)[-1].register_forward_hook(lambda *_: reached.append(True))
    with measured(model, attention_entropy) as whole:
        before = call(model)
    with measured(model, attention_entropy, stop=True) as found, pytest.raises(Seen):
        call(model)
    assert reached == [True]
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    last.remove()
    assert torch.equal(call(model), before)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "layers", "place_type"),
    [(FluxTransformer2DModel, 19 + 38, FluxPlace), (QwenImageTransformer2DModel, 60, QwenPlace)],
)
def test_all_blocks_of_the_published_models_are_reached(kind: type[Model], layers: int, place_type: type):
    """The full architectures on the meta device: every block is measured, scaled and given the replaced positions."""
    with init_empty_weights():
        model = kind()
    assert len(attentions(model)) == layers
    tables = []
    for attention in attentions(model):
        attention.register_forward_pre_hook(
            lambda _module, _args, kwargs: tables.append(kwargs["image_rotary_emb"]), with_kwargs=True
        )
    norms = [getattr(a, n, None) for a in attentions(model) for n in ("norm_q", "norm_added_q")]
    with positions(model, rule_for(model)) as place, measured(model, lambda q, k: q.new_empty(1, 24)) as found:
        assert isinstance(place, place_type)
        with focus(model, table(model)):
            place.at(*GRID, 1.0)
            call(model.to("meta"), device="meta")
            # Two on every query norm: one measures, one scales.
            assert all(len(norm._forward_hooks) == 2 for norm in norms if norm is not None)
    assert len(found) == layers
    assert len(tables) == layers
    assert len({id(part) for part, _ in tables}) == 1  # one replaced table, handed to every block


@torch.no_grad()
def test_positions_are_exact_beyond_256_tokens():
    model = tiny.flux_transformer(layers=(0, 1))
    with positions(model, plain_rule(model)) as place:
        place.at(400, 1, 1.0)
        cos, sin = place(flux_grid_ids(0, 400, 1).bfloat16())  # as a pipeline would hand them over
    rows = torch.stack([cos, sin], dim=-1)[:, 8:36].flatten(1)
    assert len(rows.unique(dim=0)) == 400


@torch.no_grad()
def test_time_dependent_rules_are_asked_at_every_noise_level(model: Model):
    asked: list[float] = []
    plain = plain_rule(model)

    def rule(sigma: float) -> Any:
        asked.append(sigma)
        return plain(sigma)

    with positions(model, rule) as place:
        for sigma in (0.9, 0.4):
            place.at(*GRID, sigma)
            call(model)
    assert asked[-2:] == [0.9, 0.4]
