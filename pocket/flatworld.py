"""The flat world: one horizon, one or two saturated objects, and a caption that is true of the picture.

A `Scene` is a description in relative units, so it renders at any width and height: positions are fractions of
the picture's width and height, lengths are fractions of its shorter side. Sky and ground are pale (saturation
below 0.3), the objects are saturated (above 0.7), which is what lets `engines/ultraimage/metrics.py` count them
without a learned model. Everything follows from one seed. Pure numpy; knows nothing of models or tokenizers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pocket.grammar import COLOURS, GROUNDS, KINDS, SIZES, SKIES, ObjectSpec, SceneSpec, parse, write

__all__ = ["Scene", "Shape", "caption", "layout", "parse", "render", "sample_scene", "speak", "truth"]

# Linear mixing happens in display values: the world is a drawing, not a photograph. All RGB in [0, 1].
OBJECT_RGB = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.95, 0.50, 0.07),
    "yellow": (0.95, 0.86, 0.10),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.11, 0.32, 0.85),
    "purple": (0.55, 0.14, 0.74),
}
SKY_RGB = {
    "pale": (0.84, 0.90, 0.96),
    "rosy": (0.97, 0.84, 0.86),
    "golden": (0.98, 0.92, 0.79),
    "lilac": (0.89, 0.84, 0.97),
    "minty": (0.83, 0.96, 0.89),
    "misty": (0.87, 0.87, 0.87),
}
GROUND_RGB = {
    "sandy": (0.63, 0.57, 0.47),
    "grassy": (0.46, 0.54, 0.41),
    "stony": (0.51, 0.51, 0.53),
    "earthy": (0.53, 0.44, 0.39),
    "dusky": (0.45, 0.43, 0.52),
}
RADII = {"small": (0.110, 0.125), "medium": (0.145, 0.165), "large": (0.185, 0.215)}
REACH = 1.15  # no kind extends farther than this many radii from its centre
GAP = 0.06  # clear space between two objects, in shorter sides
HORIZON = (0.35, 0.70)  # where the horizon may lie, as a fraction of the height from the top
LAYOUT = 1 + len(KINDS) + len(COLOURS) + 4  # channels of `layout`
WAVES = 4  # plane waves in the ground's texture


@dataclass(frozen=True)
class Shape:
    """One object: centre (u, v) as fractions of width and height, radius as a fraction of the shorter side."""

    kind: str
    colour: str
    size: str
    u: float
    v: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A whole picture before it has a size; `spoken` is the part of the truth that its caption tells."""

    shapes: tuple[Shape, ...]
    sky: str
    ground: str
    horizon: float  # fraction of the height, from the top
    waves: tuple[tuple[float, float, float, float], ...]  # (x, y cycles per shorter side, phase, amplitude)
    spoken: SceneSpec


def truth(scene: Scene) -> SceneSpec:
    """Everything there is to say about a scene."""
    return _whole(scene.shapes, scene.sky, scene.ground)


def speak(whole: SceneSpec, rng: np.random.Generator) -> SceneSpec:
    """Choose which optional words a caption uses: sizes and the ground half the time, the sky mostly."""
    things = tuple(replace(thing, size=thing.size if rng.random() < 0.5 else None) for thing in whole.objects)
    return SceneSpec(things, whole.sky if rng.random() < 0.8 else None, whole.ground if rng.random() < 0.5 else None)


def caption(scene: Scene, full: bool = False) -> str:
    """The scene's caption: the words chosen when it was sampled, or all of them."""
    return write(truth(scene) if full else scene.spoken)


def sample_scene(seed: int | np.random.Generator, spec: SceneSpec | None = None, two: float = 0.5) -> Scene:
    """Draw a scene; with a spec, one that fulfils it. `two` is the probability of a second object."""
    rng = np.random.default_rng(seed)
    if spec is None or not spec.objects:
        things: tuple[ObjectSpec, ...] = (ObjectSpec(),) * (2 if rng.random() < two else 1)
    else:
        things = spec.objects
    shapes = _place(things, rng)
    sky = (spec and spec.sky) or str(rng.choice(SKIES))
    ground = (spec and spec.ground) or str(rng.choice(GROUNDS))
    waves = tuple(_wave(rng) for _ in range(WAVES))
    horizon = float(rng.uniform(*HORIZON))
    spoken = spec if spec is not None and spec.objects else speak(_whole(shapes, sky, ground), rng)
    return Scene(shapes, sky, ground, horizon, waves, spoken)


def render(scene: Scene, width: int = 96, height: int | None = None) -> np.ndarray:
    """The scene as uint8 RGB [height, width, 3], anti-aliased; square when only the width is given."""
    height = height or width
    short = min(width, height)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / short)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / short)[:, None]
    tall = height / short
    depth = y / tall  # [height, 1], 0 at the top, 1 at the bottom

    sky = np.array(SKY_RGB[scene.sky], np.float32)
    sky = sky + (0.5 * (1.0 - sky)) * np.clip(depth / scene.horizon, 0, 1)[..., None]  # paler towards the horizon
    texture = sum(a * np.sin(2 * math.pi * (fx * x + fy * y) + phase) for fx, fy, phase, a in scene.waves)
    light = 1.0 + texture + 0.06 * (0.5 - (depth - scene.horizon) / (1.0 - scene.horizon))
    ground = np.array(GROUND_RGB[scene.ground], np.float32) * light[..., None]
    below = np.clip((y - scene.horizon * tall) * short + 0.5, 0, 1)[..., None]
    picture = sky * (1 - below) + ground * below
    for shape in scene.shapes:
        px, py = x - shape.u * width / short, y - shape.v * tall
        cover = np.clip(0.5 - _distance(shape.kind, px, py, shape.radius) * short, 0, 1)[..., None]
        shade = 1.0 - 0.08 * np.clip((px + py) / shape.radius, -1, 1)[..., None]  # lit from the upper left
        picture = picture * (1 - cover) + np.array(OBJECT_RGB[shape.colour], np.float32) * shade * cover
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def layout(scene: Scene, cells: int = 12, fine: int = 4) -> np.ndarray:  # float32 [LAYOUT, cells, cells]
    """What lies in each cell of a square picture, as a network may be asked to tell: sky; every kind's and every
    colour's share of the cell; and around the nearest object, fading with distance, that it is near, the way from
    its centre in radii, across and down, and its radius.

    Shares are of `fine` x `fine` samples a cell.
    """
    at = (np.arange(cells * fine, dtype=np.float32) + 0.5) / (cells * fine)
    x, y = at[None, :], at[:, None]
    kinds = np.zeros((len(KINDS), cells * fine, cells * fine), np.float32)
    colours = np.zeros((len(COLOURS), cells * fine, cells * fine), np.float32)
    near = np.zeros((4, cells * fine, cells * fine), np.float32)
    for shape in scene.shapes:
        px, py = x - shape.u, y - shape.v
        inside = _distance(shape.kind, px, py, shape.radius) < 0
        kinds[KINDS.index(shape.kind)] += inside
        colours[COLOURS.index(shape.colour)] += inside
        across, down = px / shape.radius, py / shape.radius
        close = np.exp(-(across**2 + down**2) / 3)
        field = np.stack([close, close * across, close * down, close * shape.radius / RADII["medium"][1]])
        near = np.where(close > near[0], field, near)
    sky = np.broadcast_to(y < scene.horizon, kinds.shape[1:])[None]
    whole = np.concatenate([sky, kinds, colours, near]).astype(np.float32)
    return whole.reshape(-1, cells, fine, cells, fine).mean((2, 4))


def _place(things: tuple[ObjectSpec, ...], rng: np.random.Generator) -> tuple[Shape, ...]:
    """Fill in what the spec leaves open and find positions where nothing touches."""
    chosen = []
    for thing in things:
        size = thing.size or str(rng.choice(SIZES))
        kind, colour = thing.kind or str(rng.choice(KINDS)), thing.colour or str(rng.choice(COLOURS))
        chosen.append((kind, colour, size, float(rng.uniform(*RADII[size]))))
    for attempt in range(1, 4001):
        shrink = 1.0 if attempt <= 2000 else 0.97 ** ((attempt - 2000) // 100)  # crowds of three or more give way
        shapes: list[Shape] = []
        for kind, colour, size, radius in chosen:
            margin = REACH * radius * shrink + 0.02
            u, v = (float(value) for value in rng.uniform(margin, 1 - margin, 2))
            shapes.append(Shape(kind, colour, size, u, v, radius * shrink))
        if all(_apart(a, b) for i, a in enumerate(shapes) for b in shapes[:i]):
            return tuple(shapes)
    raise ValueError(f"No room for {len(things)} objects: ask for fewer or smaller ones.")


def _apart(a: Shape, b: Shape) -> bool:
    return math.hypot(a.u - b.u, a.v - b.v) >= REACH * (a.radius + b.radius) + GAP


def _wave(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """One long, nearly horizontal ripple: slow enough for a small autoencoder to keep."""
    cycles, tilt = rng.uniform(2.0, 6.0), rng.normal(0.0, 0.35)
    amplitude = 0.07 / cycles**0.5
    return (
        float(cycles * math.sin(tilt)),
        float(cycles * math.cos(tilt)),
        float(rng.uniform(0, 2 * math.pi)),
        amplitude,
    )


def _whole(shapes: tuple[Shape, ...], sky: str, ground: str) -> SceneSpec:
    return SceneSpec(tuple(ObjectSpec(s.kind, s.colour, s.size) for s in shapes), sky, ground)


def _distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline of a kind (negative inside), y downwards, same units as the radius."""
    if kind == "disc":
        return np.hypot(x, y) - radius
    if kind == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * radius) - 0.25 * radius
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84 * radius
    if kind == "cross":
        along = np.maximum(np.abs(x) - radius, np.abs(y) - 0.32 * radius)
        across = np.maximum(np.abs(x) - 0.32 * radius, np.abs(y) - radius)
        return np.minimum(along, across)
    if kind == "triangle":
        slope = math.sin(math.pi / 3) * np.abs(x) - 0.5 * (y - 0.2 * radius)
        return np.maximum(slope - 0.55 * radius, y - 0.2 * radius - 0.55 * radius)
    return _star(x, y, 1.12 * radius)


def _star(x: np.ndarray, y: np.ndarray, outer: float, waist: float = 0.48) -> np.ndarray:
    """Five-pointed star: fold the plane into one half-point, then measure against its single edge."""
    angle = np.arctan2(x, -y)  # 0 at the top point
    folded = np.abs((angle + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    length = np.hypot(x, y)
    px, py = length * np.sin(folded), length * np.cos(folded)
    ex, ey = waist * outer * math.sin(math.pi / 5), waist * outer * math.cos(math.pi / 5) - outer
    norm = math.hypot(ex, ey)
    return (px * -ey - (outer - py) * ex) / norm
