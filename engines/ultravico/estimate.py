"""What a run will cost, from sizes alone: floating-point operations, bytes, and the memory plan that fits.

A forward pass costs 2 P N for the weights and 4 N^2 c per layer for attention (N tokens, P parameters, c channels);
decayed attention by whole rows costs a factor more than a fused kernel. Knows no torch; the speed of a device comes
from stored timings, else from a cautious guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.ultravico.presets import ModelPreset

SPEED = {"cpu": 0.05, "cuda": 200.0}  # TFLOP/s before the first timing of this device
DECAYED = {"cpu": 2.0, "cuda": 1.22}  # attention with decay over PyTorch's own; benchmarks/ultravico_attention.py
SLACK = 0.35 * 2**30  # bytes: runtime, allocator, encoder
TILE = 256  # pixels a side of a decoding tile
PLANS = ("fast", "tiled", "thrifty")  # thrifty: tiles, small attention blocks, and one network at a time
BUFFER = 64 * 2**20  # bytes of logits that stripes hold, or one head's rows if these are more
ROWS = {"fast": 128, "tiled": 128, "thrifty": 64}  # query rows of one attention block; 128 are the fastest
DEVICE_SHARE = 0.92  # of a device's memory that one run may plan with


@dataclass(frozen=True)
class Job:
    """The sizes that decide the cost of a run."""

    model: ModelPreset
    height: int  # pixels
    width: int
    latent_frames: int
    frames: int
    steps: int
    decays: tuple[bool, ...]  # for each method, whether its attention decays
    two_branches: bool  # classifier-free guidance with a second pass

    @property
    def tokens(self) -> int:
        """Joint sequence length."""
        cell = self.model.pixels_per_token
        return self.model.text_tokens + self.latent_frames * (self.height // cell) * (self.width // cell)


def forward_flop(model: ModelPreset, tokens: int, decays: bool, kind: str) -> float:
    """Floating-point operations of one pass through the transformer."""
    attention = 4 * tokens**2 * model.channels * model.layers
    return 2 * model.parameters * tokens + attention * (DECAYED.get(kind, DECAYED["cpu"]) if decays else 1)


def work(job: Job, kind: str) -> float:
    """TFLOP of the whole run, decoding included."""
    passes = job.steps * (2 if job.two_branches else 1)
    decode = job.model.vae_flop_per_pixel * job.height * job.width * job.frames
    return sum(passes * forward_flop(job.model, job.tokens, decays, kind) + decode for decays in job.decays) / 1e12


def seconds(job: Job, kind: str, speed: float | None) -> float:
    """How long the run takes on a device."""
    return work(job, kind) / (speed or SPEED.get(kind, SPEED["cpu"]))


def memory(job: Job, plan: str, kind: str) -> int:
    """Peak bytes of the run under a memory plan on a kind of device; a GPU's kernel holds no logits."""
    model = job.model
    size = 2 if model.dtype in ("bfloat16", "float16") else 4
    transformer, text = model.parameters * size, model.text_parameters * size
    branches = 2 if job.two_branches and model.family == "cogvideox" else 1  # its pipeline runs both at once
    activations = branches * job.tokens * model.channels * size * 16  # hidden states, q k v, MLP, and their copies
    logits = 0 if kind == "cuda" else 2 * max(BUFFER, 4 * ROWS[plan] * job.tokens)
    tile = job.height * job.width if plan == "fast" else min(job.height * job.width, TILE * TILE)
    pixels = job.height * job.width * job.frames
    decode = model.vae_bytes_per_pixel * tile + 3 * pixels * 4 * 2  # decoded as floats, and joined once
    busy = max(activations + logits, decode)
    resident = max(transformer, text) if plan == "thrifty" else transformer + text
    return int(resident + busy + 2 * 3 * pixels * len(job.decays) + SLACK)


def fitting_plan(job: Job, budget: float, kind: str) -> str | None:
    """The fastest plan whose peak stays within `budget` bytes, or None."""
    return next((plan for plan in PLANS if memory(job, plan, kind) <= budget), None)


def longest_fitting(job: Job, budget: float, kind: str) -> int | None:
    """The most latent frames, at least the training length, that fit the thriftiest plan; None if none do."""
    step, trained = job.model.frames_per_latent, job.model.train_latent_frames
    for latent in range(job.latent_frames, trained - 1, -1):
        shorter = replace(job, latent_frames=latent, frames=step * (latent - 1) + 1)
        if memory(shorter, PLANS[-1], kind) <= budget:
            return latent
    return None
