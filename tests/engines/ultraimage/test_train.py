"""Training UltraImage's transformer: it packs as the pipeline packs, and the loss is that of a straight flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engines.shared.training import Recipe, train
from engines.ultraimage.train import TIME_MEAN, Flow, FluxStudent, flow_loss, grid_ids, hidden, pack, unpack


@dataclass
class Stripes:
    """Two kinds of picture, told apart by one token; the layout says which."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        which = torch.randint(2, (count,), generator=generator)
        wave = torch.linspace(-2, 2, 8)
        latents = torch.where(which[:, None, None, None] == 1, wave[:, None], wave[None, :]).expand(count, 4, 8, 8)
        tokens = torch.stack([torch.full_like(which, 2), 4 + which, torch.full_like(which, 3)], 1)
        return latents.clone(), tokens, (2.0 * which - 1)[:, None, None, None].expand(count, 1, 4, 4)


def student(seed: int = 0) -> FluxStudent:
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    text = {"vocab_size": 8, "pad_token_id": 0, "eos_token_id": 3}
    clip = CLIPTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, projection_dim=16, **text
    )
    t5 = T5Config(d_model=16, d_kv=16, d_ff=16, num_layers=1, num_heads=1, dropout_rate=0.0, **text)
    return FluxStudent(transformer, CLIPTextModel(clip), T5EncoderModel(t5), channels=1)


def test_packing_is_the_pipelines_own():
    latents = torch.randn(2, 4, 6, 10)
    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 6, 10))
    assert torch.equal(unpack(pack(latents), 6, 10), latents)
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 5, "cpu", torch.float32)
    assert torch.equal(grid_ids(3, 5), theirs)


def test_a_perfect_velocity_costs_nothing():
    latents, tokens, layouts = Stripes().draw(8, torch.Generator().manual_seed(0))

    def oracle(noised: Tensor, times: Tensor, _tokens: Tensor) -> tuple[Tensor, Tensor]:
        t = times[:, None, None, None]
        return (noised - latents) / t, layouts + 0.5  # (1 - t) x + t e - x = t (e - x)

    velocity, misread = flow_loss(oracle, latents, tokens, layouts, torch.Generator().manual_seed(1))
    assert velocity < 1e-6
    assert misread == pytest.approx(0.25)


def test_times_lie_between_picture_and_noise():
    latents, tokens, layouts = Stripes().draw(512, torch.Generator().manual_seed(0))
    seen = []

    def spy(noised: Tensor, times: Tensor, _tokens: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(times)
        return noised, layouts

    flow_loss(spy, latents, tokens, layouts, torch.Generator().manual_seed(1))
    assert 0 < seen[0].min() < 0.3
    assert 0.9 < seen[0].max() < 1
    assert seen[0].median().item() == pytest.approx(torch.sigmoid(torch.tensor(TIME_MEAN)).item(), abs=0.01)


def test_pictures_are_learned(tmp_path: Path):
    recipe = Recipe(steps=40, batch=8, ranks=1, warmup=5, cooldown=20, ema=0.5, save_seconds=0.0)
    train(student(), Flow(Stripes()), recipe, tmp_path, hidden)
    lines = [line.split() for line in (tmp_path / "log.txt").read_text().splitlines()]
    for place, name in ((2, "velocity"), (4, "layout")):
        assert lines[0][place] == name
        losses = [float(line[place + 1]) for line in lines]
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_matrices_of_blocks_are_for_muon():
    chosen = [name for name, weight in student().named_parameters() if hidden(name, weight)]
    assert any("single_transformer_blocks" in name for name in chosen)
    assert not any(
        part in name for name in chosen for part in ("clip.", "t5.", "embedder", "proj_out.bias", "reader")
    )
