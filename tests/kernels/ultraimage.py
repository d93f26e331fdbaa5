"""The adapters of UltraImage."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from engines.ultraimage import concentration, dype, frequency, guidance, rope, schedule
from tests.kernels.adapters import Adapter, Arrays, returns, tensors


def corrected_frequencies(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    freqs = frequency.corrected_frequencies(**kwargs)
    results = {"freqs": freqs}
    if "positions" in inputs:
        cos, sin = rope.flux_table(tensors(inputs)["positions"][:, None], [freqs])
        results |= {"cos": cos[:, ::2], "sin": sin[:, ::2]}
    return results


def recursive_correction(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    freqs, indices = frequency.recursive_correction(**kwargs, **inputs)
    return {"freqs": freqs, "indices": np.array(indices, dtype=np.int64)}


def qwen_rope_table(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    image, text = rope.qwen_rope_table(**kwargs)
    return {
        "image_real": image.real,
        "image_imag": image.imag,
        "text_real": text.real,
        "text_imag": text.imag,
    }


def block_attention_mass(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    mass = concentration.block_attention_mass(**tensors(inputs), **kwargs)
    row, head = concentration.block_entropy(mass, **{k: v for k, v in kwargs.items() if k == "block_size"})
    return {"mass": mass, "row_entropy": row, "head_entropy": head}


def guided_velocity(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    weighing = {k: v for k, v in kwargs.items() if k in ("step", "num_steps", "schedule")}
    return {
        "out": guidance.guided_velocity(**tensors(inputs), **kwargs),
        "weight": np.array([guidance.guidance_weight(**weighing)]),
    }


def dype_rope_table(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positions come as an input, a list, or the text `arange(n)`."""
    kwargs = dict(kwargs)
    positions = inputs["positions"] if "positions" in inputs else kwargs.pop("positions")
    if isinstance(positions, str):
        positions = range(*map(int, re.findall(r"\d+", positions)))
    cos, sin = dype.dype_rope_table(positions=np.array(positions), **kwargs)
    return {"cos": cos, "sin": sin}


CASES: dict[str, Adapter] = {
    "ultraimage.dominant_frequency_index": returns(frequency.dominant_frequency_index, "index", "period"),
    "ultraimage.corrected_frequencies": corrected_frequencies,
    "ultraimage.recursive_correction": recursive_correction,
    "ultraimage.flux_rope_table": returns(rope.flux_rope_table, "cos", "sin"),
    "ultraimage.qwen_rope_table": qwen_rope_table,
    "ultraimage.block_attention_mass": block_attention_mass,
    "ultraimage.block_entropy": returns(concentration.block_entropy, "row_entropy", "head_entropy"),
    "ultraimage.attention_entropy": returns(concentration.attention_entropy, "entropy"),
    "ultraimage.focus_factor": returns(concentration.focus_factor, "factor"),
    "ultraimage.focused_attention": returns(concentration.focused_attention, "out"),
    "ultraimage.proportional_scale": returns(concentration.proportional_scale, "scale"),
    "ultraimage.haar_lowpass": returns(guidance.haar_lowpass, "low"),
    "ultraimage.guided_velocity": guided_velocity,
    "ultraimage.rect_cosine_mask": returns(guidance.rect_cosine_mask, "mask"),
    "ultraimage.view_window": returns(guidance.view_window, "top", "left"),
    "ultraimage.shifted_sigmas": returns(schedule.shifted_sigmas, "sigmas", "timesteps"),
    "ultraimage.dype_rope_table": dype_rope_table,
}
