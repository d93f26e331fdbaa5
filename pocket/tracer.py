"""Sphere tracing of toys in batches: where rays meet a surface, and how light falls there.

All in the frame of the toy, which stands on y = FLOOR; points and directions are [3, M]. Rays that pass a surface
within a pixel count as partly covered, which smooths outlines without more rays. Only what is still on its way is
evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pocket.sdf import length
from pocket.toys import FLOOR

Distance = Callable[[Tensor], Tensor]  # [3, M] -> [M]

STEPS = 40  # of a ray at most
CLOSE = 1e-3  # distance that counts as a hit
CROWDED = 0.8  # share of rays still on their way above which the others are carried along
CAREFUL = 0.95  # share of the distance that is walked, for solids that are not exact
EDGE = 0.75  # pixels beside a surface over which an outline fades
SLANT = 2e-3  # for differences across a surface
CORNERS = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))  # of a tetrahedron


@dataclass(frozen=True)
class Crossing:
    """Rays that meet a surface, by their index."""

    index: Tensor  # int64 [M]
    t: Tensor  # [M], distance along the ray
    cover: Tensor  # [M], in (0, 1]; below 1 at outlines


def dot(a: Tensor, b: Tensor) -> Tensor:  # [3, M] twice -> [M]
    """The scalar product."""
    return (a * b).sum(dim=0)


def unit(a: Tensor) -> Tensor:  # [3, M]
    """The direction of each vector."""
    return a / length(*a).clamp(min=1e-12)


def ball(o: Tensor, d: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which rays meet the ball around the origin, and where they enter and leave it."""
    towards = -dot(o, d)
    off = dot(o, o) - towards.square()
    half = (radius**2 - off).clamp(min=0).sqrt()
    return off < radius**2, (towards - half).clamp(min=0), towards + half


def march(distance: Distance, o: Tensor, d: Tensor, fixed: Tensor, growing: Tensor, radius: float) -> Crossing:
    """Follow rays [3, R] to the surface; `fixed` + t `growing` is the size of a pixel along each ray [R]."""
    meets, enter, leave = ball(o, d, radius)
    index = meets.nonzero()[:, 0]
    rays = torch.cat([o, d, torch.stack([fixed, growing, leave])]).index_select(1, index)
    t = enter[index]
    best, best_t = torch.full_like(t, torch.inf), t.clone()  # where each ray has come nearest, in pixels
    going, hit = torch.ones_like(index, dtype=torch.bool), torch.zeros_like(index, dtype=torch.bool)
    hits: list[tuple[Tensor, Tensor]] = []
    passed: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(STEPS):
        value = distance(rays[:3] + t * rays[3:6])
        pixels = value / (rays[6] + t * rays[7])
        nearer = going & (pixels < best)
        best, best_t = torch.where(nearer, pixels, best), torch.where(nearer, t, best_t)
        hit |= going & (value < CLOSE)
        going &= ~hit
        t = torch.where(going, t + CAREFUL * value, t)
        going &= t < rays[8]
        left = int(going.sum()) if step < STEPS - 1 else 0
        if left < CROWDED * len(going):  # taking rays out costs about as much as following them a step further
            near = ~hit & ~going & (best < EDGE) if left else ~hit & (best < EDGE)
            hits.append((index[hit], t[hit]))
            passed.append((index[near], best_t[near], best[near]))
            stay = going.nonzero()[:, 0]
            rays, index = rays.index_select(1, stay), index[stay]
            t, best, best_t, going, hit = t[stay], best[stay], best_t[stay], going[stay], hit[stay]
        if not left:
            break
    met, at = (torch.cat(parts) for parts in zip(*hits, strict=True))
    beside, where, by = (torch.cat(parts) for parts in zip(*passed, strict=True))
    cover = torch.cat([torch.ones_like(at), 1 - by.clamp(min=0) / EDGE])
    return Crossing(torch.cat([met, beside]), torch.cat([at, where]), cover)


def normals(distance: Distance, p: Tensor) -> Tensor:  # [3, M], unit
    """The direction in which the distance grows, by differences to the corners of a tetrahedron."""
    corners = p.new_tensor(CORNERS)[:, :, None]
    return unit(sum(distance(p + SLANT * corner) * corner for corner in corners))


def openness(distance: Distance, p: Tensor, normal: Tensor) -> Tensor:  # [M] in [0, 1]
    """How much of the sky a surface sees, by one look along its normal, its contact with the floor included."""
    reach = 0.15
    free = torch.minimum(distance(p + reach * normal), p[1] + reach * normal[1] - FLOOR + 0.05)
    return (0.35 + 0.65 * free / reach).clamp(0, 1)


def lit(distance: Distance, p: Tensor, light: Tensor, taps: tuple[float, ...] = (0.08, 0.2, 0.42, 0.8)) -> Tensor:
    """How much of a soft light [3, M] (unit, towards it) reaches points [3, M], in [0, 1]."""
    free = torch.ones_like(p[0])
    for reach in taps:
        free = torch.minimum(free, 0.5 + 2.5 * distance(p + reach * light) / reach)
    return free.clamp(0, 1)
