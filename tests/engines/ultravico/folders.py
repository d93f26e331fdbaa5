"""Miniature random checkpoints in the published layouts: same classes, same folders, few channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.engines.ultravico import tiny

WORDS = ["<pad>", "<unk>", "a", "red", "ball", "moving", "right", "over", "grey", "blue", "box", "left", "black"]


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=length, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Gates of a fresh transformer are small; make everything count so that hooks show in the output."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.3 / parameter[0].numel() ** 0.5)
    return module.eval()


def _umt5(width: int) -> UMT5EncoderModel:
    torch.manual_seed(1)
    config = UMT5Config(vocab_size=len(WORDS), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return UMT5EncoderModel(config).eval()


def _wan_vae(levels: int) -> AutoencoderKLWan:
    torch.manual_seed(2)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1] * (levels + 1),
        num_res_blocks=1,
        temperal_downsample=([False] * levels + [True, True])[-levels:],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.2, 1.0],
        scale_factor_spatial=2**levels,
        scale_factor_temporal=4,
    ).eval()


def wan_folder(
    folder: Path, *, head_dim: int = 64, text_length: int = 16, levels: int = 2, unipc: bool = False
) -> Path:
    """A WanPipeline folder with random weights; by default in the pocket model's layout: 8 px a token."""
    torch.manual_seed(0)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler: Any = UniPCMultistepScheduler(**flow) if unipc else FlowMatchEulerDiscreteScheduler(shift=2.0)
    WanPipeline(
        tokenizer=tokenizer(text_length),
        text_encoder=_umt5(16),
        vae=_wan_vae(levels),
        scheduler=scheduler,
        transformer=lively(tiny.wan(attention_head_dim=head_dim, rope_max_seq_len=128)),
    ).save_pretrained(folder)
    return folder


def wan_image_folder(folder: Path) -> Path:
    """A WanImageToVideoPipeline folder with random weights, 16 px a token."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=8,
    )
    changes = {"in_channels": 12, "image_dim": 16, "added_kv_proj_dim": 256, "rope_max_seq_len": 128}
    WanImageToVideoPipeline(
        tokenizer=tokenizer(512),
        text_encoder=_umt5(16),
        vae=_wan_vae(3),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        transformer=lively(tiny.wan(**changes)),
    ).save_pretrained(folder)
    return folder


def hunyuan_folder(folder: Path) -> Path:
    """A HunyuanVideoPipeline folder with random weights."""
    torch.manual_seed(0)
    llama = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2
    )
    clip = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.48,
        mid_block_add_attention=False,
    )
    HunyuanVideoPipeline(
        text_encoder=LlamaModel(llama).eval(),
        tokenizer=tokenizer(512),
        transformer=lively(tiny.hunyuan(guidance_embeds=True)),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(clip).eval(),
        tokenizer_2=tokenizer(77),
    ).save_pretrained(folder)
    return folder


def cogvideox_folder(folder: Path, *, rotary: bool = True) -> Path:
    """A CogVideoXPipeline folder with random weights; without rotary positions as the 2B model."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        temporal_compression_ratio=4,
        scaling_factor=0.7,
    )
    t5 = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    CogVideoXPipeline(
        tokenizer=tokenizer(226),
        text_encoder=T5EncoderModel(t5).eval(),
        vae=vae.eval(),
        transformer=lively(tiny.cogvideox(use_rotary_positional_embeddings=rotary)),
        scheduler=CogVideoXDPMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
    ).save_pretrained(folder)
    return folder
