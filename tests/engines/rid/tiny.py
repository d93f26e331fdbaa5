"""A tiny random Stable Diffusion folder and tiny defenders, in the published layouts, for tests without weights."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS, Defender, Shape
from engines.rid.identity import Embedder
from engines.rid.presets import MODELS, SURROGATES, ModelPreset, Surrogate
from engines.rid.spec import RidParams
from pocket.tokenizer import build
from pocket.wording import vocabulary
from studio.contract import FileRef
from tests.engines.fake_context import FakeContext

SIDE = 16
SHAPE = Shape(input_size=SIDE, patch_size=4, hidden_size=24, depth=2, num_heads=2)


def diffusion_folder(folder: Path) -> Path:
    """A whole pipeline of some ten thousand weights: 16 px, latents of 8x8x4."""
    torch.manual_seed(3)
    words = build(vocabulary(), 12)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=12,
            pad_token_id=words.pad_token_id,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=1.0,
    )
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def loud_defender(budget: float, seed: int = 0, folded: bool = True) -> Defender:
    """Random weights, so that it says something; `budget` in grey levels."""
    torch.manual_seed(seed)
    defender = Defender(SHAPE, budget / GREY_LEVELS, folded=folded)
    with torch.no_grad():
        for name, weight in defender.named_parameters():
            if name != "pos_embed":
                weight.normal_(0, 0.25)
    return defender.eval()


def judge_in(folder: Path, threshold: float = 0.5, faces: float = 9.0) -> Path:
    """A judge of random weights that sees faces everywhere, or with `faces` far below zero nowhere."""
    torch.manual_seed(0)
    net = Embedder()
    with torch.no_grad():
        net.face.bias.fill_(faces)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "examination.json").write_text(json.dumps({"mean_threshold": threshold}))
    return folder


def weights_in(folder: Path) -> tuple[ModelPreset, Surrogate]:
    """Tiny pocket weights in a folder, and the presets that point to them."""
    diffusion_folder(folder / "text2image")
    for budget, name in MODELS["pocket"].files.items():
        checkpoints.save(loud_defender(budget), folder / name, torch.float32)
    return (
        replace(MODELS["pocket"], folder=str(folder), side=SIDE),
        replace(SURROGATES["pocket"], repo=str(folder / "text2image"), side=SIDE),
    )


def picture(seed: int = 0, width: int = 40, height: int = 32) -> Image.Image:
    """Smooth colours away from black and white."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 196, (6, 6, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def context_with(files: dict[str, bytes], **values: Any) -> tuple[FakeContext, RidParams]:
    """A context whose owner has uploaded the files, and parameters that name them."""
    ctx = FakeContext()
    refs = [FileRef(sha256=hashlib.sha256(data).hexdigest(), name=name) for name, data in files.items()]
    ctx.uploads = {ref.sha256: data for ref, data in zip(refs, files.values(), strict=True)}
    return ctx, RidParams(images=tuple(refs), **values)
