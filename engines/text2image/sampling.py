"""From noise to a picture: the Stable Diffusion pipeline of diffusers on borrowed parts, with a sampler of choice.

The pipeline is the published one and is not changed; it is put together for one picture and thrown away. Every
picture is drawn on its own, so that its bytes depend on its seed and not on what else was asked for. Knows no page,
no store and no metric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from engines.text2image.presets import SAMPLERS
from studio.errors import EngineFailed

OnStep = Callable[[int], None]  # steps done


def scheduler_for(config: Any, sampler: str) -> Any:
    """A scheduler of our own on the checkpoint's noise schedule; the shared one is never changed."""
    about = SAMPLERS[sampler]
    return getattr(diffusers, about.scheduler).from_config(config, **about.options)


@torch.no_grad()
def draw(
    parts: dict[str, Any],  # the components by name
    sampler: str,
    prompt: str,
    negative_prompt: str,
    side: int,  # pixels
    steps: int,
    guidance: float,
    generator: torch.Generator,
    on_step: OnStep,
) -> np.ndarray:  # uint8 [side, side, 3]
    """One picture."""
    pipeline = StableDiffusionPipeline(
        **{**parts, "scheduler": scheduler_for(parts["scheduler"].config, sampler)},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)

    def after(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return tensors

    picture = pipeline(
        prompt,
        negative_prompt=negative_prompt,
        height=side,
        width=side,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generator,
        output_type="np",
        callback_on_step_end=after,
    ).images[0]
    if not np.isfinite(picture).all():  # it would be stored as black without a word
        raise EngineFailed("The sampling left the range of numbers.", "Lower the guidance.")
    return (picture * 255).round().astype(np.uint8)
