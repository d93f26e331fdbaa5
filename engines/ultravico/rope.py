"""Temporal rotary frequencies of video transformers: the trained ones, and every rule that stretches them.

RIFLEx (arXiv 2502.15894) and the baselines it is compared with. A rule changes temporal frequencies only; rows and
columns keep theirs. Tables are laid out as diffusers lays them out: every frequency twice, side by side, and time,
rows and columns one after the other. UltraViCo itself leaves the table alone. Knows no model but by its constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Method = Literal["pe", "pi", "ntk", "yarn", "tasr", "riflex"]
TASR_THRESHOLD = 0.5  # of the noise level; its authors state none


@dataclass(frozen=True)
class RotaryLayout:
    """What a family of models rotates: the base of its frequencies and the channels of time, rows and columns."""

    theta: float
    dims: tuple[int, int, int]
    base_grid: tuple[int, int] | None = None  # rows, columns that other grids are resized to; None: plain integers


LAYOUTS = {
    "wan": RotaryLayout(10_000.0, (44, 42, 42)),
    "hunyuan": RotaryLayout(256.0, (16, 56, 56)),
    "cogvideox": RotaryLayout(10_000.0, (16, 24, 24), base_grid=(30, 45)),
}


def rope_frequencies(dim: int, theta: float) -> Tensor:  # -> float64 [dim / 2], radians a position
    """theta^(-2i/dim); the period of each is 2 pi over it."""
    return theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def identify_intrinsic_frequency(dim: int, theta: float, observed_period: float) -> tuple[int, int]:
    """(k, N_k): the 1-based frequency whose rounded period is closest to the observed repetition, and that period.

    `observed_period` counts latent frames until a video first repeats. Of two equally close the faster one.
    """
    periods = [round(2 * math.pi / float(frequency)) for frequency in rope_frequencies(dim, theta)]
    best = min(range(len(periods)), key=lambda index: abs(periods[index] - observed_period))
    return best + 1, periods[best]


def extrapolated_frequencies(
    dim: int,
    theta: float,
    method: Method,
    train_len: float,
    target_len: float,
    k: int | None = None,
    margin: float = 0.9,
    yarn_alpha: float = 1,
    yarn_beta: float = 32,
    t: float | None = None,
    tasr_threshold: float | None = None,
) -> Tensor:  # float64 [dim / 2]
    """Temporal frequencies for `target_len` latent frames of a model trained on `train_len`.

    pe leaves them; pi divides by the ratio s; ntk raises the base to theta s^(d/(d-2)); yarn keeps what turns more
    than `yarn_beta` times in the training length and interpolates what turns less than `yarn_alpha` times; tasr is
    pi above the noise level `tasr_threshold` and ntk below, at the noise level `t` in [0, 1]; riflex sets the
    1-based frequency `k` to `margin` of one turn over the target, if the target is longer than its period at all.
    Nothing changes up to the training length. Raises ValueError for an unknown method or a missing k or t.
    """
    freqs = rope_frequencies(dim, theta)
    if method not in ("pe", "pi", "ntk", "yarn", "tasr", "riflex"):
        raise ValueError(f"frequency rule {method!r}: pe, pi, ntk, yarn, tasr or riflex")
    if target_len <= train_len or method == "pe":
        return freqs
    ratio = target_len / train_len
    if method == "tasr":
        if t is None:
            raise ValueError("tasr: needs the noise level t")
        method = "pi" if t > (TASR_THRESHOLD if tasr_threshold is None else tasr_threshold) else "ntk"
    if method == "pi":
        return freqs / ratio
    if method == "ntk":
        return rope_frequencies(dim, theta * ratio ** (dim / (dim - 2)))
    if method == "yarn":
        turns = train_len * freqs / (2 * math.pi)
        keep = ((turns - yarn_alpha) / (yarn_beta - yarn_alpha)).clamp(0, 1)
        return keep * freqs + (1 - keep) * freqs / ratio
    if k is None:
        raise ValueError("riflex: needs the index k of the intrinsic frequency")
    if target_len > round(2 * math.pi / float(freqs[k - 1])):
        freqs[k - 1] = _one_turn(target_len, margin)
    return freqs


def _one_turn(length: float, margin: float = 0.9) -> float:
    return margin * 2 * math.pi / length


def rope_table_1d(freqs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:  # [d], [S] -> float32 [S, 2d] twice
    """cos and sin of position times frequency, each frequency in two neighbouring channels."""
    angles = positions.to(torch.float64)[:, None] * freqs.to(torch.float64)
    angles = angles.repeat_interleave(2, dim=1)
    return angles.cos().float(), angles.sin().float()


def video_rope_table(
    model: str,  # wan, hunyuan or cogvideox
    latent_frames: int,
    grid_height: int,
    grid_width: int,
    riflex_k: int | None = None,  # 1-based
    riflex_length: float | None = None,  # latent frames of the target; None: latent_frames
) -> tuple[Tensor, Tensor]:  # cos, sin, float32 [F * h * w, head_dim]
    """The table of a whole video, frames outermost, with RIFLEx's one frequency changed if asked for."""
    layout = LAYOUTS[model]
    temporal = rope_frequencies(layout.dims[0], layout.theta)
    if riflex_k is not None:
        temporal[riflex_k - 1] = _one_turn(latent_frames if riflex_length is None else riflex_length)
    spatial = [rope_frequencies(dim, layout.theta) for dim in layout.dims[1:]]
    return table_3d([temporal, *spatial], axis_positions(model, latent_frames, grid_height, grid_width))


def axis_positions(
    model: str,
    latent_frames: int,
    grid_height: int,
    grid_width: int,
    base: tuple[int, int] | None = None,  # rows, columns of the trained grid; None: the published model's
) -> list[Tensor]:
    """Positions along time, rows and columns. CogVideoX resizes and centres any grid in the one it was trained on."""
    base = LAYOUTS[model].base_grid if base is None else base
    time = torch.arange(latent_frames, dtype=torch.float64)
    if base is None:
        return [time, *(torch.arange(size, dtype=torch.float64) for size in (grid_height, grid_width))]
    if grid_height * base[1] > grid_width * base[0]:
        resized = (base[0], round(base[0] / grid_height * grid_width))
    else:
        resized = (round(base[1] / grid_width * grid_height), base[1])
    starts = [round((whole - part) / 2) for whole, part in zip(base, resized, strict=True)]
    spans = zip(starts, resized, (grid_height, grid_width), strict=True)
    return [
        time,
        *(
            torch.linspace(start, (start + size) * (count - 1) / count, count, dtype=torch.float64)
            for start, size, count in spans
        ),
    ]


def table_3d(frequencies: list[Tensor], positions: list[Tensor]) -> tuple[Tensor, Tensor]:
    """cos and sin [F * h * w, head_dim] from the frequencies and positions of each axis."""
    shape = [len(axis) for axis in positions]
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for axis, (freqs, at) in enumerate(zip(frequencies, positions, strict=True)):
        view = [1, 1, 1, 2 * len(freqs)]
        view[axis] = shape[axis]
        for found, table in zip(parts, rope_table_1d(freqs, at), strict=True):
            found.append(table.view(view).expand(*shape, -1))
    cos, sin = (torch.cat(found, dim=-1).flatten(0, 2) for found in parts)
    return cos, sin
