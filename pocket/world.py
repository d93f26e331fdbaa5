"""The world of toys in three dimensions: scenes from a seed or a caption, and everything that is true of them.

One or two toys of a kind on a floor, seen by a camera. A view holds colour, coverage, depth, normals, canonical
coordinates and paints; flow and meshes come from the same distances. Everything follows from the seed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engines.shared.tetrahedra import marching_tetrahedra, tetrahedral_grid
from pocket import toys
from pocket.camera import Camera
from pocket.sdf import Points
from pocket.toys import DARK, DEEP, FLOOR, GLASS, LEAF, MAIN, PALE, REACH, WHITE, WOOD
from pocket.tracer import Distance, dot, lit, march, normals, openness, unit
from pocket.wording import COLOURS, GROUNDS, MATERIALS, PLAINS, SKIES, ToySpec

COLOUR_RGB = {
    "red": (0.86, 0.16, 0.15),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.97, 0.82, 0.16),
    "green": (0.28, 0.70, 0.25),
    "teal": (0.10, 0.66, 0.66),
    "blue": (0.16, 0.38, 0.88),
    "purple": (0.53, 0.24, 0.76),
    "pink": (0.96, 0.47, 0.68),
}
PLAIN_RGB = {
    "grey": (0.60, 0.61, 0.63),
    "cream": (0.93, 0.88, 0.77),
    "mint": (0.74, 0.87, 0.79),
    "lilac": (0.80, 0.77, 0.90),
}
GROUND_RGB = {
    "grass": (0.50, 0.66, 0.36),
    "sand": (0.87, 0.77, 0.55),
    "snow": (0.92, 0.94, 0.97),
    "stone": (0.56, 0.55, 0.55),
}
SKY_RGB = {"blue": (0.55, 0.74, 0.93), "pale": (0.86, 0.90, 0.93), "dusky": (0.90, 0.68, 0.62)}
PAINT_RGB = {DARK: (0.13, 0.13, 0.15), WHITE: (0.95, 0.94, 0.91), WOOD: (0.72, 0.47, 0.26), LEAF: (0.27, 0.52, 0.28)}
PAINT_RGB |= {GLASS: (0.62, 0.79, 0.90)}
PAIR_SCALE, PAIR_APART = 0.56, 0.62  # size and half the distance of two toys
CHUNK = 12  # pictures traced at once; more do not fit the processor's cache
SHADOWED = 2.2  # half side of the floor around the toy that may lie in its shadow


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture."""

    kind: str
    colour: str
    material: str = "matte"
    number: int = 1
    camera: Camera = Camera()
    yaw: float = 0.0  # radians the toy is turned about its own axis, from +z towards +x
    shift: tuple[float, float] = (0.0, 0.0)  # of the toy over the floor, x and z
    light: tuple[float, float, float] = (-0.5, 0.8, 0.6)  # towards it, need not be of length 1
    plain: str | None = "grey"
    ground: str | None = None
    sky: str | None = None

    @property
    def truth(self) -> ToySpec:
        """All that a caption could say."""
        return ToySpec(
            self.kind, self.colour, self.material, self.number, self.camera.view, self.plain, self.ground, self.sky
        )


@dataclass(frozen=True)
class View:
    """A batch of pictures and what is true of every pixel."""

    rgb: Tensor  # [B, 3, S, S] in [0, 1]
    alpha: Tensor  # [B, S, S] in [0, 1], the toy
    depth: Tensor  # [B, S, S] along the view, 0 off the toy
    normal: Tensor  # [B, 3, S, S] in the world, 0 off the toy
    canonical: Tensor  # [B, 3, S, S], place on the toy in its own frame / 2 + 0.5, 0 off the toy
    paint: Tensor  # int64 [B, S, S], index of `toys.PAINTS`, -1 off the toy


def sample_scene(seed: int | np.random.Generator, spec: ToySpec | None = None) -> Scene:
    """A scene drawn from a seed; with a spec one that fulfils it."""
    rng = np.random.default_rng(seed)

    def draw(said: str | None, words: Sequence[str]) -> str:
        drawn = str(rng.choice(words))  # drawn in any case, so that a word more changes nothing else
        return said or drawn

    kind = draw(spec and spec.kind, toys.KINDS)
    colour, material = draw(spec and spec.colour, COLOURS), draw(spec and spec.material, MATERIALS)
    number = 2 if rng.random() < 0.15 else 1
    open_air = rng.random() < 0.5
    plain, ground, sky = (
        draw(spec and spec.plain, PLAINS),
        draw(spec and spec.ground, GROUNDS),
        draw(spec and spec.sky, SKIES),
    )
    if spec is not None and (spec.plain or spec.ground):
        open_air = spec.ground is not None
    angle = rng.normal(0, 0.25, 3)
    return Scene(
        kind,
        colour,
        material,
        number if spec is None else spec.number,
        _camera(rng, spec and spec.view),
        light=(-0.55 + angle[0], 0.8 + angle[1] * 0.5, 0.55 + angle[2]),
        plain=None if open_air else plain,
        ground=ground if open_air else None,
        sky=sky if open_air else None,
    )


def _camera(rng: np.random.Generator, view: str | None) -> Camera:
    """Anywhere around the toy and a little above, or anywhere on the side that was asked for."""
    uniform = rng.random(4)
    theta = math.radians(58 + 30 * uniform[0])
    phi = 2 * math.pi * uniform[1]
    if view in ("front", "back"):
        phi = math.radians(-29 + 58 * uniform[1]) + (math.pi if view == "back" else 0.0)
    elif view == "side":
        phi = math.radians(31 + 118 * uniform[1]) * (1 if uniform[2] < 0.5 else -1)
    elif view == "overhead" or (view is None and uniform[2] > 0.92):
        theta = math.radians(8 + 21 * uniform[0])
    return Camera(radius=3.0 + 0.4 * uniform[3], theta=theta, phi=phi % (2 * math.pi))


def render(scenes: Sequence[Scene], side: int = 64, dtype: torch.dtype = torch.float32) -> View:
    """Pictures of `side` pixels of any scenes, in their order."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        groups[scene.kind, scene.number].append(index)
    order, views = [], []
    for members in groups.values():
        for start in range(0, len(members), CHUNK):
            part = members[start : start + CHUNK]
            views.append(_render_alike([scenes[index] for index in part], side, dtype))
            order += part
    back = torch.tensor(order).argsort()
    return View(*(torch.cat([getattr(view, field.name) for view in views])[back] for field in fields(View)))


def distance(scene: Scene, p: Tensor) -> Tensor:  # [..., 3] world -> [...]
    """The signed distance of a scene's toys."""
    turn, shift = _pose(scene, p.dtype)
    return _solid(scene.kind, scene.number)(((p - shift) @ turn).movedim(-1, 0))


def mesh(scene: Scene, resolution: int = 96) -> tuple[Tensor, Tensor]:  # float32 [V, 3], int64 [F, 3], outward
    """The surface of a scene's toys in the world, from their distances on a grid."""
    points, tets = tetrahedral_grid(resolution)
    points = points * _reach(scene.number)
    turn, shift = _pose(scene, torch.float32)
    verts, faces = marching_tetrahedra(points, -_solid(scene.kind, scene.number)(points.T), tets)
    return verts @ turn.T + shift, faces


def flow(before: Scene, after: Scene, side: int = 64) -> tuple[Tensor, Tensor]:  # [S, S, 2] pixels, bool [S, S]
    """Where every point of the toy in `before` has gone in `after`, and where that is known: on the toy.

    The scenes may differ in camera, yaw and shift; points hidden in `after` are moved all the same.
    """
    view = render([before], side, torch.float64)
    on = view.paint[0] >= 0
    local = (view.canonical[0].permute(1, 2, 0) - 0.5) * 2
    turn, shift = _pose(after, torch.float64)
    there = after.camera.project(local @ turn.T + shift, side)
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) + 0.5,) * 2, indexing="ij")
    moved_by = there - torch.stack([column, row], dim=-1)
    return torch.where(on[..., None], moved_by, torch.zeros_like(moved_by)), on


def _pose(scene: Scene, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rotation [3, 3] from the toy's frame to the world, and its shift [3]."""
    c, s = math.cos(scene.yaw), math.sin(scene.yaw)
    turn = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=dtype)
    return turn, torch.tensor([scene.shift[0], 0.0, scene.shift[1]], dtype=dtype)


def _reach(number: int) -> float:
    return REACH if number == 1 else PAIR_APART + PAIR_SCALE * REACH


def _places(number: int, p: Tensor) -> Points:
    """Points [3, ...] in the frame of the toy they are nearest to; two stand side by side on the floor, smaller."""
    x, y, z = p.unbind(0)
    if number == 1:
        return x, y, z
    x = x - torch.where(x < 0, -PAIR_APART, PAIR_APART)
    return x / PAIR_SCALE, (y - FLOOR * (1 - PAIR_SCALE)) / PAIR_SCALE, z / PAIR_SCALE


def _solid(kind: str, number: int) -> Distance:
    """The distance of one or two toys of a kind, in the frame they stand in."""

    def value(p: Tensor) -> Tensor:
        found = toys.distance(kind, _places(number, p))
        return found if number == 1 else found * PAIR_SCALE

    return value


def _render_alike(scenes: Sequence[Scene], side: int, dtype: torch.dtype) -> View:
    """Scenes of one kind and number, traced together in the frame of the toy."""
    kind, number, count, pixels = scenes[0].kind, scenes[0].number, len(scenes), side * side
    solid = _solid(kind, number)
    turns, shifts = (torch.stack(parts) for parts in zip(*(_pose(scene, dtype) for scene in scenes), strict=True))
    cast = [scene.camera.rays(side, dtype) for scene in scenes]
    o = torch.cat([((o - shift) @ turn).T for (o, _), turn, shift in zip(cast, turns, shifts, strict=True)], dim=1)
    d = torch.cat([(d @ turn).T for (_, d), turn in zip(cast, turns, strict=True)], dim=1)
    lights = unit(torch.tensor([scene.light for scene in scenes], dtype=dtype).T)
    light = torch.einsum("bij,ib->jb", turns, lights)
    fixed, growing = torch.tensor([scene.camera.footprint(side) for scene in scenes], dtype=dtype).T
    sizes = (fixed.repeat_interleave(pixels), growing.repeat_interleave(pixels))
    met = march(solid, o, d, *sizes, _reach(number))
    owner, along = met.index // pixels, d[:, met.index]
    p = o[:, met.index] + met.t * along
    normal = normals(solid, p)
    paint = toys.painted(kind, _places(number, p))
    colour = _surface(scenes, paint, owner, normal, along, light[:, owner], solid, p)

    def canvas(values: Tensor, index: Tensor) -> Tensor:  # [C, M] or [M] -> [B, C, S, S] or [B, S, S]
        flat = values.new_zeros(*values.shape[:-1], count * pixels)
        flat[..., index] = values
        picture = flat.unflatten(-1, (count, side, side))
        return picture if values.ndim == 1 else picture.transpose(0, 1).contiguous()

    cover = torch.zeros_like(sizes[0])
    cover[met.index] = met.cover
    behind = _backdrop(scenes, o, d, light, cover, solid, pixels)
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


def _surface(
    scenes: Sequence[Scene],
    paint: Tensor,  # [M]
    owner: Tensor,  # [M], which scene
    normal: Tensor,  # [3, M], as all that follows
    along: Tensor,
    light: Tensor,
    solid: Distance,
    p: Tensor,
) -> Tensor:  # [3, M]
    """Paint under one soft light and the sky; a highlight on what is glossy."""
    palette = torch.stack([_palette(scene.colour) for scene in scenes]).to(p.dtype)
    base = palette[owner, paint].T
    reached = lit(solid, p + 0.01 * normal, light)
    direct = dot(normal, light).clamp(min=0) * reached
    sky = openness(solid, p, normal) * (0.75 + 0.25 * normal[1])
    colour = base * (0.62 * direct + 0.58 * sky)
    glossy = torch.tensor([scene.material == "glossy" for scene in scenes])[owner] | (paint == GLASS)
    shine = dot(normal, unit(light - along)).clamp(min=0) ** 48 * reached * glossy
    rim = (1 + dot(normal, along)).clamp(0, 1) ** 4 * glossy
    return colour + 0.6 * shine + 0.12 * rim


@cache
def _palette(colour: str) -> Tensor:  # float64 [paints, 3]
    main = torch.tensor(COLOUR_RGB[colour], dtype=torch.float64)
    tones = {MAIN: main, PALE: 0.4 * main + 0.6, DEEP: 0.55 * main}
    tones |= {paint: torch.tensor(rgb, dtype=torch.float64) for paint, rgb in PAINT_RGB.items()}
    return torch.stack([tones[paint] for paint in range(len(toys.PAINTS))])


def _backdrop(
    scenes: Sequence[Scene],
    o: Tensor,  # [3, R]
    d: Tensor,  # [3, R]
    light: Tensor,  # [3, B]
    cover: Tensor,  # [R]
    solid: Distance,
    pixels: int,
) -> Tensor:  # [3, R]
    """Floor and sky, or one colour for both, with the toy's soft shadow and its contact on the floor."""
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


def _colours_behind(scene: Scene) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Of the floor and of the sky."""
    if scene.plain is not None:
        return PLAIN_RGB[scene.plain], PLAIN_RGB[scene.plain]
    return GROUND_RGB[scene.ground or "stone"], SKY_RGB[scene.sky or "pale"]
