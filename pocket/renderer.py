"""Rendering figures on a floor, in batches: colour, coverage, depth, normals, canonical coordinates and paints.

What a figure is made of and how it is painted, it says itself; light, floor, sky and shadows are the same for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from pocket.camera import Camera
from pocket.toys import FLOOR
from pocket.tracer import Distance, dot, lit, march, normals, openness, unit
from pocket.wording import PLAINS

PLAIN_RGB = dict(
    zip(PLAINS, ((0.60, 0.61, 0.63), (0.93, 0.88, 0.77), (0.74, 0.87, 0.79), (0.80, 0.77, 0.90)), strict=True)
)
GROUND_RGB = {
    "grass": (0.50, 0.66, 0.36),
    "sand": (0.87, 0.77, 0.55),
    "snow": (0.92, 0.94, 0.97),
    "stone": (0.56, 0.55, 0.55),
}
SKY_RGB = {"blue": (0.55, 0.74, 0.93), "pale": (0.86, 0.90, 0.93), "dusky": (0.90, 0.68, 0.62)}
CHUNK = 24  # pictures traced at once: fewer spend their time on the library's calls, more leave the processor's cache
SHADOWED = 2.2  # half side of the floor around a figure that may lie in its shadow


class Placed(Protocol):
    """What a picture is decided by, besides the figure in it."""

    @property
    def camera(self) -> Camera: ...

    @property
    def light(self) -> tuple[float, float, float]: ...

    @property
    def plain(self) -> str | None: ...

    @property
    def ground(self) -> str | None: ...

    @property
    def sky(self) -> str | None: ...

    def frame(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] from the figure's frame to the world, and its shift [3]."""


class Figure(Protocol):
    """What stands there: a solid in its own frame and its paints. Scenes of equal figures are traced together."""

    @property
    def reach(self) -> float:
        """Radius of a ball around the origin that holds it."""

    def distance(self, p: Tensor) -> Tensor:  # [3, M] -> [M]
        """The signed distance of the whole figure."""

    def shade(self, p: Tensor) -> Tensor:  # [3, M] -> [M]
        """The same, as well as shadows need it."""

    def painted(self, p: Tensor) -> Tensor:  # [3, M] -> int64 [M]
        """The paint of the nearest solid."""

    def look(self, scenes: Sequence[Any], p: Tensor, paint: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [3, M] before light falls on them, what is glossy, bool [M]; `owner` [M] says in which scene."""


@dataclass(frozen=True)
class View:
    """A batch of pictures and what is true of every pixel."""

    rgb: Tensor  # [B, 3, S, S] in [0, 1]
    alpha: Tensor  # [B, S, S] in [0, 1], the figure
    depth: Tensor  # [B, S, S] along the view, 0 off it
    normal: Tensor  # [B, 3, S, S] in the world, 0 off it
    canonical: Tensor  # [B, 3, S, S], place on it in its own frame / 2 + 0.5, 0 off it
    paint: Tensor  # int64 [B, S, S], index of the figure's paints, -1 off it


def render(
    scenes: Sequence[Any], figures: Sequence[Figure], side: int = 64, dtype: torch.dtype = torch.float32
) -> View:
    """Pictures of `side` pixels of any scenes (each `Placed`) with the figure in each, in their order."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, figure in enumerate(figures):
        groups[figure].append(index)
    order, views = [], []
    for members in groups.values():
        for start in range(0, len(members), CHUNK):
            part = members[start : start + CHUNK]
            views.append(_render_alike([scenes[index] for index in part], figures[part[0]], side, dtype))
            order += part
    back = torch.tensor(order).argsort()
    return View(*(torch.cat([getattr(view, field.name) for view in views])[back] for field in fields(View)))


def _render_alike(scenes: Sequence[Placed], figure: Figure, side: int, dtype: torch.dtype) -> View:
    """Scenes of one figure, traced together in its frame."""
    count, pixels, solid = len(scenes), side * side, figure.distance
    turns, shifts = (torch.stack(parts) for parts in zip(*(scene.frame(dtype) for scene in scenes), strict=True))
    cast = [scene.camera.rays(side, dtype) for scene in scenes]
    o = torch.cat([((o - shift) @ turn).T for (o, _), turn, shift in zip(cast, turns, shifts, strict=True)], dim=1)
    d = torch.cat([(d @ turn).T for (_, d), turn in zip(cast, turns, strict=True)], dim=1)
    lights = unit(torch.tensor([scene.light for scene in scenes], dtype=dtype).T)
    light = torch.einsum("bij,ib->jb", turns, lights)
    fixed, growing = torch.tensor([scene.camera.footprint(side) for scene in scenes], dtype=dtype).T
    sizes = (fixed.repeat_interleave(pixels), growing.repeat_interleave(pixels))
    met = march(solid, o, d, *sizes, figure.reach)
    owner, along = met.index // pixels, d[:, met.index]
    p = o[:, met.index] + met.t * along
    normal = normals(solid, p)
    paint = figure.painted(p)
    base, glossy = figure.look(scenes, p, paint, owner)
    colour = _shaded(base, glossy, normal, along, light[:, owner], figure.shade, p)

    def canvas(values: Tensor, index: Tensor) -> Tensor:  # [C, M] or [M] -> [B, C, S, S] or [B, S, S]
        flat = values.new_zeros(*values.shape[:-1], count * pixels)
        flat[..., index] = values
        picture = flat.unflatten(-1, (count, side, side))
        return picture if values.ndim == 1 else picture.transpose(0, 1).contiguous()

    cover = torch.zeros_like(sizes[0])
    cover[met.index] = met.cover
    behind = _backdrop(scenes, o, d, light, cover, figure.shade, pixels)
    behind[:, met.index] += met.cover * (colour - behind[:, met.index])

    whole = met.cover == 1
    index, which = met.index[whole], owner[whole]
    world = torch.einsum("mij,jm->mi", turns[which], p[:, whole]) + shifts[which]
    cameras = torch.stack([scene.camera.c2w for scene in scenes]).to(dtype)[which]
    depth = -((world - cameras[:, :3, 3]) * cameras[:, :3, 2]).sum(dim=-1)
    facing = torch.einsum("mij,jm->im", turns[which], normal[:, whole])
    return View(
        canvas(behind.clamp(0, 1), torch.arange(count * pixels)),
        cover.view(count, side, side),
        canvas(depth, index),
        canvas(facing, index),
        canvas(p[:, whole] / 2 + 0.5, index),
        canvas(paint[whole] + 1, index) - 1,
    )


def _shaded(
    base: Tensor,  # [3, M], as all that follows
    glossy: Tensor,  # bool [M]
    normal: Tensor,
    along: Tensor,
    light: Tensor,
    solid: Distance,
    p: Tensor,
) -> Tensor:  # [3, M]
    """Paint under one soft light and the sky; a highlight on what is glossy."""
    reached = lit(solid, p + 0.01 * normal, light)
    direct = dot(normal, light).clamp(min=0) * reached
    sky = openness(solid, p, normal) * (0.75 + 0.25 * normal[1])
    colour = base * (0.62 * direct + 0.58 * sky)
    shine = dot(normal, unit(light - along)).clamp(min=0) ** 48 * reached * glossy
    rim = (1 + dot(normal, along)).clamp(0, 1) ** 4 * glossy
    return colour + 0.6 * shine + 0.12 * rim


def _backdrop(
    scenes: Sequence[Placed],
    o: Tensor,  # [3, R]
    d: Tensor,  # [3, R]
    light: Tensor,  # [3, B]
    cover: Tensor,  # [R]
    solid: Distance,
    pixels: int,
) -> Tensor:  # [3, R]
    """Floor and sky, or one colour for both, with the figure's soft shadow and its contact on the floor."""
    behind = torch.tensor([_colours_behind(scene) for scene in scenes], dtype=o.dtype)  # [B, 2, 3]
    floor, sky = (behind[:, k].T.repeat_interleave(pixels, dim=1) for k in (0, 1))
    open_air = torch.tensor([scene.plain is None for scene in scenes]).repeat_interleave(pixels)
    t = (o[1] - FLOOR) / (-d[1]).clamp(min=1e-6)
    paler = (0.45 - 0.75 * d[1].clamp(0, 0.6)).clamp(min=0) * open_air
    above = sky + (1 - sky) * paler
    distant = 0.5 * (t / 14).clamp(0, 1)  # the far floor fades into the sky
    colour = torch.where(d[1] < 0, floor + torch.maximum(distant, 1 + d[1] / 0.02) * (above - floor), above)
    ground = o + t * d
    inside = (ground[0].abs() < SHADOWED) & (ground[2].abs() < SHADOWED) & (d[1] < 0) & (cover < 1)
    near = inside.nonzero()[:, 0]
    spot = ground[:, near]
    up = spot.new_tensor([[0.0], [1.0], [0.0]])
    contact = 1 - 0.55 * torch.exp(-7 * solid(spot + 0.03 * up).clamp(min=0))
    reached = lit(solid, spot + 0.02 * up, light[:, near // pixels], taps=(0.25, 0.6, 1.1))
    colour[:, near] *= contact * (0.72 + 0.28 * reached)
    return colour


def _colours_behind(scene: Placed) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Of the floor and of the sky."""
    if scene.plain is not None:
        return PLAIN_RGB[scene.plain], PLAIN_RGB[scene.plain]
    return GROUND_RGB[scene.ground or "stone"], SKY_RGB[scene.sky or "pale"]
