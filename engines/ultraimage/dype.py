"""DyPE, the time-dependent positional baseline: frequencies that return to the trained ones as noise vanishes.

Written from its published description (guyyariv/DyPE, patent pending: its authors ask to be asked before commercial
use; the page says so beside the result). Knows no model and no schedule; the noise level is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engines.ultraimage.frequency import ntk_frequencies, rope_frequencies
from engines.ultraimage.rope import flux_table

BETA = (1.25, 0.75)  # rotations between which linear gives way to NTK
GAMMA = (16.0, 2.0)  # rotations between which the result gives way to the trained frequencies
EXPONENT = 2.0  # kappa(t) = t^2
LEAST_TIME = 1e-2  # below it the published ramps turn round and interpolate everything; at 0 they divide by it


def dype_frequencies(
    dim: int,
    theta: float,
    target_tokens: float,  # side of the target, tokens
    base_tokens: float = 64,  # side of the training, tokens
    dynamic: bool = True,
    timestep: float = 1.0,  # sigma in (0, 1]
    method: str = "yarn",
) -> tuple[Tensor, float]:  # [dim/2] float64, factor on cos and sin
    """Frequencies of one axis at one noise level; unchanged up to the training length."""
    base = rope_frequencies(dim, theta)
    scale = max(target_tokens / base_tokens, 1.0)
    if scale <= 1.0:
        return base, 1.0
    if dynamic and timestep <= 0:
        raise ValueError(f"DyPE at noise level {timestep}: it must be above 0")
    kappa = timestep**EXPONENT if dynamic else 1.0
    if method == "ntk":
        power = 2.0 * kappa if dynamic else 1.0
        factor = max(1.0, (scale ** (dim / (dim - 2))) ** power)
        return rope_frequencies(dim, theta, factor), 1.0
    if method != "yarn":
        raise ValueError(f"DyPE method {method!r}: yarn or ntk")
    to_ntk = 1 - _ramp(BETA, kappa, dim, theta, base_tokens)
    frequencies = (base / scale) * (1 - to_ntk) + ntk_frequencies(dim, theta, scale) * to_ntk
    to_base = 1 - _ramp(GAMMA, kappa, dim, theta, base_tokens)
    return frequencies * (1 - to_base) + base * to_base, 0.1 * math.log(scale) + 1.0


def _ramp(ratios: tuple[float, float], kappa: float, dim: int, theta: float, base_tokens: float) -> Tensor:
    """clip((i - low) / (high - low), 0, 1) between the correction indices of the two rotation counts."""
    first, last = (_correction_index(ratio * kappa, dim, theta, base_tokens) for ratio in ratios)
    low, high = max(0.0, math.floor(first)), min(dim / 2, math.ceil(last))
    if low == high:
        high += 0.001
    return ((torch.arange(dim // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)


def _correction_index(rotations: float, dim: int, theta: float, base_tokens: float) -> float:
    return dim * math.log(base_tokens / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def dype_rope_table(
    dim: int,
    theta: float,
    positions: Sequence[float] | Tensor,  # [S], tokens
    target_tokens: float,
    base_tokens: float = 64,
    dynamic: bool = True,
    timestep: float = 1.0,
    method: str = "yarn",
) -> tuple[Tensor, Tensor]:  # cos, sin: [S, dim] float32, interleaved pairs
    """The table of one axis at one noise level."""
    frequencies, magnitude = dype_frequencies(dim, theta, target_tokens, base_tokens, dynamic, timestep, method)
    ids = torch.as_tensor(positions, dtype=torch.float64)[:, None]
    return flux_table(ids, [frequencies], [magnitude])
