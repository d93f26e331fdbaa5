"""Pictures of any size and shape under a network that takes squares of one size.

The short side gives the side of a square; along the long side as many overlapping squares stand as are needed, so
that no part of a picture stays unprotected. What the network predicts for each is stretched to the square and blended
with windows that add up to one: it stays within the budget. The published evaluation knows 512 px crops alone; what
stretching does to the effect is measured separately. Knows no network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OVERLAP = 0.25  # share of a side by which neighbouring squares overlap at least


@dataclass(frozen=True)
class Square:
    """A square part of a picture, in its pixels."""

    left: int
    top: int
    side: int


def squares(width: int, height: int) -> list[Square]:
    """Squares of the short side that cover a picture; one in the middle of a picture that is nearly square."""
    side, length = min(width, height), max(width, height)
    count = 1 if length == side else 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
    starts = [round(index * (length - side) / max(1, count - 1)) for index in range(count)]
    return [Square(start, 0, side) if width >= height else Square(0, start, side) for start in starts]


def taken(picture: Tensor, parts: Sequence[Square], side: int) -> Tensor:  # [3, H, W] -> [N, 3, side, side]
    """The squares as a network of `side` pixels takes them: bilinear, antialiased."""
    return torch.stack([_resized(picture[:, s.top : s.top + s.side, s.left : s.left + s.side], side) for s in parts])


def spread(
    deltas: Tensor,  # [N, 3, S, S], one a square
    parts: Sequence[Square],
    height: int,
    width: int,
    eps: float,  # budget, in the units of deltas
) -> Tensor:  # [3, H, W], within [-eps, eps]
    """Perturbations of squares as one of the whole picture."""
    if len(parts) == 1:
        return _resized(deltas[0], parts[0].side).clamp(-eps, eps)
    whole = deltas.new_zeros(3, height, width)
    weight = deltas.new_zeros(1, height, width)
    for delta, square in zip(deltas, parts, strict=True):
        at = (slice(None), slice(square.top, square.top + square.side), slice(square.left, square.left + square.side))
        window = _window(square.side, width >= height).to(deltas)
        whole[at] += window * _resized(delta, square.side)
        weight[at] += window
    return (whole / weight).clamp(-eps, eps)


def _window(side: int, across: bool) -> Tensor:  # [1, 1, side] or [1, side, 1], above 0
    """High in the middle along the direction in which squares overlap."""
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    line = torch.sin(math.pi * place).square() + 1e-3
    return line.view(1, 1, -1) if across else line.view(1, -1, 1)


def _resized(picture: Tensor, side: int) -> Tensor:  # [3, h, w] -> [3, side, side]
    if picture.shape[-2:] == (side, side):
        return picture
    return F.interpolate(picture[None], (side, side), mode="bilinear", antialias=True, align_corners=False)[0]
