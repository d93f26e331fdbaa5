"""Miniature random checkpoints of the Stable Diffusion layout, and of what stands beside the pocket model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from engines.text2image.judge import JudgeNet
from pocket import toyclip, toyindex
from pocket.text2image import LENGTH, build_words


def words() -> PreTrainedTokenizerFast:
    """The tokenizer of the world of toys."""
    return build_words()


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Weights of a size that shows in the output."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.2 / parameter[0].numel() ** 0.5)
    return module.eval()


def diffusion_folder(folder: Path, vae_levels: int = 3) -> Path:
    """A StableDiffusionPipeline folder; published ones carry a PNDM scheduler."""
    torch.manual_seed(0)
    tokens = words()
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * vae_levels,
        up_block_types=("UpDecoderBlock2D",) * vae_levels,
        block_out_channels=(8,) * vae_levels,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.5,
        sample_size=64,
    )
    StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=lively(CLIPTextModel(text)),
        tokenizer=tokens,
        unet=lively(unet),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def judge_folder(folder: Path) -> Path:
    """A judge that knows nothing yet, and says it can tell the sides of cars."""
    torch.manual_seed(1)
    folder.mkdir()
    save_file(JudgeNet().half().state_dict(), folder / "model.safetensors")
    (folder / "examination.json").write_text(json.dumps({"sided_kinds": ["car"], "broken_from": 0.3}))
    return folder


def clip_folder(folder: Path) -> Path:
    """Untrained towers with their tokenizer."""
    torch.manual_seed(2)
    tokens = words()
    toyclip.build(tokens).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def index_folder(folder: Path, pictures: np.ndarray, seeds: list[int]) -> Path:
    """The index of a few training pictures."""
    toyindex.make(folder, pictures, seeds, lambda _: None)
    return folder
