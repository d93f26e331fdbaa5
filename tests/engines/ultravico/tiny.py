"""Video transformers of the published layouts, small enough to run, or at full size without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn

from engines.ultravico.rope import video_rope_table


def wan(**changes: Any) -> WanTransformer3DModel:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 64, "num_layers": 2}
    fixed = {"in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "rope_max_seq_len": 64}
    return WanTransformer3DModel(**{**sizes, **fixed, **changes})


def hunyuan(**changes: Any) -> HunyuanVideoTransformer3DModel:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 128, "num_layers": 1, "num_single_layers": 2}
    fixed = {"in_channels": 4, "out_channels": 4, "num_refiner_layers": 1, "text_embed_dim": 16}
    return HunyuanVideoTransformer3DModel(**{**sizes, **fixed, "pooled_projection_dim": 8, **changes})


def cogvideox(**changes: Any) -> CogVideoXTransformer3DModel:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 64, "num_layers": 2, "time_embed_dim": 16}
    fixed = {"in_channels": 4, "out_channels": 4, "text_embed_dim": 16, "use_rotary_positional_embeddings": True}
    grid = {"sample_width": 8, "sample_height": 6, "sample_frames": 9, "max_text_seq_length": 5}
    return CogVideoXTransformer3DModel(**{**sizes, **fixed, **grid, **changes})


MODELS: dict[str, Callable[..., nn.Module]] = {"wan": wan, "hunyuan": hunyuan, "cogvideox": cogvideox}
PUBLISHED: dict[str, dict[str, Any]] = {
    "wan": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960, "text_dim": 4096, "in_channels": 16},
    "hunyuan": {"num_attention_heads": 24, "num_layers": 20, "num_single_layers": 40, "text_embed_dim": 4096},
    "cogvideox": {"num_attention_heads": 48, "num_layers": 42, "text_embed_dim": 4096},
}
TEXT = 5  # tokens


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


@torch.no_grad()
def forward(model: nn.Module, frames: int = 6, device: str = "cpu", seed: int = 1, padded: int = 2) -> Tensor:
    """One pass over `frames` latent frames of 6 x 8, 12 tokens each; some of Hunyuan's text is padding."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    config = model.config
    text = noise(2, TEXT, config.text_embed_dim if hasattr(config, "text_embed_dim") else config.text_dim)
    video = {"hidden_states": noise(2, config.in_channels, frames, 6, 8), "encoder_hidden_states": text}
    video["timestep"] = torch.full((2,), 500, device=device)
    if isinstance(model, HunyuanVideoTransformer3DModel):
        mask = torch.ones(2, TEXT, dtype=torch.bool, device=device)
        mask[1, TEXT - padded :] = False
        video |= {"encoder_attention_mask": mask, "guidance": torch.full((2,), 6000.0, device=device)}
        video["pooled_projections"] = noise(2, config.pooled_projection_dim)
    if isinstance(model, CogVideoXTransformer3DModel):
        video["hidden_states"] = video["hidden_states"].transpose(1, 2)
        if config.use_rotary_positional_embeddings:
            tables = video_rope_table("cogvideox", frames, 3, 4)
            video["image_rotary_emb"] = tuple(table.to(device) for table in tables)
    return model(**video).sample
