"""What a thief may do to pictures first, hoping that a protection does not survive it.

RID (arXiv 2412.09844), robustness experiments: JPEG, resizing, blur, noise, and a diffusion model that redraws the
picture a little (DiffPure-like, Nie et al. 2022). All pictures in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from engines.rid.portrait import jpeg_roundtrip
from engines.rid.surrogate import Diffusion

NOISE = 0.05  # deviation, on a scale from 0 to 1
STRENGTH, STEPS = 0.1, 50  # of the redrawing: share of the schedule, and steps of all of it


def purified(
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    way: str,
    *,
    model: Diffusion,
    generator: torch.Generator,
) -> Tensor:  # [B, 3, S, S] in [-1, 1]
    """The pictures after one of WAYS, or as they are. Raises ValueError for another."""
    if way == "none":
        return pictures
    if way == "diffusion":
        return redrawn(pictures, model, generator)
    if way not in WAYS:
        raise ValueError(f"no purification is called {way!r}")
    return WAYS[way](pictures, generator).clamp(-1, 1)


def _jpeg(quality: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    def through(pictures: Tensor, generator: torch.Generator) -> Tensor:
        levels = ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        after = torch.stack([torch.from_numpy(jpeg_roundtrip(picture, quality).copy()) for picture in levels])
        return (after.permute(0, 3, 1, 2).float() / 127.5 - 1).to(pictures)

    return through


def _smaller(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half the size and back."""
    side = pictures.shape[-1]
    half = F.interpolate(pictures, (side // 2, side // 2), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(half, (side, side), mode="bicubic", antialias=True, align_corners=False)


def _blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian of one pixel."""
    line = torch.exp(-(torch.arange(-3, 4).to(pictures) ** 2) / 2)
    kernel = (torch.outer(line, line) / line.sum() ** 2).expand(3, 1, 7, 7)
    return F.conv2d(F.pad(pictures, (3, 3, 3, 3), mode="replicate"), kernel, groups=3)


def _grainy(pictures: Tensor, generator: torch.Generator) -> Tensor:
    return pictures + 2 * NOISE * torch.randn(pictures.shape, generator=generator).to(pictures)


WAYS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "jpeg75": _jpeg(75),
    "jpeg50": _jpeg(50),
    "resize": _smaller,
    "blur": _blurred,
    "noise": _grainy,
}


@torch.no_grad()
def redrawn(pictures: Tensor, model: Diffusion, generator: torch.Generator, strength: float = STRENGTH) -> Tensor:
    """Noised to `strength` of the schedule and denoised again without a prompt."""
    how = {"set_alpha_to_one": False, "clip_sample": False, "prediction_type": "epsilon"}  # as `predict` says it
    scheduler = DDIMScheduler.from_config(model.scheduler.config, **how)
    scheduler.set_timesteps(STEPS, device=model.alphas_cumprod.device)
    timesteps = scheduler.timesteps[STEPS - max(1, round(strength * STEPS)) :]
    latents = model.encode(pictures)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    latents = scheduler.add_noise(latents, noise, timesteps[:1])
    words = model.embed([""]).expand(len(pictures), -1, -1)
    for timestep in timesteps:
        predicted = model.predict(latents, timestep.expand(len(pictures)), words)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return model.decode(latents)
