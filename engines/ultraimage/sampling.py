"""The denoising loop that all scenarios share.

Flow matching by Euler steps on unpacked latents, with whatever positions and focus are installed on the transformer.
A guide may change the latents before a step, the velocity within it, and the result at the end. Knows no prompt, no
VAE and no file; progress, cancelling and checkpoints are the caller's, through `on_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from engines.ultraimage.families import Condition, Family
from engines.ultraimage.guides import Guide
from engines.ultraimage.hooks import Focus, Place
from studio.errors import EngineFailed, InvalidInput


def draw_noise(shape: tuple[int, int, int], generator: torch.Generator, like: Tensor) -> Tensor:  # [1, C, H, W]
    """Noise of a CPU generator on the device and in the type of `like`; the same numbers on every device."""
    return randn_tensor((1, *shape), generator=generator, device=like.device, dtype=like.dtype)


def scheduler_for(
    config: Any,  # of the checkpoint's FlowMatchEulerDiscreteScheduler
    steps: int,
    shift: float | None,  # None: the checkpoint's own schedule
    image_tokens: int,
    device: str = "cpu",
) -> FlowMatchEulerDiscreteScheduler:
    """A scheduler of our own, ready to step; the shared one is never changed.

    A new object, because assigning `config.shift` has no effect: the scheduler keeps the shift it was made with.
    """
    changes = {} if shift is None else {"use_dynamic_shifting": False, "shift": shift}
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, **changes)
    sigmas = None if scheduler.config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
    mu = calculate_shift(
        image_tokens,
        scheduler.config.get("base_image_seq_len", 256),
        scheduler.config.get("max_image_seq_len", 4096),
        scheduler.config.get("base_shift", 0.5),
        scheduler.config.get("max_shift", 1.15),
    )
    scheduler.set_timesteps(None if sigmas is not None else steps, device=device, sigmas=sigmas, mu=mu)
    if not torch.isfinite(scheduler.sigmas).all():
        raise InvalidInput(
            f"The checkpoint's schedule is not defined for {steps} step.",
            "Use at least 2, or a shift.",
            field="steps",
        )
    return scheduler


OnStep = Callable[[int, Tensor, Tensor], None]  # steps done, latents, predicted clean latents


@torch.no_grad()
def denoise(
    family: Family,
    transformer: nn.Module,
    scheduler: FlowMatchEulerDiscreteScheduler,
    latents: Tensor,  # [B, C, H, W], noise, or what was reached at `start`
    conditions: Sequence[Condition],
    scale: float,
    on_step: OnStep,
    *,
    start: int = 0,
    place: Place | None = None,
    focus: Focus | None = None,
    guide: Guide | None = None,
) -> Tensor:  # [B, C, H, W], clean
    """Euler steps from noise to a picture's latents."""
    scheduler.set_begin_index(start)
    for step in range(start, len(scheduler.timesteps)):
        timestep = scheduler.timesteps[step]
        sigma = float(scheduler.sigmas[step])
        if guide is not None:
            latents = guide.before(latents, step, sigma)
        if place is not None:
            place.at(latents.shape[-2] // 2, latents.shape[-1] // 2, sigma)
        velocity = family.velocity(transformer, latents, timestep, conditions, scale, focus)
        if guide is not None:
            velocity = guide.steer(velocity, latents, step, sigma)
        clean = latents - sigma * velocity
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        on_step(step + 1, latents, clean)
    if not torch.isfinite(latents).all():  # it would decode to black without a word
        raise EngineFailed("The sampling left the range of numbers.", "Lower the guidance or the sharpening.")
    return latents if guide is None else guide.after(latents)
