"""Measuring every head once, at the target size and full noise, so that concentration knows which ones are local.

Section 4.2 of the method. One pass per branch with the corrected positions installed; what is kept is one entropy per
branch, layer and head, a few kilobytes. By default it is measured on the model's own calibration prompt with seed 0,
so that it depends on nothing but model, size and positions and can be shared between jobs without changing a result;
head roles are stable over prompts. Otherwise it is measured on the very prompt and noise of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engines.ultraimage.families import Condition, Family
from engines.ultraimage.hooks import Measure, Rule, Sample, Seen, measured, positions
from engines.ultraimage.methods import SAMPLED_SHARE, entropy_measure, focus_table, proportional_table
from engines.ultraimage.pipeline import Weights
from engines.ultraimage.presets import METHODS
from engines.ultraimage.sampling import draw_noise
from engines.ultraimage.spec import UltraImageParams
from studio.contract import Context

NOISE_SEED = 0
FULL_NOISE = 1000.0  # timestep


@torch.no_grad()
def head_entropies(
    family: Family,
    transformer: nn.Module,
    noise: Tensor,  # [B, C, H, W] at the target size
    conditions: Sequence[Condition],
    scale: float,
    rule: Rule | None,
    measure: tuple[Measure, Sample | None],
) -> Tensor:  # [branches, layers, heads] float64, nats
    """The first step of the run with plain attention, as far as the last layer's queries and keys."""
    time = torch.tensor(FULL_NOISE, device=noise.device)
    with positions(transformer, rule) as place, measured(transformer, *measure, stop=True) as found:
        if place is not None:
            place.at(noise.shape[-2] // 2, noise.shape[-1] // 2, 1.0)
        for condition in conditions:
            with suppress(Seen):
                family.velocity(transformer, noise, time, [condition], scale)
    entropies = torch.stack([entropy.mean(dim=0).double().cpu() for entropy in found])  # over the batch
    return entropies.unflatten(0, (len(conditions), -1))


@dataclass
class Heads:
    """Which heads a method sharpens at one target size, and by how much."""

    ctx: Context
    weights: Weights
    params: UltraImageParams
    size: tuple[int, int]  # width, height in pixels
    conditions: Sequence[Condition]  # what heads are measured on
    stream: torch.Generator  # of the noise they are measured on
    announce: Callable[[], None]  # called before a measurement

    def table(self, method: str, transformer: nn.Module, rule: Rule | None) -> Tensor | None:
        """Lambda [branches, layers, heads], or None where attention stays plain: by choice, or nothing to repair."""
        family, model = self.weights.family, self.weights.source
        kind = METHODS[method].attention
        sequence = self.conditions[0].tokens + (self.size[0] // family.cell) * (self.size[1] // family.cell)
        if kind == "proportional":
            return proportional_table(model, sequence, family.layers, family.heads, family.head_dim)
        if kind == "plain" or sequence <= model.attention_sequence:
            return None
        return focus_table(self.entropies(method, transformer, rule), self.params, model, sequence)

    def entropies(self, method: str, transformer: nn.Module, rule: Rule | None) -> Tensor:
        """Of every head: remembered from an earlier job where that cannot change the result, else measured."""
        shared, key = self.params.reuse_calibration, self._key(method)
        kept = self.ctx.cache(key) if shared else None
        if kept is not None:
            return kept["entropies"]
        self.announce()
        family = self.weights.family
        noise = draw_noise(family.latent_shape(*self.size), self.stream, like=self.conditions[0].embeds)
        found = head_entropies(
            family, transformer, noise, self.conditions, self.params.guidance, rule, entropy_measure(self.params)
        )
        self.ctx.check()
        if shared:
            self.ctx.store_cache(key, {"entropies": found})
        return found

    def _key(self, method: str) -> str:
        """A name that holds everything a shared calibration depends on."""
        p, model = self.params, self.weights.source
        facts: dict[str, Any] = {
            "model": (self.weights.repo, self.weights.revision, model.dtype, self.ctx.device.split(":")[0]),
            "size": self.size,
            "positions": (METHODS[method].position, p.margin, p.correction, p.indices, model.observed),
            "entropy": (p.lambda_preset, SAMPLED_SHARE),
            "prompt": model.calibration_prompt,
            "branches": len(self.conditions),
            "guidance": p.guidance if self.weights.family.distilled else None,
        }
        return "ultraimage-heads-" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
