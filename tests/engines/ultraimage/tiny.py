"""Miniature random checkpoints in the published layouts: same classes, same folders, few channels."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

WORDS = ["<pad>", "<unk>", "a", "red", "ring", "under", "pale", "sky", "blue", "disc", "over", "sandy", "ground"]


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=length, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Gates of a fresh transformer are small; make everything count so that hooks show in the output."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.4 / parameter.shape[-1] ** 0.5)
    return module.eval()


def flux_transformer(
    *,
    axes: tuple[int, int, int] = (8, 28, 28),
    guidance: bool = False,
    layers: tuple[int, int] = (1, 2),
    channels: int = 4,
) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return lively(
        FluxTransformer2DModel(
            in_channels=4 * channels,
            num_layers=layers[0],
            num_single_layers=layers[1],
            attention_head_dim=sum(axes),
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=guidance,
            axes_dims_rope=axes,
        )
    )


def qwen_transformer(channels: int = 4) -> QwenImageTransformer2DModel:
    torch.manual_seed(0)
    return lively(
        QwenImageTransformer2DModel(
            in_channels=4 * channels,
            out_channels=channels,
            num_layers=2,
            attention_head_dim=128,
            num_attention_heads=2,
            joint_attention_dim=16,
        )
    )


def flux_folder(
    folder: Path,
    *,
    axes: tuple[int, int, int] = (8, 28, 28),
    guidance: bool = False,
    text_length: int = 20,
    vae_levels: int = 3,
) -> Path:
    """A FluxPipeline folder with random weights; as small as the pocket model's layout by default."""
    transformer = flux_transformer(axes=axes, guidance=guidance)
    torch.manual_seed(1)
    text = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    t5 = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * vae_levels,
        up_block_types=("UpDecoderBlock2D",) * vae_levels,
        block_out_channels=(8,) * vae_levels,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=64,
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer(min(77, text_length)),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer(text_length),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def qwen_folder(folder: Path) -> Path:
    """A QwenImagePipeline folder with random weights."""
    transformer = qwen_transformer()
    torch.manual_seed(1)
    text = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default"},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.2, 1.0],
    )
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae.eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(text).eval(),
        tokenizer=tokenizer(1024),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder
