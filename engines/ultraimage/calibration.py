"""Measuring every head once, at the target size and full noise, so that concentration knows which ones are local.

Section 4.2 of the method. One pass per branch with the corrected positions installed; what is kept is one entropy per
branch, layer and head, a few kilobytes. By default it is measured on the model's own calibration prompt with seed 0,
so that it depends on nothing but model, size and positions and can be shared between jobs without changing a result;
head roles are stable over prompts. Otherwise it is measured on the very prompt and noise of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engines.ultraimage.families import Condition, Family
from engines.ultraimage.hooks import Measure, Rule, measured, positions

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
    measure: Measure,
) -> Tensor:  # [branches, layers, heads] float64, nats
    """The first step of the run with plain attention, looked at."""
    with positions(transformer, rule) as place, measured(transformer, measure) as found:
        if place is not None:
            place.at(noise.shape[-2] // 2, noise.shape[-1] // 2, 1.0)
        family.velocity(transformer, noise, torch.tensor(FULL_NOISE, device=noise.device), conditions, scale)
    entropies = torch.stack([entropy.mean(dim=0).double().cpu() for entropy in found])  # over the batch
    return entropies.unflatten(0, (len(conditions), -1))


def cache_key(**facts: Any) -> str:
    """A name for a calibration that holds everything it depends on."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return "ultraimage-heads-" + hashlib.sha256(text.encode()).hexdigest()[:32]
