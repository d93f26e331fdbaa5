"""Miniature random Stable Diffusion folders, and a teacher whose score is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from engines.prolificdreamer.exact import mixture_epsilon
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.renderer import resized
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.vsd import scaled_linear_alphas_cumprod

WORDS = ["<pad>", "<unk>", "a", "red", "car", "view", "front", "side", "back", "overhead", "bottom", "on", "plain"]
WORDS += ["grey", "background", ",", "blue", "mug", "face"]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WORDING = Wording("a red car", scene=", on a plain grey background")


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def streams(*path: object) -> Streams:
    return Streams(generator, "test", *path)


def tokenizer(length: int = 16) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=length, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )


def unet(cells: int = 8, *, seed: int = 0, text: int = 16) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=cells,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=text,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).eval()


def vae(levels: int = 2) -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.5,
    ).eval()


def text_encoder(width: int = 16) -> CLIPTextModel:
    torch.manual_seed(2)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).eval()


def sd_folder(folder: Path, *, cells: int = 8, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A StableDiffusionPipeline folder with random weights: 16 px pictures, 8 x 8 latents."""
    kind = DPMSolverMultistepScheduler if prediction_type == "epsilon" else DDIMScheduler
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(cells, seed=seed),
        scheduler=kind(**BETAS, prediction_type=prediction_type, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


class ExactTeacher:
    """Pictures are their own latents, and the distribution is a few pictures for every side: no network errs."""

    def __init__(self, pictures: dict[str, Tensor], channels: int = 3) -> None:
        """`pictures`: prompt -> [K, C, S, S] in [0, 1], scaled to [-1, 1] inside; "" takes all of them."""
        self.pictures = {prompt: 2 * images - 1 for prompt, images in pictures.items()}
        self.pictures.setdefault("", torch.cat(list(self.pictures.values())))
        self.texts = {prompt: torch.tensor([[float(i)]]) for i, prompt in enumerate(self.pictures)}
        self._order = list(self.pictures)
        self.alphas_cumprod = scaled_linear_alphas_cumprod()
        self.prediction_type = "epsilon"
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.channels, self.cells = channels, next(iter(self.pictures.values())).shape[-1]
        self.pixels = self.cells
        self.unet = nn.Identity()

    def encode(self, image: Tensor, noise: Tensor) -> Tensor:
        return 2 * resized(image, self.pixels) - 1

    def decode(self, latents: Tensor) -> Tensor:
        return (latents + 1) / 2

    def text(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([self.texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def epsilon(self, x_t: Tensor, t: Tensor, texts: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for told in texts:
            rows = [
                mixture_epsilon(
                    x_t[i : i + 1], self.pictures[self._order[int(text)]], self.alphas_cumprod[t[i : i + 1]]
                )
                for i, text in enumerate(told.flatten())
            ]
            found.append(torch.cat(rows))
        return found


class ExactEstimator:
    """phi for fixed renders: the exact score of the particles it was shown last."""

    prediction_type = "epsilon"

    def __init__(self, particles: Tensor) -> None:
        self.particles, self.alphas = particles, scaled_linear_alphas_cumprod()
        self.parameters: list[Any] = [nn.Parameter(torch.zeros(1))]

    def __call__(self, x_t: Tensor, t: Tensor, text: Tensor, c2w: Tensor, drop: Tensor | None = None) -> Tensor:
        return mixture_epsilon(x_t, self.particles, self.alphas[t]) + 0 * self.parameters[0]

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass


def config(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**values)
