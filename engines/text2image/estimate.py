"""What a run will cost, from sizes alone: floating-point operations and bytes.

Knows no torch; the speed of a device comes from stored timings, else from a cautious guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.text2image.presets import ModelPreset
from studio.contract import DeviceFacts

if TYPE_CHECKING:
    from engines.text2image.spec import Text2ImageParams

SPEED = {"cpu": 0.03, "cuda": 40.0}  # TFLOP/s before the first timing of this device
SLACK = 0.3 * 2**30  # bytes: runtime, allocator, pictures
WORLD = 0.002  # TFLOP that a rendered picture of the world counts for
LAYERS = 9  # pictures of 64 px that the large render of the layers counts for
CANDIDATES = 16  # training pictures that are rendered to find the nearest


def work(model: ModelPreset, params: Text2ImageParams) -> float:
    """TFLOP of the whole run."""
    branches = 2 if params.guidance > 1 else 1
    drawn = (branches * params.steps * model.step_flop + model.decode_flop) / 1e12
    shown = ("model" in params.methods) * drawn + ("world" in params.methods) * WORLD * (1 + LAYERS * params.layers)
    return params.count * (shown + params.nearest * len(params.methods) * CANDIDATES * WORLD)


def seconds(tflop: float, facts: DeviceFacts) -> float:
    """How long so much work takes on a device."""
    return tflop / (facts.speed or SPEED.get(facts.kind, SPEED["cpu"]))


def memory(model: ModelPreset, kind: str) -> int:
    """Peak bytes of a run."""
    size = 2 if kind != "cpu" and model.dtype == "float16" else 4
    return int(model.parameters * size + model.activations * size / 4 + SLACK)
