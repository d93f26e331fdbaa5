"""The world of moving things: one saturated object that glides over a wall that stands still, and bounces.

What goes on for ever and never repeats within a clip, so that a video that loops, freezes or fades can be told from
one that goes on, by the object alone, and drift by the wall alone. Everything follows from the seed. Pure numpy;
knows nothing of models.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

SIDE = 64  # pixels
KINDS = ("ball", "square", "ring", "star", "triangle")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SIZES = ("small", "large")
WALLS = ("pale", "rosy", "golden", "lilac", "minty", "misty")
DIRECTIONS = ("right", "up", "left", "down")
COLOUR_RGB = {
    "red": (0.88, 0.12, 0.14),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.94, 0.82, 0.08),
    "green": (0.10, 0.62, 0.22),
    "blue": (0.10, 0.30, 0.88),
    "purple": (0.56, 0.12, 0.76),
}
WALL_RGB = {
    "pale": (0.80, 0.87, 0.94),
    "rosy": (0.95, 0.80, 0.82),
    "golden": (0.95, 0.88, 0.73),
    "lilac": (0.86, 0.80, 0.95),
    "minty": (0.78, 0.93, 0.85),
    "misty": (0.83, 0.83, 0.83),
}
RADII = {"small": (0.095, 0.115), "large": (0.140, 0.165)}  # of the side
SPEED = (0.0130, 0.0150)  # of the side, a frame; 0.83 to 0.96 pixels at 64
WORDS = ("a", "an", "moving", "over", "wall", *SIZES, *COLOURS, *KINDS, *WALLS, *DIRECTIONS)


@dataclass(frozen=True)
class ClipSpec:
    """What a caption says; None is left unsaid. `direction` is where the object moves at first."""

    kind: str
    colour: str | None = None
    size: str | None = None
    direction: str | None = None
    wall: str | None = None


@dataclass(frozen=True)
class Clip:
    """Everything that decides a clip of any length. Lengths are of the side, y downwards."""

    kind: str
    colour: str
    size: str
    wall: str
    radius: float
    start: tuple[float, float]  # centre in the first frame, x and y
    velocity: tuple[float, float]  # a frame

    @property
    def truth(self) -> ClipSpec:
        """All that a caption could say."""
        x, y = self.velocity
        straight = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
        return ClipSpec(self.kind, self.colour, self.size, straight, self.wall)


def sample(seed: int | np.random.Generator, spec: ClipSpec | None = None) -> Clip:
    """A clip drawn from a seed; with a spec one that fulfils it."""
    rng = np.random.default_rng(seed)

    def draw(said: str | None, words: tuple[str, ...]) -> str:
        drawn = str(rng.choice(words))  # drawn in any case, so that a word more changes nothing else
        return said or drawn

    kind, colour = draw(spec and spec.kind, KINDS), draw(spec and spec.colour, COLOURS)
    size, wall = draw(spec and spec.size, SIZES), draw(spec and spec.wall, WALLS)
    direction = DIRECTIONS.index(draw(spec and spec.direction, DIRECTIONS))
    radius, speed = float(rng.uniform(*RADII[size])), float(rng.uniform(*SPEED))
    angle = (direction + float(rng.uniform(-0.5, 0.5))) * math.pi / 2
    x, y = (float(value) for value in rng.uniform(radius, 1 - radius, 2))
    return Clip(kind, colour, size, wall, radius, (x, y), (speed * math.cos(angle), -speed * math.sin(angle)))


def centres(clip: Clip, frames: int) -> np.ndarray:  # float64 [frames, 2], x and y
    """Where the object is: straight ahead, reflected where its edge meets the border."""
    room = 1 - 2 * clip.radius
    straight = np.array(clip.start) - clip.radius + np.arange(frames)[:, None] * np.array(clip.velocity)
    return clip.radius + room - np.abs(straight % (2 * room) - room)


def render(clip: Clip, frames: int, side: int = SIDE) -> np.ndarray:  # uint8 [frames, side, side, 3]
    """The clip, anti-aliased: a wall with a soft light from above, the object's shadow on it, the object."""
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = at[None, None, :], at[None, :, None]
    middle = centres(clip, frames).astype(np.float32)
    px, py = x - middle[:, :1, None], y - middle[:, 1:, None]
    wall = np.array(WALL_RGB[clip.wall], np.float32) * (1.06 - 0.16 * y[..., None])
    shade = np.clip(0.5 - _distance(clip.kind, px - 0.03, py - 0.04, clip.radius) / 0.05, 0, 1)[..., None]
    cover = np.clip(0.5 - _distance(clip.kind, px, py, clip.radius) * side, 0, 1)[..., None]
    light = 1 - 0.12 * np.clip((px + py) / clip.radius, -1, 1)[..., None]
    behind = wall * (1 - 0.16 * shade)
    picture = behind + cover * (np.array(COLOUR_RGB[clip.colour], np.float32) * light - behind)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline of a kind, negative inside."""
    if kind == "ball":
        return np.hypot(x, y) - radius
    if kind == "ring":
        return np.abs(np.hypot(x, y) - 0.72 * radius) - 0.28 * radius
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.84 * radius
    if kind == "triangle":
        low = 0.2 * radius
        return np.maximum(math.sin(math.pi / 3) * np.abs(x) - 0.5 * (y - low), y - low) - 0.55 * radius
    return _star(x, y, 1.1 * radius)


def _star(x: np.ndarray, y: np.ndarray, outer: float, waist: float = 0.5) -> np.ndarray:
    """Five points: the plane folded into half of one, then measured against its single edge."""
    folded = np.abs((np.arctan2(x, -y) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    length = np.hypot(x, y)
    ex, ey = waist * outer * math.sin(math.pi / 5), waist * outer * math.cos(math.pi / 5) - outer
    return (length * np.sin(folded) * -ey - (outer - length * np.cos(folded)) * ex) / math.hypot(ex, ey)


def write(spec: ClipSpec) -> str:
    """The caption of a spec: a small red ball moving right over a pale wall."""
    words = [word for word in (spec.size, spec.colour, spec.kind) if word]
    caption = " ".join(["an" if words[0][0] in "aeiou" else "a", *words])
    if spec.direction:
        caption += f" moving {spec.direction}"
    if spec.wall:
        caption += f" over a {spec.wall} wall"
    return caption


def _pattern() -> re.Pattern[str]:
    def one(name: str, words: tuple[str, ...]) -> str:
        return f"(?P<{name}>{'|'.join(words)})"

    return re.compile(
        rf"an? (?:{one('size', SIZES)} )?(?:{one('colour', COLOURS)} )?{one('kind', KINDS)}"
        rf"(?: moving {one('direction', DIRECTIONS)})?(?: over a {one('wall', WALLS)} wall)?"
    )


_PATTERN = _pattern()


def parse(caption: str) -> ClipSpec | None:
    """The spec of a caption; None where the grammar does not hold it."""
    found = _PATTERN.fullmatch(" ".join(caption.lower().split()))
    return ClipSpec(**found.groupdict()) if found else None


def speak(truth: ClipSpec, rng: np.random.Generator) -> ClipSpec:
    """What a caption says of a clip: the kind always, the rest mostly."""
    said = rng.random(4) < (0.92, 0.5, 0.7, 0.7)
    names = ("colour", "size", "direction", "wall")
    kept = {name: getattr(truth, name) if keep else None for name, keep in zip(names, said, strict=True)}
    return ClipSpec(truth.kind, **kept)
