"""The multiresolution hash grid (Mueller et al. 2022) in plain PyTorch: all corners of all levels in one gather."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PRIMES = (1, 2_654_435_761, 805_459_861)
WORD = 0xFFFFFFFF  # hashes are 32 bits wide


def hash_grid_layout(
    num_levels: int = 16,
    base_resolution: int = 16,
    desired_resolution: int | None = 2048,
    log2_hashmap_size: int = 19,
    align_corners: bool = False,
    per_level_scale: float | None = None,  # None: so that the last level has the desired resolution
    dim: int = 3,
) -> tuple[Tensor, float]:  # int32 [L + 1], growth of the resolution from level to level
    """Where each level's rows begin in the table, and the growth b. Rows are a multiple of 8."""
    growth = 2.0 if per_level_scale is None else per_level_scale
    if desired_resolution is not None and num_levels > 1:
        growth = float(np.exp2(np.log2(desired_resolution / base_resolution) / (num_levels - 1)))
    offsets = [0]
    for level in range(num_levels):
        resolution = math.ceil(base_resolution * growth**level)
        rows = min(2**log2_hashmap_size, (resolution if align_corners else resolution + 1) ** dim)
        offsets.append(offsets[-1] + math.ceil(rows / 8) * 8)
    return torch.tensor(offsets, dtype=torch.int32), growth


def hash_grid_encode(
    x01: Tensor,  # [N, D] in [0, 1]
    table: Tensor,  # [rows, F]
    offsets: Tensor,  # int [L + 1]
    per_level_scale: float,
    base_resolution: int,
    *,
    align_corners: bool = False,
    interpolation: Literal["linear", "smoothstep"] = "smoothstep",
    first: int = 0,  # levels below it are left out
) -> Tensor:  # [N, L F], level by level
    """Interpolated features of every level. Points outside the unit cube give zeros and no gradients."""
    dim = x01.shape[1]
    levels = _levels(tuple(offsets.tolist()), per_level_scale, base_resolution, align_corners, dim)
    scales, sizes, hashed = (tuple(of[first:]) for of in levels)
    known = _Constants.of(tuple(offsets[first:].tolist()), scales, sizes, hashed, dim, x01.dtype, str(x01.device))
    inside = ((x01 >= 0) & (x01 <= 1)).all(dim=-1, keepdim=True)
    x = torch.where(inside, x01, torch.zeros_like(x01))
    at = x[:, None] * known.scale + (0.0 if align_corners else 0.5)  # [N, L, D]
    cell = at.detach().floor()
    share = at - cell
    if interpolation == "smoothstep":
        share = share.square() * (3 - 2 * share)
    weight = torch.where(known.corner.bool(), share[:, :, None], 1 - share[:, :, None]).prod(dim=-1)  # [N, L, 2^D]
    if any(hashed) or align_corners:
        rows = _rows(cell.long()[:, :, None] + known.corner, known)
    else:  # no vertex lies outside its level: the corners are at fixed distances in the table
        lowest = (cell.long() * known.stride).sum(dim=-1) + known.start  # [N, L]
        rows = lowest[:, :, None] + (known.corner * known.stride[:, None]).sum(dim=-1)
    features = (weight[..., None] * _looked_up(table, rows)).sum(dim=2)  # [N, L, F]
    return torch.where(inside, features.flatten(1), torch.zeros((), dtype=features.dtype, device=x01.device))


def _looked_up(table: Tensor, rows: Tensor) -> Tensor:  # [T, F], int64 [...] -> [..., F]
    """Rows of a table. On a GPU as an embedding, whose gradient is summed in a fixed order, many parts at once."""
    if table.is_cuda:
        return F.embedding(rows.int(), table)
    return table[rows.flatten()].view(*rows.shape, table.shape[1])


def encode_quickly(
    x01: Tensor,  # [N, 3] in [0, 1]
    table: Tensor,  # [rows, F]
    offsets: Tensor,  # int [L + 1]
    per_level_scale: float,
    base_resolution: int,
    *,
    interpolation: Literal["linear", "smoothstep"] = "smoothstep",
    repeatable: bool = True,  # whether a GPU has to give the same bits again
) -> Tensor:  # [N, L F], level by level
    """As `hash_grid_encode`: levels that are not hashed are dense volumes, which PyTorch interpolates by itself.

    On a GPU the plain way is taken, because the gradient of the interpolation depends on the order of its threads
    there, and a resumed run would not repeat an undisturbed one.
    """
    scales, _, hashed = _levels(tuple(offsets.tolist()), per_level_scale, base_resolution, False, 3)
    volumes = [] if x01.is_cuda and repeatable else dense_volumes(table, offsets, per_level_scale, base_resolution)
    plain = {"interpolation": interpolation, "first": len(volumes)}
    if not volumes:
        return hash_grid_encode(x01, table, offsets, per_level_scale, base_resolution, **plain)
    inside = ((x01 >= 0) & (x01 <= 1)).all(dim=-1, keepdim=True)
    x = torch.where(inside, x01, torch.zeros_like(x01))
    parts = []
    for scale, volume in zip(scales, volumes, strict=False):
        at = x * scale + 0.5
        if interpolation == "smoothstep":
            cell = at.detach().floor()
            share = at - cell
            at = cell + share.square() * (3 - 2 * share)
        place = (at * (2 / (volume.shape[-1] - 1)) - 1)[None, None, None]
        parts.append(torch.nn.functional.grid_sample(volume[None], place, align_corners=True)[0, :, 0, 0].T)
    found = torch.where(inside, torch.cat(parts, dim=1), torch.zeros((), dtype=x01.dtype, device=x01.device))
    if not any(hashed):
        return found
    rest = hash_grid_encode(x01, table, offsets, per_level_scale, base_resolution, **plain)
    return torch.cat([found, rest], dim=1)


def dense_volumes(
    table: Tensor,  # [rows, F]
    offsets: Tensor,  # int [L + 1]
    per_level_scale: float,
    base_resolution: int,
) -> list[Tensor]:  # [F, V, V, V] each, z y x
    """The levels that are not hashed, coarsest first: every vertex has a row of its own there."""
    _, sizes, hashed = _levels(tuple(offsets.tolist()), per_level_scale, base_resolution, False, 3)
    dense = hashed.index(True) if True in hashed else len(hashed)  # levels grow: those before it are dense
    starts = offsets[:dense].tolist()
    return [
        table[start : start + size**3].T.reshape(-1, size, size, size)  # x runs fastest
        for start, size in zip(starts, sizes[:dense], strict=True)
    ]


@cache
def _levels(
    offsets: tuple[int, ...], growth: float, base: int, align_corners: bool, dim: int
) -> tuple[list[float], list[int], list[bool]]:
    """Scale in float32, vertices an axis, and whether a level is hashed, of each level."""
    rows = np.diff(offsets)
    logarithm = np.float32(math.log2(growth))  # rounded once, as the released code hands it to its kernel
    scales = [float(np.exp2(np.float32(n) * logarithm) * np.float32(base) - np.float32(1)) for n in range(len(rows))]
    sizes = [math.ceil(scale) + (1 if align_corners else 2) for scale in scales]
    return scales, sizes, [size**dim > int(count) for size, count in zip(sizes, rows, strict=True)]


@dataclass(frozen=True)
class _Constants:
    """What the levels of a grid are, on a device: made once, since every copy to a GPU waits for it."""

    scale: Tensor  # [L, 1]
    corner: Tensor  # int64 [2^D, D], 0 or 1
    stride: Tensor  # int64 [L, D], rows from a vertex to the next along each axis
    start: Tensor  # int64 [L], first row
    count: Tensor  # int64 [L], rows
    hashed: Tensor  # bool [L, 1]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(
        offsets: tuple[int, ...],
        scales: tuple[float, ...],
        sizes: tuple[int, ...],
        hashed: tuple[bool, ...],
        dim: int,
        dtype: torch.dtype,
        device: str,
    ) -> _Constants:
        """Of these levels."""
        begins = torch.tensor(offsets, device=device)
        return _Constants(
            torch.tensor(scales, dtype=dtype, device=device)[:, None],
            torch.tensor(list(itertools.product((0, 1), repeat=dim)), device=device),
            torch.tensor([[size**axis for axis in range(dim)] for size in sizes], device=device),
            begins[:-1],
            begins[1:] - begins[:-1],
            torch.tensor(hashed, device=device)[:, None],
        )


def _rows(vertex: Tensor, known: _Constants) -> Tensor:
    """The table's row of every vertex [N, L, 2^D, D]."""
    dense = (vertex * known.stride[:, None]).sum(dim=-1)
    mixed = torch.zeros_like(dense)
    for axis in range(vertex.shape[-1]):
        mixed = mixed ^ (vertex[..., axis] * PRIMES[axis] & WORD)
    index = torch.where(known.hashed, mixed, dense)
    return index % known.count[:, None] + known.start[:, None]
