"""Pictures of any size and shape under a network that takes squares of one size.

The short side gives the side of a square. One stands in the middle; along the long side as many overlapping ones
stand on either side of it as are needed, so that no part of a picture stays unprotected. What the network predicts
for the middle holds over its whole extent, since two predictions that are mixed weaken each other; each further
square has what the ones nearer to the middle leave. Perturbations are stretched to their squares and stay within the
budget. The published evaluation knows 512 px crops alone. Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP = 0.25  # share of a side by which neighbouring squares overlap at least
RAMP = 0.05  # share of a side over which a square's edge fades into its neighbour, so that no line is seen
BAND = 2**20  # pixels of a perturbation that are stretched at once


@dataclass(frozen=True)
class Square:
    """A square part of a picture, in its pixels."""

    left: int
    top: int
    side: int


def squares(width: int, height: int) -> list[Square]:
    """Squares of the short side that cover a picture, an odd number of them, so that one is in the middle."""
    side, length = min(width, height), max(width, height)
    either = math.ceil((length - side) / (2 * side * (1 - OVERLAP)))  # on either side of the middle
    count = 1 + 2 * either
    starts = [round(index * (length - side) / max(1, count - 1)) for index in range(count)]
    return [Square(start, 0, side) if width >= height else Square(0, start, side) for start in starts]


def spread(
    deltas: Tensor,  # [N, 3, S, S], one a square
    parts: Sequence[Square],
    height: int,
    width: int,
    eps: float,  # budget, in the units of deltas
) -> Tensor:  # [3, H, W], within [-eps, eps]
    """Perturbations of squares as one of the whole picture."""
    whole = deltas.new_empty(3, height, width)
    for rows, columns, delta in bands(deltas, parts, height, width, eps):
        whole[:, rows, columns] = delta
    return whole


def bands(
    deltas: Tensor, parts: Sequence[Square], height: int, width: int, eps: float, pixels: int = BAND
) -> Iterator[tuple[slice, slice, Tensor]]:
    """What `spread` makes, about `pixels` at a time: rows, columns, and the perturbation [3, h, w] there."""
    across, side = width >= height, parts[0].side
    line = _joined(deltas.transpose(-1, -2) if across else deltas, parts)  # [3, L, S]
    length, step = line.shape[1], max(1, pixels // side)
    everything = slice(0, side)
    for start in range(0, length, step):
        along = slice(start, min(start + step, length))
        part = line[:, along]
        delta = _resized(part, part.shape[1], side).clamp(-eps, eps)
        yield (everything, along, delta.transpose(-1, -2)) if across else (along, everything, delta)


def _joined(deltas: Tensor, parts: Sequence[Square]) -> Tensor:  # [N, 3, S, S] -> [3, L, S]
    """The squares stretched and put together along the long side only, which runs downwards here.

    A single column must not be stretched downwards: torch 2.13 gets that wrong with antialiasing. A row is fine.
    """
    side = parts[0].side
    starts = [max(part.left, part.top) for part in parts]
    length = starts[-1] + side
    joined = deltas.new_zeros(3, length, deltas.shape[-1])
    for delta, start, share in zip(deltas, starts, _shares(starts, side, length).to(deltas), strict=True):
        held = share.nonzero()[:, 0]
        first, last = int(held[0]), int(held[-1]) + 1
        stretched = _resized(delta, side, delta.shape[-1])
        at = (torch.arange(first, last, device=delta.device) - start).clamp(0, side - 1)  # edges go on
        joined[:, first:last] += share[first:last, None] * stretched[:, at]
    return joined


def _shares(starts: Sequence[int], side: int, length: int) -> Tensor:  # float64 [N, length], sum 1 at every place
    """How much each square has to say at each place of the long side; those nearer to the middle speak first."""
    place = torch.arange(length, dtype=torch.float64) + 0.5
    left = torch.ones(length, dtype=torch.float64)
    shares = torch.zeros(len(starts), length, dtype=torch.float64)
    for index in sorted(range(len(starts)), key=lambda index: abs(index - len(starts) // 2)):
        beyond = torch.maximum(starts[index] - place, place - starts[index] - side).clamp(min=0)
        shares[index] = left * (1 - beyond / (RAMP * side)).clamp(min=0)
        left = left - shares[index]
    return shares


def _resized(picture: Tensor, height: int, width: int) -> Tensor:  # [3, h, w] -> [3, height, width]
    if picture.shape[-2:] == (height, width):
        return picture
    return F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
