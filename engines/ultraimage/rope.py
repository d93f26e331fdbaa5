"""Rotary tables from frequencies, in the layouts that the Flux and Qwen-Image transformers of diffusers expect.

Positions are rebuilt in float32 from the grid's height and width. Pipelines build them in the prompt's dtype, and in
bfloat16 integers above 256 are rounded: 400 positions become 329 different values. Tables are computed in float64 and
rounded once. Knows nothing of which frequencies are right; that is `frequency.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engines.ultraimage.frequency import corrected_frequencies, rope_frequencies


def flux_grid_ids(
    text_tokens: int, height: int, width: int, device: torch.device | str = "cpu"
) -> Tensor:  # [text + height * width, 3] float32: (0, row, column); text is all zero
    """Positions of a joint sequence, text first, as FluxPipeline lays it out, but exact at any size."""
    image = torch.zeros(height, width, 3, dtype=torch.float32, device=device)
    image[..., 1] = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    image[..., 2] = torch.arange(width, dtype=torch.float32, device=device)[None, :]
    text = torch.zeros(text_tokens, 3, dtype=torch.float32, device=device)
    return torch.cat([text, image.reshape(-1, 3)])


def flux_table(
    ids: Tensor,  # [S, 3], positions on each axis
    frequencies: Sequence[Tensor],  # one [dim_a / 2] float64 for each axis
    magnitudes: Sequence[float] | None = None,  # factor on cos and sin of each axis; None: 1
) -> tuple[Tensor, Tensor]:  # cos, sin: [S, sum of dims] float32, interleaved pairs
    """cos and sin of position times frequency, each value twice, axes side by side."""
    cos, sin = [], []
    magnitudes = magnitudes or [1.0] * len(frequencies)
    for axis, (frequency, magnitude) in enumerate(zip(frequencies, magnitudes, strict=True)):
        angle = torch.outer(ids[:, axis].double(), frequency.to(ids.device))
        cos.append(angle.cos().repeat_interleave(2, dim=1).float() * magnitude)
        sin.append(angle.sin().repeat_interleave(2, dim=1).float() * magnitude)
    return torch.cat(cos, dim=-1), torch.cat(sin, dim=-1)


def flux_rope_table(
    ids: Tensor | None = None,  # [S, 3]; None: built from text_tokens and the grid
    *,
    axes_dim: Sequence[int] = (16, 56, 56),
    theta: float = 10000,
    text_tokens: int = 0,
    grid_height: int = 0,
    grid_width: int = 0,
    train_sequence: int = 4608,  # (1024 / 16)^2 + 512 for FLUX.1
    height_indices: Sequence[int] = (),
    width_indices: Sequence[int] = (),
    height_length: float | None = None,  # tokens; None: the grid's own
    width_length: float | None = None,
    margin: float = 0.85,
) -> tuple[Tensor, Tensor]:  # cos, sin: [S, sum of dims] float32
    """The Flux rule: f_k = margin * 2 pi / length on the chosen indices, each axis with its own length."""
    if ids is None:
        ids = flux_grid_ids(text_tokens, grid_height, grid_width)
    axes = [rope_frequencies(axes_dim[0], theta)]
    lengths = (height_length or grid_height, width_length or grid_width)
    for dim, indices, length in zip(axes_dim[1:], (height_indices, width_indices), lengths, strict=True):
        axes.append(
            corrected_frequencies(
                dim,
                theta,
                "single_period",
                len(ids),
                train_sequence,
                indices,
                length=length or 1,
                riflex_scale=margin,
            )
        )
    return flux_table(ids, axes)


def centred(length: int) -> Tensor:
    """Qwen-Image's positions of one side: -(n - n // 2) .. n // 2 - 1, float64."""
    return torch.arange(length, dtype=torch.float64) - (length - length // 2)


def qwen_table(
    grid_height: int,
    grid_width: int,
    text_tokens: int,
    frequencies: Sequence[Tensor],  # frame, height, width: [dim_a / 2] float64
    magnitudes: Sequence[float] = (1.0, 1.0, 1.0),  # factor on each axis
) -> tuple[Tensor, Tensor]:  # image [h * w, D / 2], text [T, D / 2], complex64
    """Complex rotations of a centred grid; text starts where the grid ends and uses the same frequencies."""
    frame, height, width = (frequency.cpu().double() for frequency in frequencies)
    rows = torch.outer(centred(grid_height), height)[:, None].expand(-1, grid_width, -1)
    columns = torch.outer(centred(grid_width), width)[None].expand(grid_height, -1, -1)
    still = torch.zeros(grid_height, grid_width, len(frame), dtype=torch.float64)  # one frame, at position 0
    image = torch.cat([still, rows, columns], dim=-1).flatten(0, 1)
    start = max(grid_height // 2, grid_width // 2)
    text = torch.outer(
        torch.arange(start, start + text_tokens, dtype=torch.float64), torch.cat([frame, height, width])
    )
    sizes = torch.cat([torch.full_like(f, m) for f, m in zip((frame, height, width), magnitudes, strict=True)])
    return _rotation(image, sizes), _rotation(text, sizes)


def _rotation(angle: Tensor, magnitude: Tensor) -> Tensor:
    return torch.polar(magnitude.expand_as(angle).contiguous(), angle).to(torch.complex64)


def qwen_rope_table(
    grid_height: int,
    grid_width: int,
    text_tokens: int,
    *,
    axes_dim: Sequence[int] = (16, 56, 56),
    theta: float = 10000,
    name_height: str = "extrapolation",
    name_width: str = "extrapolation",
    hyper_parameters_height: Mapping[str, Any] | None = None,
    hyper_parameters_width: Mapping[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:  # image [h * w, D / 2], text [T, D / 2], complex64
    """The Qwen rule: each spatial axis changed by its own method, always on, whatever the sequence length."""
    axes = [rope_frequencies(axes_dim[0], theta)]
    corrections = ((name_height, hyper_parameters_height), (name_width, hyper_parameters_width))
    for dim, (name, constants) in zip(axes_dim[1:], corrections, strict=True):
        values = {key: value for key, value in (constants or {}).items() if key in _CORRECTION_KEYS}
        axes.append(corrected_frequencies(dim, theta, name, sequence_length=1, train_sequence=0, **values))
    return qwen_table(grid_height, grid_width, text_tokens, axes)


_CORRECTION_KEYS = ("freq_id", "length", "riflex_scale", "linear_factor", "ntk_factor")
