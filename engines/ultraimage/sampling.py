"""The denoising loop that all scenarios share, and the two ways a small picture can guide it.

Flow matching by Euler steps on unpacked latents, with whatever positions and focus are installed on the transformer.
A guide may change the latents before a step, the velocity within it, and the result at the end. Knows no prompt, no
VAE and no file; progress, cancelling and checkpoints are the caller's, through `on_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from engines.ultraimage.families import Condition, Family
from engines.ultraimage.guidance import (
    guided_velocity,
    rect_cosine_mask,
    shift_patches,
    unshift_patches,
    view_window,
)
from engines.ultraimage.hooks import Focus, Place
from studio.errors import EngineFailed, InvalidInput


class Guide(Protocol):
    """How a small picture takes part in the sampling of the large one."""

    def before(self, latents: Tensor, step: int, sigma: float) -> Tensor:
        """The latents [B, C, H, W] that the model sees at `step`."""
        ...

    def steer(self, velocity: Tensor, latents: Tensor, step: int, sigma: float) -> Tensor:
        """The velocity [B, C, H, W] that is followed."""
        ...

    def after(self, latents: Tensor) -> Tensor:
        """The finished latents."""
        ...


@dataclass(frozen=True)
class ResolutionGuide:
    """Section 5.3 of the method: low frequencies follow the enlarged small picture, less and less."""

    target: Tensor  # z_g [B, C, H, W], clean, at the target size
    num_steps: int
    level: int = 1
    patch_shift: bool = True

    def before(self, latents: Tensor, step: int, sigma: float) -> Tensor:
        """Even steps see a canvas one latent pixel larger on each side, so that patches fall on other borders."""
        if not self.patch_shift:
            return latents
        return shift_patches(latents) if step % 2 == 0 else unshift_patches(latents)

    def steer(self, velocity: Tensor, latents: Tensor, step: int, sigma: float) -> Tensor:
        """v + w (LP(v_g) - LP(v))."""
        target = shift_patches(self.target) if latents.shape != self.target.shape else self.target
        return guided_velocity(velocity, latents, target, 1000 * sigma, step, self.num_steps, self.level)

    def after(self, latents: Tensor) -> Tensor:
        """An odd number of steps ends on the larger canvas: cut it."""
        return unshift_patches(latents) if latents.shape != self.target.shape else latents


@dataclass(frozen=True)
class ViewGuide:
    """Section 5.4: the small picture holds a window of the canvas for the first steps; the rest is painted around."""

    view: Tensor  # z0_g [B, C, h, w], clean
    noise: Tensor  # e [B, C, h, w], the same at every step
    num_steps: int
    held: int  # steps in which the view is held
    mode: str = "paste"  # paste, masked or velocity
    center: tuple[float, float] = (0.5, 0.5)  # down, across
    inner_ratio: float = 0.6
    schedule: str = "cosine"
    level: int = 1

    def _window(self, latents: Tensor) -> tuple[slice, slice]:
        height, width = self.view.shape[-2:]
        top, left = view_window(*latents.shape[-2:], height, width, *self.center)
        return slice(top, top + height), slice(left, left + width)

    def before(self, latents: Tensor, step: int, sigma: float) -> Tensor:
        """region := (1 - m) region + m ((1 - sigma) z0_g + sigma e), m = 1 when pasting."""
        if step >= self.held or self.mode == "velocity":
            return latents
        rows, columns = self._window(latents)
        noised = ((1 - sigma) * self.view + sigma * self.noise).to(latents.dtype)
        latents = latents.clone()
        region = latents[..., rows, columns]
        if self.mode == "masked":
            mask = rect_cosine_mask(*region.shape[-2:], self.inner_ratio).to(region)
            noised = (1 - mask) * region + mask * noised
        latents[..., rows, columns] = noised
        return latents

    def steer(self, velocity: Tensor, latents: Tensor, step: int, sigma: float) -> Tensor:
        """Guided velocity inside the window, where that is the mode."""
        if step >= self.held or self.mode != "velocity":
            return velocity
        rows, columns = self._window(latents)
        velocity = velocity.clone()
        velocity[..., rows, columns] = guided_velocity(
            velocity[..., rows, columns],
            latents[..., rows, columns],
            self.view,
            1000 * sigma,
            step,
            self.num_steps,
            self.level,
            self.schedule,
        )
        return velocity

    def after(self, latents: Tensor) -> Tensor:
        """Nothing to undo."""
        return latents


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
