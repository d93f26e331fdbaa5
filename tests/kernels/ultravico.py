"""The adapters of UltraViCo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engines.ultravico import decay, geometry, norepeat, pattern, rope
from tests.kernels.adapters import Adapter, Arrays, returns, tensors


def rope_frequencies(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    freqs = rope.rope_frequencies(**kwargs)
    return {"freqs": freqs, "periods": 2 * math.pi / freqs}


def rope_table_1d(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    cos, sin = rope.rope_table_1d(**tensors(inputs))
    return {"cos": cos, "sin": sin}


def video_token_geometry(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.float64(value) for name, value in geometry.video_token_geometry(**kwargs).items()}


def row_attention_pattern(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    curve = pattern.row_attention_pattern(**given, constant=kwargs["constant"])
    dominant, share = pattern.harmonic_share(given["freqs"], given["amplitude"], kwargs["harmonic_tolerance"])
    return {"pattern": curve, "dominant": dominant, "harmonic_share": share}


def no_repeat_score(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return norepeat.no_repeat_score(**inputs, **kwargs)


CASES: dict[str, Adapter] = {
    "ultravico.rope_frequencies": rope_frequencies,
    "ultravico.identify_intrinsic_frequency": returns(rope.identify_intrinsic_frequency, "k", "period"),
    "ultravico.extrapolated_frequencies": returns(rope.extrapolated_frequencies, "freqs"),
    "ultravico.rope_table_1d": rope_table_1d,
    "ultravico.video_rope_table": returns(rope.video_rope_table, "cos", "sin"),
    "ultravico.video_token_geometry": video_token_geometry,
    "ultravico.decay_multiplier": returns(decay.decay_multiplier, "multiplier"),
    "ultravico.decayed_attention": returns(decay.decayed_attention, "out"),
    "ultravico.row_attention_pattern": row_attention_pattern,
    "ultravico.harmonic_share": returns(pattern.harmonic_share, "dominant", "harmonic_share"),
    "ultravico.no_repeat_score": no_repeat_score,
}
