"""Low-frequency guidance by a smaller picture: the guided-resolution and guided-view scenarios.

UltraImage (arXiv 2512.04504), appendix, after I-Max: the target's velocity is pulled towards the one that leads to
the guide, in the low frequencies only and less and less; or the guide, noised, is laid into a window of the canvas.
All on unpacked latents. Knows no model, no VAE and no schedule.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # keeps the velocity towards the guide finite at sigma = 0, as published


def haar_lowpass(
    x: Tensor,  # [B, C, H, W]
    level: int = 1,
) -> Tensor:  # [B, C, H, W]
    """The Haar approximation at `level`, details zeroed: the mean of each 2^level cell, repeated.

    An odd side is continued by its last row or column at every level, which is what the wavelet transform does.
    """
    if level == 0:
        return x
    height, width = x.shape[-2:]
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    low = haar_lowpass(F.avg_pool2d(even, 2), level - 1)
    return low.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)[..., :height, :width]


def guidance_weight(step: int, num_steps: int, schedule: str = "half_cosine") -> float:
    """How strongly the guide pulls at `step`, x = step / num_steps.

    `half_cosine` 0.5 (1 + cos pi x) falls from 1 to 0 (guided resolution). The others belong to the guided view as
    published; `cosine` lacks the pi there and falls to 0.77 only.
    """
    x = step / num_steps
    if schedule == "half_cosine":
        return 0.5 * (1 + math.cos(math.pi * x))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(x))
    if schedule == "linear":
        return 1 - x
    if schedule == "exp":
        return math.exp(-5 * x)
    if schedule == "power":
        return (1 - x) ** 2
    if schedule == "logistic":
        return 1 / (1 + math.exp(10 * (x - 0.5)))
    raise ValueError(f"weight schedule {schedule!r}: half_cosine, cosine, linear, exp, power or logistic")


def guided_velocity(
    velocity: Tensor,  # [B, C, H, W], the model's
    latents: Tensor,  # [B, C, H, W], z at this step
    guidance: Tensor,  # [B, C, H, W], z_g, clean
    timestep: float,  # 1000 sigma
    step: int,
    num_steps: int,
    level: int = 1,
    schedule: str = "half_cosine",
) -> Tensor:  # [B, C, H, W]
    """v' = v + w (LP(v_g) - LP(v)) with v_g = -(z_g - z) / (sigma + 1e-6)."""
    towards = -(guidance - latents) / (timestep / 1000 + EPSILON)
    weight = guidance_weight(step, num_steps, schedule)
    return velocity + weight * (haar_lowpass(towards, level) - haar_lowpass(velocity, level))


def rect_cosine_mask(height: int, width: int, inner_ratio: float = 0.6) -> Tensor:
    """[height, width]: 1 within `inner_ratio` of the half sides, a cosine down to 0 at the border, lesser axis."""
    return torch.minimum(_edge_weight(height, inner_ratio)[:, None], _edge_weight(width, inner_ratio)[None, :])


def _edge_weight(length: int, inner_ratio: float) -> Tensor:
    distance = torch.linspace(-1, 1, length).abs()
    if inner_ratio >= 1:
        return torch.ones_like(distance)
    fall = ((distance - inner_ratio) / (1 - inner_ratio)).clamp(0.0, 1.0)
    return 0.5 * (1 + torch.cos(math.pi * fall))


def view_window(
    latent_height: int,
    latent_width: int,
    guide_height: int,
    guide_width: int,
    center_y: float = 0.5,  # of the canvas, 0 top .. 1 bottom
    center_x: float = 0.5,  # 0 left .. 1 right
) -> tuple[int, int]:  # top, left of the guide on the canvas
    """Where the guide lies, kept inside the canvas (the published code swaps the axes of oblong canvases)."""
    return (
        _start(latent_height, guide_height, center_y),
        _start(latent_width, guide_width, center_x),
    )


def _start(canvas: int, guide: int, center: float) -> int:
    return min(max(int(center * canvas) - guide // 2, 0), canvas - guide)


def shift_patches(x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H + 2, W + 2]
    """One latent pixel of zeros on each side, so that patches fall on other borders; `unshift_patches` undoes it."""
    return F.pad(x, (1, 1, 1, 1))


def unshift_patches(x: Tensor) -> Tensor:  # [B, C, H + 2, W + 2] -> [B, C, H, W]
    """Take the border of `shift_patches` off again."""
    return x[..., 1:-1, 1:-1]
