"""The two ways a small picture takes part in the sampling of a large one, step by step.

Guided resolution and guided view of UltraImage (arXiv 2512.04504, appendix), made of the functions of `guidance.py`.
All on unpacked latents. Knows no model and no VAE; where the small picture comes from is the caller's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engines.ultraimage.guidance import (
    guided_velocity,
    rect_cosine_mask,
    shift_patches,
    unshift_patches,
    view_window,
)


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
