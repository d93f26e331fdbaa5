"""The 2D playground: particles that are pictures, so that the algorithms are compared with no renderer between.

ProlificDreamer (arXiv 2305.16213), section 3.3 and figure 3, compares them so. Nothing is rendered; no side is told.
Knows neither jobs nor files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from engines.prolificdreamer.distillation import Distiller, load_optimiser, optimiser_state
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.vsd import gradient_loss

ANCESTRAL_STEPS = 50


@dataclass(frozen=True)
class PlaygroundConfig:
    """Pictures as particles."""

    steps: int = 500
    particles: int = 8
    rate: float = 0.03
    start: float = 1.0  # deviation of the latents before the first step
    warmup_share: float = 0.05  # of the steps over which the rate rises; it falls as a cosine afterwards


class PlaygroundStage:
    """n latent pictures under one guidance, moved all at once."""

    name = "playground"
    title = "playground"

    def __init__(self, config: PlaygroundConfig, distiller: Distiller, streams: Streams, device: str) -> None:
        self.config, self.distiller, self.streams = config, distiller, streams
        self.steps, self.pace = config.steps, 1.0
        teacher = distiller.teacher
        shape = (config.particles, teacher.channels, teacher.cells, teacher.cells)
        start = config.start * torch.randn(shape, generator=streams.at("start"))
        self.latents = start.to(device).requires_grad_()
        self.optimiser = torch.optim.AdamW([self.latents], lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, index: int) -> dict[str, float]:
        """One step of every particle, and one of phi on all of them."""
        push = self.distiller.push(self.latents.detach(), None, index, self.streams)
        self.optimiser.param_groups[0]["lr"] = self.rate_at(index)
        self.optimiser.zero_grad(set_to_none=True)
        # Each particle is its own picture: the mean over the batch is undone.
        (len(self.latents) * gradient_loss(self.latents, push.gradient)).backward()
        self.optimiser.step()
        self.distiller.pace = self.pace
        loss = self.distiller.learn(self.latents.detach(), None, index, self.streams)
        return push.told if loss is None else {**push.told, "phi": loss}

    def rate_at(self, index: int) -> float:
        """Warm-up, then a cosine to zero."""
        c = self.config
        warm = max(1, round(c.warmup_share * self.steps))
        if index < warm:
            return self.pace * c.rate * (index + 1) / warm
        done = (index - warm) / max(1, self.steps - warm)
        return self.pace * c.rate * 0.5 * (1 + math.cos(math.pi * done))

    def pictures(self) -> Tensor:  # [n, 3, S, S], not clamped
        """The particles, decoded."""
        return self.distiller.teacher.decode(self.latents.detach())

    def healthy(self) -> bool:
        """Whether every number of the particles and of phi is one."""
        return bool(torch.isfinite(self.latents).all()) and self.distiller.healthy()

    def state(self) -> dict[str, Any]:
        """Everything that following steps depend on."""
        return {
            "pace": self.pace,
            "latents": self.latents.detach().clone(),
            "optimiser": optimiser_state(self.optimiser),
            "distiller": self.distiller.state(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.pace = float(state["pace"])
        self.latents.copy_(state["latents"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.distiller.load(state["distiller"])


@torch.no_grad()
def ancestral_samples(
    teacher: Teacher,
    scheduler: dict[str, Any],  # the configuration of the teacher's folder
    wording: Wording,
    scale: float,
    count: int,
    generator: torch.Generator,
    steps: int = ANCESTRAL_STEPS,
) -> Tensor:  # [count, C, h, w]
    """What the teacher draws from noise by itself, with fresh noise at every step (DDIM with eta 1)."""
    sampler = DDIMScheduler.from_config({**scheduler, "clip_sample": False, "steps_offset": 1})
    sampler.set_timesteps(steps)
    shape = (count, teacher.channels, teacher.cells, teacher.cells)
    x = torch.randn(shape, generator=generator).to(teacher.device)
    texts = [teacher.text([text] * count) for text in (wording.negative, wording.plain)]
    kind = teacher.prediction_type
    for now in sampler.timesteps.tolist():
        t = torch.full((count,), now, device=x.device)
        uncond, cond = teacher.epsilon(x, t, texts)
        guided = uncond + scale * (cond - uncond)
        if kind == "v_prediction":  # the sampler was made for what the network predicts
            abar = teacher.alphas_cumprod[now]
            guided = (guided - (1 - abar).sqrt() * x) / abar.sqrt()
        noise = torch.randn(shape, generator=generator).to(x)
        x = sampler.step(guided, now, x, eta=1.0, variance_noise=noise).prev_sample
    return x
