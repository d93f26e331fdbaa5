"""What a run will cost, from sizes alone: floating-point operations, bytes, and the memory plan that fits.

A forward pass costs 2 P N for the weights and 4 N^2 c per layer for attention (N tokens, P parameters, c channels).
Knows no torch; the speed of a device comes from stored timings, else from a cautious guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engines.ultraimage.presets import METHODS, ModelPreset

SPEED = {"cpu": 0.06, "cuda": 250.0}  # TFLOP/s before the first timing of this device
SLACK = 0.3 * 2**30  # bytes: runtime, allocator, images
TILE = 1024  # pixels a side of a decoding tile
PLANS = ("fast", "tiled", "thrifty")
DEVICE_SHARE = 0.92  # of a device's memory that one run may plan with


@dataclass(frozen=True)
class Job:
    """The sizes that decide the cost of a run."""

    model: ModelPreset
    height: int  # pixels
    width: int
    steps: int
    methods: tuple[str, ...]
    guided: bool  # a guide is sampled at the base size first
    two_branches: bool  # classifier-free guidance with a second pass

    def tokens(self, height: int, width: int) -> int:
        """Joint sequence length at a size in pixels."""
        cell = self.model.pixels_per_token
        return self.model.text_tokens + (height // cell) * (width // cell)


def forward_flop(model: ModelPreset, tokens: int) -> float:
    """Floating-point operations of one pass through the transformer."""
    return 2 * model.parameters * tokens + 4 * tokens**2 * model.width * model.layers


def work(job: Job) -> float:
    """TFLOP of the whole run, calibration and decoding included."""
    branches = 2 if job.two_branches else 1
    once = forward_flop(job.model, job.tokens(job.height, job.width)) * branches
    decode = job.model.vae_flop_per_pixel * job.height * job.width
    total = sum(once * (job.steps + (METHODS[m].attention == "focused")) + decode for m in job.methods)
    if job.guided:
        side = job.model.base_pixels
        total += forward_flop(job.model, job.tokens(side, side)) * branches * job.steps
        total += 3 * decode  # the guide is decoded, resized and encoded at the target size
    return total / 1e12


def seconds(job: Job, kind: str, speed: float | None) -> float:
    """How long the run takes on a device."""
    return work(job) / (speed or SPEED.get(kind, SPEED["cpu"]))


def memory(job: Job, plan: str) -> int:
    """Peak bytes of the run under a memory plan."""
    size = 2 if job.model.dtype in ("bfloat16", "float16") else 4
    tokens = job.tokens(job.height, job.width)
    transformer = job.model.parameters * size
    text = job.model.text_parameters * size
    activations = tokens * job.model.width * size * 16  # hidden states, q k v, MLP of 4x, and their copies
    calibration = 3 * 4 * 128 * tokens * (job.model.width // 64)  # one chunk of logits, fp32
    pixels = job.height * job.width
    if plan != "fast":
        pixels = min(pixels, TILE * TILE)
    decode = job.model.vae_bytes_per_pixel * pixels + 24 * job.height * job.width
    busy = max(activations + calibration, decode)
    resident = max(transformer, text) if plan == "thrifty" else transformer + text
    return int(resident + busy + SLACK)


def fitting_plan(job: Job, budget: float) -> str | None:
    """The fastest plan whose peak stays within `budget` bytes, or None."""
    return next((plan for plan in PLANS if memory(job, plan) <= budget), None)


def largest_fitting(job: Job, budget: float) -> tuple[int, int] | None:
    """The largest (width, height) of the same shape that fits the thriftiest plan; None if no size does."""
    cell = job.model.pixels_per_token

    def fits(width: int, height: int) -> bool:
        return memory(replace(job, width=width, height=height), PLANS[-1]) <= budget

    common = math.gcd(job.width // cell, job.height // cell)
    for part in range(common * 16, 0, -1):
        share = part / (common * 16)
        width, height = (int(side * share) // cell * cell for side in (job.width, job.height))
        if min(width, height) >= 4 * cell and fits(width, height):
            return width, height
    return None
