"""What a thief may do to pictures first, hoping that a protection does not survive it.

RID (arXiv 2412.09844), robustness experiments: JPEG, resizing, blur, noise, and a diffusion model that redraws the
picture a little (DiffPure-like, Nie et al. 2022); and, ours, a balance of colours, against casts. What each leaves of
a perturbation can be measured without a thief. All pictures in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from engines.rid.levels import opened, stored
from engines.rid.portrait import jpeg_roundtrip
from engines.rid.quality import survival
from engines.rid.surrogate import Diffusion

NOISE = 0.05  # deviation, on a scale from 0 to 1
STRENGTH, STEPS = 0.1, 50  # of the redrawing: share of the schedule, and steps of all of it


def purified(
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    way: str,
    *,
    model: Diffusion,
    prompt: str,  # with which a picture is redrawn
    guidance: float,
    generator: torch.Generator,
) -> Tensor:  # [B, 3, S, S] in [-1, 1]
    """The pictures after one of WAYS or "diffusion", or for "none" as they are. Raises ValueError for another."""
    if way == "none":
        return pictures
    if way == "diffusion":
        return redrawn(pictures, model, generator, prompt=prompt, guidance=guidance)
    if way not in WAYS:
        raise ValueError(f"no purification is called {way!r}")
    return WAYS[way](pictures, generator).clamp(-1, 1)


def _jpeg(quality: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    def through(pictures: Tensor, generator: torch.Generator) -> Tensor:
        after = np.stack([jpeg_roundtrip(picture, quality) for picture in stored(pictures)])
        return opened(after).to(pictures)

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


def _balanced(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Channels scaled to equal means, as cameras balance white: on average the world is taken to be grey."""
    levels = (pictures + 1) / 2
    means = levels.mean(dim=(2, 3), keepdim=True).clamp_min(1 / 255)
    return 2 * levels * means.mean(dim=1, keepdim=True) / means - 1


WAYS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "jpeg75": _jpeg(75),
    "jpeg50": _jpeg(50),
    "resize": _smaller,
    "blur": _blurred,
    "noise": _grainy,
    "balance": _balanced,
}


@torch.no_grad()
def redrawn(
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    model: Diffusion,
    generator: torch.Generator,
    *,
    prompt: str,
    guidance: float,
    strength: float = STRENGTH,
) -> Tensor:  # [B, 3, S, S] in [-1, 1]
    """Noised to `strength` of the schedule and denoised again with a prompt: image to image, as RID's test has it."""
    how = {"set_alpha_to_one": False, "clip_sample": False, "prediction_type": "epsilon"}  # as `predict` says it
    scheduler = DDIMScheduler.from_config(model.scheduler.config, **how)
    scheduler.set_timesteps(STEPS, device=model.alphas_cumprod.device)
    timesteps = scheduler.timesteps[STEPS - max(1, round(strength * STEPS)) :]
    latents = model.encode(pictures)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    latents = scheduler.add_noise(latents, noise, timesteps[:1])
    words = model.embed([prompt, ""]).repeat_interleave(len(pictures), dim=0)
    for timestep in timesteps:
        asked, empty = model.predict(latents.repeat(2, 1, 1, 1), timestep.expand(len(words)), words).chunk(2)
        latents = scheduler.step(empty + guidance * (asked - empty), timestep, latents).prev_sample
    return model.decode(latents)


@dataclass(frozen=True)
class Left:
    """What a purification leaves of a perturbation."""

    energy: float  # share of the perturbation's energy, 0 .. 1
    correlation: float  # of what is left with what was put in, 0 .. 1
    latents: float  # how far latents are still moved, over how far they were; 0 where they were not


@torch.no_grad()
def left(
    clean: Tensor,  # [B, 3, S, S] in [-1, 1]
    protected: Tensor,  # [B, 3, S, S] in [-1, 1]
    way: str,
    *,
    model: Diffusion,
    prompt: str,
    guidance: float,
    stream: Callable[[], torch.Generator],  # the same randomness each time
) -> Left:
    """Means over pictures. Both are treated alike, so that what comes by chance cancels out.

    Noise thus takes nothing away: it can only drown a perturbation, which a theft shows and this does not.
    """
    how: dict[str, Any] = {"model": model, "prompt": prompt, "guidance": guidance}
    after = [purified(pictures, way, generator=stream(), **how) for pictures in (clean, protected)]
    numbers = [survival(*four) for four in zip(*(stored(part) for part in (clean, protected, *after)), strict=True)]
    energy, correlation = np.mean(numbers, axis=0)
    before, still = (float((model.encode(b) - model.encode(a)).norm()) for a, b in ((clean, protected), after))
    return Left(float(energy), float(correlation), still / before if before else 0.0)
