"""The world of toys in three dimensions: scenes from a seed or a caption, and everything that is true of them.

One or two toys of a kind on a floor, seen by a camera. A view holds colour, coverage, depth, normals, canonical
coordinates and paints; flow and meshes come from the same distances. Everything follows from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engines.shared.tetrahedra import marching_tetrahedra, tetrahedral_grid
from pocket import renderer, toys
from pocket.camera import Camera
from pocket.renderer import View
from pocket.sdf import Points
from pocket.toys import DARK, DEEP, FLOOR, GLASS, LEAF, MAIN, PALE, REACH, WHITE, WOOD
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
PAINT_RGB = {DARK: (0.13, 0.13, 0.15), WHITE: (0.95, 0.94, 0.91), WOOD: (0.72, 0.47, 0.26), LEAF: (0.27, 0.52, 0.28)}
PAINT_RGB |= {GLASS: (0.62, 0.79, 0.90)}
PAIR_SCALE, PAIR_APART = 0.56, 0.62  # size and half the distance of two toys


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

    @property
    def figure(self) -> Toy:
        """What stands there."""
        return Toy(self.kind, self.number)

    def frame(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] from the toy's frame to the world, and its shift [3]."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        turn = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=dtype)
        return turn, torch.tensor([self.shift[0], 0.0, self.shift[1]], dtype=dtype)


@dataclass(frozen=True)
class Toy:
    """One toy of a kind, or two side by side on the floor, smaller: a `renderer.Figure`."""

    kind: str
    number: int = 1

    @property
    def reach(self) -> float:
        """Radius of the ball that holds it."""
        return REACH if self.number == 1 else PAIR_APART + PAIR_SCALE * REACH

    def distance(self, p: Tensor) -> Tensor:  # [3, M] -> [M]
        """The signed distance in the frame it stands in."""
        found = toys.distance(self.kind, self._places(p))
        return found if self.number == 1 else found * PAIR_SCALE

    shade = distance

    def painted(self, p: Tensor) -> Tensor:  # [3, M] -> int64 [M]
        """Index of `toys.PAINTS`."""
        return toys.painted(self.kind, self._places(p))

    def look(self, scenes: Sequence[Scene], p: Tensor, paint: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [3, M] and what is glossy [M]: all of a glossy toy, glass on any."""
        palette = torch.stack([_palette(scene.colour) for scene in scenes]).to(p.dtype)
        glossy = torch.tensor([scene.material == "glossy" for scene in scenes])[owner] | (paint == GLASS)
        return palette[owner, paint].T, glossy

    def _places(self, p: Tensor) -> Points:
        """Points [3, ...] in the frame of the toy they are nearest to."""
        x, y, z = p.unbind(0)
        if self.number == 1:
            return x, y, z
        x = x - torch.where(x < 0, -PAIR_APART, PAIR_APART)
        return x / PAIR_SCALE, (y - FLOOR * (1 - PAIR_SCALE)) / PAIR_SCALE, z / PAIR_SCALE


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
    """Pictures of `side` pixels of any scenes, in their order; paints are indices of `toys.PAINTS`."""
    return renderer.render(scenes, [scene.figure for scene in scenes], side, dtype)


def distance(scene: Scene, p: Tensor) -> Tensor:  # [..., 3] world -> [...]
    """The signed distance of a scene's toys."""
    turn, shift = scene.frame(p.dtype)
    return scene.figure.distance(((p - shift) @ turn).movedim(-1, 0))


def mesh(scene: Scene, resolution: int = 96) -> tuple[Tensor, Tensor]:  # float32 [V, 3], int64 [F, 3], outward
    """The surface of a scene's toys in the world, from their distances on a grid."""
    points, tets = tetrahedral_grid(resolution)
    points = points * scene.figure.reach
    turn, shift = scene.frame(torch.float32)
    verts, faces = marching_tetrahedra(points, -scene.figure.distance(points.T), tets)
    return verts @ turn.T + shift, faces


def flow(before: Scene, after: Scene, side: int = 64) -> tuple[Tensor, Tensor]:  # [S, S, 2] pixels, bool [S, S]
    """Where every point of the toy in `before` has gone in `after`, and where that is known: on the toy.

    The scenes may differ in camera, yaw and shift; points hidden in `after` are moved all the same.
    """
    view = render([before], side, torch.float64)
    on = view.paint[0] >= 0
    local = (view.canonical[0].permute(1, 2, 0) - 0.5) * 2
    turn, shift = after.frame(torch.float64)
    there = after.camera.project(local @ turn.T + shift, side)
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) + 0.5,) * 2, indexing="ij")
    moved_by = there - torch.stack([column, row], dim=-1)
    return torch.where(on[..., None], moved_by, torch.zeros_like(moved_by)), on


@cache
def _palette(colour: str) -> Tensor:  # float64 [paints, 3]
    main = torch.tensor(COLOUR_RGB[colour], dtype=torch.float64)
    tones = {MAIN: main, PALE: 0.4 * main + 0.6, DEEP: 0.55 * main}
    tones |= {paint: torch.tensor(rgb, dtype=torch.float64) for paint, rgb in PAINT_RGB.items()}
    return torch.stack([tones[paint] for paint in range(len(toys.PAINTS))])
