"""Training a Stable Diffusion model from nothing: a U-Net that predicts the noise, and its text encoder (Rombach et
al. 2022).

Steps of the noise schedule are weighted by min(SNR, 5) / SNR (Hang et al. 2023). In the middle of the way up, a
linear reader is asked what lies where in the picture: a network that has to know this early learns to draw it much
sooner (representation alignment, Yu et al. 2025, with the world's own truth in place of a pretrained encoder's
features). The reader is thrown away afterwards. Does not know where latents and captions come from.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from engines.shared.training import beside

TIMESTEPS = 1000
BETAS = (0.00085, 0.012)  # scaled_linear, as Stable Diffusion
SNR_CAP = 5.0
READING = 0.3  # weight of the reader's error


class Batches(Protocol):
    """Training data, the same for the same generator."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled latents [B, C, H, W], token ids [B, T], layouts [B, K, H/2, W/2] of deviation about 1.

        Captions are already dropped where they should be.
        """
        ...


def alphas_cumprod() -> Tensor:  # float32 [TIMESTEPS]
    """The signal's share of the variance at every step."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, TIMESTEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


class DiffusionStudent(nn.Module):
    """U-Net and text encoder, called as `StableDiffusionPipeline` calls them, and the reader."""

    def __init__(self, unet: UNet2DConditionModel, text: CLIPTextModel, channels: int) -> None:
        super().__init__()
        self.unet, self.text = unet, text
        width = unet.config.block_out_channels[-1]
        self.reader = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 1))

    def forward(
        self,
        latents: Tensor,  # [B, C, H, W], noised
        steps: Tensor,  # int64 [B]
        tokens: Tensor,  # int64 [B, T]
    ) -> tuple[Tensor, Tensor]:  # noise [B, C, H, W], layout [B, K, H/2, W/2] as the reader sees it
        middle: list[Tensor] = []
        with self.unet.up_blocks[0].register_forward_hook(lambda _block, _given, out: middle.append(out)):
            noise = self.unet(latents, steps, self.text(tokens).last_hidden_state).sample
        return noise, self.reader(middle[0])


def denoising_loss(
    student: nn.Module,
    latents: Tensor,  # [B, C, H, W], scaled
    tokens: Tensor,  # int64 [B, T]
    layouts: Tensor,  # [B, K, H/2, W/2]
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Weighted mean squared error of the noise, and that of the layout, at stratified steps."""
    count = len(latents)
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    steps = (uniform * TIMESTEPS).long().clamp(max=TIMESTEPS - 1).to(latents.device)
    kept = alphas_cumprod().to(latents.device)[steps][:, None, None, None]
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    guess, seen = student(kept.sqrt() * latents + (1 - kept).sqrt() * noise, steps, tokens)
    weight = (SNR_CAP * (1 - kept) / kept).clamp(max=1)
    return (weight * (guess - noise).square()).mean(), F.mse_loss(seen, layouts)


class Denoising:
    """The task of `engines.shared.training`: denoise what a source of batches hands over."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses, weighted."""
        noise, layout = denoising_loss(student, *beside(student, self.batches.draw(count, generator)), generator)
        return {"noise": noise, "layout": READING * layout}


def hidden(name: str, weight: Tensor) -> bool:
    """Matrices and kernels inside the U-Net; not its first and last, not the time embedding, not the text."""
    outer = ("conv_in", "conv_out", "time_embedding")
    return name.startswith("unet.") and weight.ndim >= 2 and not any(part in name for part in outer)
