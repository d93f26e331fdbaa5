"""What a thief of each way holds in memory; the pocket model's sizes are those of the files."""

from __future__ import annotations

import math

import pytest
from safetensors import safe_open

from engines.rid.presets import SURROGATES
from engines.shared.sources import ASSETS


def test_the_sizes_of_the_pocket_model_are_true():
    folder, counted = ASSETS / "pocket" / "portraits", {}
    for name, part in (("unet", "unet"), ("text", "text_encoder"), ("vae", "vae")):
        (path,) = (folder / part).glob("*.safetensors")
        with safe_open(path, "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118, no mapping
        counted[name] = sum(math.prod(shape) for shape in shapes.values())
        for key, shape in shapes.items():
            if "token_embedding" in key:
                counted["embedding"] = math.prod(shape)
    assert SURROGATES["pocket"].parameters == pytest.approx(counted, rel=0.05)


def test_a_thief_on_stable_diffusion_needs_a_large_card():
    published = SURROGATES["sd21"]
    assert published.theft_memory("full") == pytest.approx(24.5e9, rel=0.01)
    assert 9e9 < published.theft_memory("inversion") < published.theft_memory("lora") < 12e9
    assert SURROGATES["pocket"].theft_memory("full") < 1e8
