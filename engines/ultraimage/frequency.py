"""Recursive dominant frequency correction, and every positional baseline it is compared with.

UltraImage (arXiv 2512.04504), section 3.1: content repeats because one rotary frequency, the one whose period is
closest to the training length, runs through more than one period on the larger grid. Algorithm 1 lowers that
frequency until its period covers the target. Everything here is a list of frequencies, float64, one per pair of
channels of one axis; turning frequencies into tables is `rope.py`. Knows no model, no device and no image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The published configurations name two of the rules differently from the paper.
METHOD_ALIASES = {"riflex": "single_period", "multi_inter": "interpolate_selected"}
METHODS = ("extrapolation", "interpolation", "ntk", "yarn", "single_period", "interpolate_selected")

YARN_ALPHA, YARN_BETA = 1.0, 32.0  # rotations over the training length: below alpha interpolate, above beta keep
REFERENCE_YARN_LENGTH = 1328  # the published code counts rotations over 1328 *pixels*; see `yarn_frequencies`


def rope_frequencies(dim: int, theta: float, ntk_factor: float = 1.0) -> Tensor:
    """f_i = (theta * ntk_factor)^(-2 i / dim) for i = 0 .. dim/2 - 1: [dim/2], radians a token."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64) / dim
    return 1.0 / ((theta * ntk_factor) ** exponent)


def periods(frequencies: Tensor) -> Tensor:
    """T_i = 2 pi / f_i, in tokens (Eq. 5)."""
    return 2 * math.pi / frequencies


def dominant_frequency_index(dim: int, theta: float, train_tokens: float) -> tuple[int, float]:
    """k = argmin_i |T_i - train_tokens| (Eq. 6), 0-based, first minimum; and its period in tokens."""
    lengths = periods(rope_frequencies(dim, theta))
    index = int(torch.argmin((lengths - train_tokens).abs()))
    return index, float(lengths[index])


def recursive_correction(
    dim: int,
    theta: float,
    train: float,  # training length of this axis, tokens
    target: float,  # target length of this axis, tokens
    observed: Sequence[float] = (),  # repetition periods seen after each round, tokens
    margin: float = 1.0,
    mode: str = "single_period",
) -> tuple[Tensor, list[int]]:
    """Algorithm 1: (frequencies [dim/2], corrected indices in the order they were found).

    Seeing that the image still repeats is not a computation, so the periods seen are an argument. Periods are
    always those of the original frequencies, and an index that is already corrected is not corrected again.
    `single_period` sets f_k = margin * 2 pi / target; `interpolate` sets f_k = f_k * train / target.
    """
    frequencies = rope_frequencies(dim, theta)
    corrected = frequencies.clone()
    indices: list[int] = []
    length, rounds = float(train), iter(observed)
    while length < target:
        index, _ = dominant_frequency_index(dim, theta, length)
        if index not in indices:
            indices.append(index)
            corrected[index] = _corrected(frequencies[index], mode, margin, train, target)
        following = next(rounds, None)
        if following is None:
            break
        length = float(following)
    return corrected, indices


def _corrected(frequency: Tensor, mode: str, margin: float, train: float, target: float) -> Tensor:
    if mode == "single_period":
        return frequency.new_tensor(margin * 2 * math.pi / target)
    if mode == "interpolate":
        return frequency * (train / target)
    raise ValueError(f"correction mode {mode!r}: single_period or interpolate")


def corrected_frequencies(
    dim: int,
    theta: float,
    method: str,
    sequence_length: int,  # text and image tokens
    train_sequence: int = 1024,  # at most this many tokens: nothing is changed
    freq_id: Sequence[int] | int = (),  # 0-based; order and duplicates do not matter
    length: float = 200,  # period asked of the corrected frequencies, tokens
    riflex_scale: float = 0.9,
    linear_factor: float = 1.0,
    ntk_factor: float = 1.0,
) -> Tensor:  # [dim/2] float64
    """One axis as the published configurations change it; the defaults are the published code's.

    `interpolate_selected` ignores factors below one, so that a smaller picture is never extrapolated downwards.
    `yarn` here is the published one; ours is `yarn_frequencies` with the training length in tokens.
    """
    method = METHOD_ALIASES.get(method, method)
    if method not in METHODS:
        raise ValueError(f"positional method {method!r}: one of {', '.join(METHODS)}")
    frequencies = rope_frequencies(dim, theta)
    if sequence_length <= train_sequence:
        return frequencies
    selected = sorted({freq_id} if isinstance(freq_id, int) else set(freq_id))
    if method == "interpolation":
        return frequencies / linear_factor
    if method == "ntk":
        return rope_frequencies(dim, theta, ntk_factor)
    if method == "yarn":
        return yarn_frequencies(dim, theta, REFERENCE_YARN_LENGTH, linear_factor)
    if method == "single_period":
        frequencies[selected] = riflex_scale * 2 * math.pi / length
    elif method == "interpolate_selected" and linear_factor > 1.0:
        frequencies[selected] = frequencies[selected] / linear_factor
    return frequencies


def interpolated_frequencies(dim: int, theta: float, scale: float) -> Tensor:
    """Position interpolation (PI): every frequency divided by target / train; nothing below one."""
    return rope_frequencies(dim, theta) / max(scale, 1.0)


def ntk_frequencies(dim: int, theta: float, scale: float) -> Tensor:
    """NTK-aware base: theta * scale^(dim / (dim - 2)), so that the slowest frequency is divided by `scale`."""
    return rope_frequencies(dim, theta, max(scale, 1.0) ** (dim / (dim - 2)))


def yarn_frequencies(dim: int, theta: float, train_length: float, scale: float) -> Tensor:
    """YaRN by parts: g f + (1 - g) f / scale with g = clip((r - 1) / 31, 0, 1), r = rotations over the training.

    `train_length` is in tokens. The published baseline passes 1328, which is pixels where tokens are meant, so that
    it treats almost everything as high frequency and hardly differs from direct sampling.
    """
    frequencies = rope_frequencies(dim, theta)
    rotations = train_length * frequencies / (2 * math.pi)
    keep = ((rotations - YARN_ALPHA) / (YARN_BETA - YARN_ALPHA)).clamp(0.0, 1.0)
    return keep * frequencies + (1 - keep) * frequencies / scale
