"""What toy people are built of: solids for head, hair, hat, glasses, beard and shoulders, and a face painted on.

A person stands on the floor like every toy, as a bust, and looks towards +z. Only what an expression cannot move is a
solid; eyes, brows, mouth and cheeks are painted with soft edges on the skin, so that they stay clear at 64 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pocket.sdf import (
    Points,
    at,
    blend,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    leaning,
    length,
    mirrored,
    pebble,
    sphere,
    tilted,
    torus,
    union,
    without,
)
from pocket.toys import FLOOR, REACH, Parts

if TYPE_CHECKING:
    from pocket.people import Portrait

SKIN, HAIR, SHIRT, TRIM, HAT, BAND, FRAME, BEARD = range(8)
PAINTS = ("skin", "hair", "shirt", "trim", "hat", "band", "frame", "beard")
SKINS = (
    (0.98, 0.84, 0.74),
    (0.95, 0.77, 0.64),
    (0.88, 0.68, 0.52),
    (0.76, 0.55, 0.40),
    (0.60, 0.42, 0.30),
    (0.45, 0.31, 0.23),
)
HAIR_RGB = {
    "black": (0.12, 0.11, 0.13),
    "brown": (0.38, 0.23, 0.14),
    "blond": (0.93, 0.77, 0.40),
    "ginger": (0.80, 0.38, 0.14),
    "grey": (0.56, 0.57, 0.60),
    "white": (0.93, 0.92, 0.90),
}
EYE_RGB = {
    "brown": (0.34, 0.20, 0.10),
    "blue": (0.20, 0.42, 0.75),
    "green": (0.22, 0.50, 0.28),
    "grey": (0.40, 0.45, 0.5),
}
INK, MOUTH, TEETH, BLUSH = (0.10, 0.08, 0.09), (0.50, 0.14, 0.15), (0.97, 0.96, 0.94), (0.93, 0.45, 0.42)
HAIR_STYLES = ("bald", "short", "parted", "bob", "long", "curly", "bun", "pigtails", "mohawk", "spiky")
UNDER_HATS = ("short", "parted", "bob", "long", "pigtails")
HATS = ("cap", "beanie", "top", "sun", "party")
BEARDS = ("full", "moustache", "goatee")
EYE_Y, EYE_X, MOUTH_Y = 0.16, 0.165, -0.13
SOFT = 0.03  # about a pixel at 64: over how much the edges of what is painted fade


@dataclass(frozen=True)
class Expression:
    """What a face does."""

    curve: float = 0.3  # of the mouth: 1 smiles, -1 does the opposite
    opened: float = 0.0  # the mouth, 0 .. 1
    eyes: float = 1.0  # opening of the eyes
    brows: float = 0.0  # raised by, -1 .. 1
    gaze: tuple[float, float] = (0.0, 0.0)  # of the irises, to the picture's right and up, about -1 .. 1


@dataclass(frozen=True)
class Identity:
    """Who somebody is: a `renderer.Figure`. `shape` holds nine numbers in [-1, 1], see `_Face`."""

    skin: int
    hair: str
    hair_colour: str
    eyes: str
    shirt: str
    pattern: str
    hat: str | None
    hat_colour: str
    glasses: str | None
    beard: str | None
    shape: tuple[float, ...]

    @property
    def worn(self) -> tuple[str, ...]:
        """The words for what is worn."""
        return tuple(name for name in ("hat", "glasses", "beard") if getattr(self, name))

    @property
    def reach(self) -> float:
        """Radius of the ball that holds a person."""
        return REACH

    def distance(self, p: Tensor) -> Tensor:  # [3, M] -> [M]
        """The signed distance of the whole person."""
        return union(*(value for _, value in self._parts(_xyz(p))))

    def shade(self, p: Tensor) -> Tensor:  # [3, M] -> [M]
        """The distance without what is too small to throw a shadow that is seen."""
        x = _xyz(p)
        parts = [*_HAIR[self.hair](self, x), *(_HAT[self.hat](self, x) if self.hat else [])]
        return union(_head(self, x), _shoulders(x), *(value for _, value in parts))

    def painted(self, p: Tensor) -> Tensor:  # [3, M] -> int64 [M]
        """Index of PAINTS; of two solids equally near the one that is listed later."""
        parts = self._parts(_xyz(p))
        nearest = torch.stack([value for _, value in reversed(parts)]).argmin(dim=0)
        return nearest.new_tensor([paint for paint, _ in reversed(parts)])[nearest]

    def look(self, scenes: Sequence[Portrait], p: Tensor, paint: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [3, M], with face and pattern, and what is glossy [M]: the frame of glasses."""
        palette = _palette(self).to(p.dtype)
        base = self._patterned(palette[paint].T, p, paint, palette)
        face = ((paint == SKIN) & (p[2] > 0.1)).nonzero()[:, 0]
        base[:, face] = self._face(scenes, base[:, face], _xyz(p[:, face]), owner[face])
        exposure = torch.tensor([scene.exposure for scene in scenes], dtype=p.dtype)
        return base * exposure[owner].T, paint == FRAME

    def _parts(self, p: Points) -> Parts:
        parts = [*_bust(self, p), *_HAIR[self.hair](self, p)]
        if self.beard:
            parts.append((BEARD, _BEARD[self.beard](self, p)))
        if self.glasses:
            parts.append((FRAME, _glasses(self, p)))
        if self.hat:
            parts += _HAT[self.hat](self, p)
        return parts

    @property
    def _wide(self) -> float:
        """Half the width of the head."""
        return 0.42 + 0.045 * self.shape[0]

    @property
    def _jaw(self) -> float:
        return 0.30 + 0.05 * self.shape[1]

    @property
    def _gap(self) -> float:
        """From the middle of the face to that of an eye."""
        return EYE_X + 0.022 * self.shape[2]

    def _patterned(self, base: Tensor, p: Tensor, paint: Tensor, palette: Tensor) -> Tensor:
        """Stripes or dots on the shirt in the colour of its trim."""
        if self.pattern == "plain":
            return base
        if self.pattern == "stripes":
            off = ((p[1] / 0.17) % 1 - 0.5).abs() * 0.17 - 0.04
        else:
            off = length(*(((p[axis] / 0.19) % 1 - 0.5) * 0.19 for axis in (0, 1))) - 0.05
        share = (0.5 - off / SOFT).clamp(0, 1) * (paint == SHIRT)
        return base + share * (palette[TRIM][:, None] - base)

    def _face(self, scenes: Sequence[Portrait], base: Tensor, p: Points, owner: Tensor) -> Tensor:
        """Cheeks, mouth, eyes and brows over the skin [3, M]."""
        moods = [scene.expression for scene in scenes]
        told = [(mood.curve, mood.opened, mood.eyes, mood.brows, *mood.gaze) for mood in moods]
        curve, opened, eyes, brows, right, up = torch.tensor(told, dtype=base.dtype)[owner].T
        x, y, _ = p
        side, size = x.abs(), 1 + 0.15 * self.shape[3]

        def put(colour: tuple[float, float, float], off: Tensor, strength: float = 1.0, soft: float = SOFT) -> None:
            nonlocal base
            base = base + strength * (0.5 - off / soft).clamp(0, 1) * (base.new_tensor(colour)[:, None] - base)

        put(BLUSH, length(side - 0.25, y + 0.02) - 0.07, 0.4, 0.1)
        half = 0.12 + 0.025 * self.shape[4]
        bend = (x / half).square()
        lip = MOUTH_Y + 0.055 * curve * bend - y  # above 0 below the line of the mouth
        put(
            MOUTH,
            torch.maximum((lip - 0.04 * opened).abs() - (0.012 + 0.045 * opened) * (1 - 0.8 * bend), side - half),
        )
        put(TEETH, torch.maximum((lip - 0.01).abs() - 0.02, side - 0.6 * half) + 0.2 * (1 - opened.clamp(0, 1)))
        high = 0.08 * size * eyes
        apart = side - self._gap
        white = (length(apart / (0.075 * size), (y - EYE_Y) / high) - 1) * high
        put(TEETH, white)
        middle = length(x - x.sign() * self._gap - 0.015 * right, y - EYE_Y - 0.012 * up)
        put(EYE_RGB[self.eyes], torch.maximum(middle - 0.058 * size, white))
        put(INK, torch.maximum(middle - 0.034 * size, white))
        shine = length(x - x.sign() * self._gap - 0.015 * right + 0.02, y - EYE_Y - 0.012 * up - 0.024)
        put(TEETH, torch.maximum(shine - 0.01, white))
        brow = EYE_Y + 0.135 * size + 0.035 * brows + 0.35 * self.shape[5] * apart
        put(
            _darker(HAIR_RGB[self.hair_colour]),
            torch.maximum((y - brow).abs() - 0.018 - 0.008 * self.shape[6], apart.abs() - 0.085),
        )
        return base


def _xyz(p: Tensor) -> Points:
    x, y, z = p.unbind(0)
    return x, y, z


def _darker(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    return (0.6 * rgb[0], 0.6 * rgb[1], 0.6 * rgb[2])


@cache
def _palette(who: Identity) -> Tensor:  # float64 [paints, 3]
    from pocket.world import COLOUR_RGB

    shirt, hat, hair = COLOUR_RGB[who.shirt], COLOUR_RGB[who.hat_colour], HAIR_RGB[who.hair_colour]
    pale = (0.35 * shirt[0] + 0.63, 0.35 * shirt[1] + 0.63, 0.35 * shirt[2] + 0.63)
    return torch.tensor(
        [SKINS[who.skin], hair, shirt, pale, hat, _darker(hat), INK, _darker(hair)], dtype=torch.float64
    )


def _head(who: Identity, p: Points) -> Tensor:
    skull = pebble(at(p, y=0.22), who._wide, 0.47, 0.44)
    chin = pebble(at(p, 0, -0.07, 0.06), who._jaw, 0.27, 0.33)
    return blend(skull, chin, 0.16)


def _shoulders(p: Points) -> Tensor:
    return torch.maximum(pebble(at(p, y=-0.84), 0.7, 0.42, 0.38), FLOOR - p[1])


def _bust(who: Identity, p: Points) -> Parts:
    """Head, nose, ears and neck; shirt and collar."""
    nose = pebble(at(p, 0, 0.05, 0.44), 0.055 + 0.02 * who.shape[7], 0.075, 0.075 + 0.03 * who.shape[8])
    ears = pebble(at(mirrored(p), who._wide - 0.005, 0.12, -0.02), 0.055, 0.1, 0.075)
    neck = pebble(at(p, y=-0.36), 0.17, 0.26, 0.17)
    return [
        (SKIN, union(_head(who, p), nose, ears, neck)),
        (SHIRT, _shoulders(p)),
        (TRIM, torus(at(p, y=-0.45), 0.18, 0.05)),
    ]


def _shell(who: Identity, p: Points, thick: float) -> Tensor:
    """A skull grown by `thick`, a little up and back."""
    return pebble(at(p, y=0.24, z=-0.02), who._wide + thick, 0.47 + thick, 0.44 + thick)


def _open(p: Points, line: float, depth: float) -> Tensor:
    """Inside: what is in front of z = depth and below y = line."""
    return torch.maximum(p[1] - line, depth - p[2])


def _cap(who: Identity, p: Points, thick: float, low: float, line: float = 0.44, depth: float = 0.06) -> Tensor:
    """Hair close to the head down to `low`, the face left free below `line`."""
    return torch.maximum(without(_shell(who, p, thick), _open(p, line, depth)), low - p[1])


def _short(who: Identity, p: Points) -> Parts:
    return [(HAIR, _cap(who, p, 0.05, 0.08))]


def _parted(who: Identity, p: Points) -> Parts:
    fringe = leaning(p, 24)
    return [(HAIR, torch.maximum(without(_shell(who, p, 0.07), _open(fringe, 0.42, 0.05)), -p[1]))]


def _bob(who: Identity, p: Points) -> Parts:
    """A fringe above the brows, and hair down both cheeks."""
    face = torch.maximum(pebble(at(p, 0, 0.0, 0.5), 0.92 * who._wide, 0.5, 0.62), p[1] - 0.4)
    return [(HAIR, torch.maximum(without(_shell(who, p, 0.08), face), -0.24 - p[1]))]


def _long(who: Identity, p: Points) -> Parts:
    (_, top), *_ = _bob(who, p)
    return [(HAIR, union(top, ellipsoid(at(p, 0, -0.2, -0.2), who._wide + 0.12, 0.55, 0.24)))]


def _curly(who: Identity, p: Points) -> Parts:
    side = mirrored(p)
    places = ((0.0, 0.72, 0.14), (0.2, 0.66, 0.2), (0.34, 0.52, 0.08), (0.42, 0.3, -0.06), (0.36, 0.1, -0.2))
    places += ((0.18, 0.62, -0.25), (0.2, 0.28, -0.42))
    balls = union(*(sphere(at(side, *place), 0.17) for place in places))
    return [(HAIR, union(balls, _cap(who, p, 0.05, 0.0)))]


def _bun(who: Identity, p: Points) -> Parts:
    return [(HAIR, union(_cap(who, p, 0.05, 0.05, line=0.48), sphere(at(p, 0, 0.82, -0.1), 0.18)))]


def _pigtails(who: Identity, p: Points) -> Parts:
    tails = pebble(at(mirrored(p), who._wide + 0.15, -0.02, -0.1), 0.14, 0.24, 0.14)
    return [
        (HAIR, union(_cap(who, p, 0.05, 0.0), tails)),
        (BAND, sphere(at(mirrored(p), who._wide + 0.06, 0.2, -0.1), 0.07)),
    ]


def _mohawk(who: Identity, p: Points) -> Parts:
    crest = without(ellipsoid(at(p, 0, 0.42, -0.08), 0.09, 0.5, 0.5), _open(p, 0.55, 0.1))
    return [(HAIR, torch.maximum(crest, 0.1 - p[1]))]


def _spiky(who: Identity, p: Points) -> Parts:
    side = mirrored(p)
    spikes = [cone(at(leaning(side, lean), 0, 0.76, 0.06), 0.15, 0.01, 0.16) for lean in (0, 28, 56)]
    back = cone(at(tilted(side, -40), 0.1, 0.74, 0), 0.16, 0.01, 0.16)
    return [(HAIR, union(_cap(who, p, 0.05, 0.1), *spikes, back))]


_HAIR = {
    "bald": lambda who, p: [],
    "short": _short,
    "parted": _parted,
    "bob": _bob,
    "long": _long,
    "curly": _curly,
    "bun": _bun,
    "pigtails": _pigtails,
    "mohawk": _mohawk,
    "spiky": _spiky,
}


def _full(who: Identity, p: Points) -> Tensor:
    beard = pebble(at(p, 0, -0.12, 0.08), who._jaw + 0.05, 0.29, 0.36)
    mouth = pebble(at(p, 0, MOUTH_Y - 0.01, 0.5), 0.15, 0.08, 0.3)
    return torch.maximum(without(beard, mouth), p[1] + 0.03)


def _moustache(who: Identity, p: Points) -> Tensor:
    return capsule(mirrored(p), (0.03, -0.05, 0.41), (0.14, -0.075, 0.36), 0.035)


def _goatee(who: Identity, p: Points) -> Tensor:
    return pebble(at(p, 0, -0.31, 0.3), 0.11, 0.13, 0.13)


_BEARD = {"full": _full, "moustache": _moustache, "goatee": _goatee}


def _glasses(who: Identity, p: Points) -> Tensor:
    """Two rims, a bridge and temples."""
    side, gap = mirrored(p), who._gap
    eye = at(side, gap, EYE_Y, 0.44)
    if who.glasses == "round":
        rim = torus((eye[0], eye[2], eye[1]), 0.125, 0.017)
    else:
        rim = without(box(eye, 0.135, 0.11, 0.018, 0.018), box(eye, 0.105, 0.08, 0.1, 0.02))
    bridge = pebble(at(p, 0, EYE_Y + 0.03, 0.45), gap - 0.09, 0.02, 0.03)
    temple = box(at(side, who._wide, EYE_Y + 0.02, 0.12), 0.016, 0.016, 0.2, 0.01)
    return union(rim, bridge, temple)


def _dome(who: Identity, p: Points, high: float, line: float = 0.42) -> Tensor:
    dome = pebble(at(p, y=line - 0.05, z=-0.02), who._wide + 0.1, high, 0.55)
    return torch.maximum(dome, line - p[1])


def _cap_hat(who: Identity, p: Points) -> Parts:
    return [(HAT, _dome(who, p, 0.46)), (BAND, ellipsoid(at(p, 0, 0.45, 0.5), 0.32, 0.045, 0.3))]


def _beanie(who: Identity, p: Points) -> Parts:
    rim = ellipsoid(at(p, y=0.44, z=-0.02), who._wide + 0.14, 0.1, 0.58)
    return [(HAT, _dome(who, p, 0.5)), (BAND, union(rim, sphere(at(p, 0, 0.9, -0.02), 0.12)))]


def _top_hat(who: Identity, p: Points) -> Parts:
    crown = cylinder(at(p, y=0.72, z=-0.02), 0.4, 0.26, 0.03)
    return [
        (HAT, union(crown, cylinder(at(p, y=0.47, z=-0.02), 0.66, 0.03))),
        (BAND, cylinder(at(p, y=0.56, z=-0.02), 0.415, 0.06, 0.01)),
    ]


def _sun_hat(who: Identity, p: Points) -> Parts:
    brim = ellipsoid(at(p, y=0.45, z=-0.02), 0.82, 0.05, 0.8)
    return [
        (HAT, union(_dome(who, p, 0.42), brim)),
        (BAND, ellipsoid(at(p, y=0.52, z=-0.02), who._wide + 0.11, 0.06, 0.57)),
    ]


def _party_hat(who: Identity, p: Points) -> Parts:
    return [
        (HAT, cone(at(p, y=0.82, z=-0.02), 0.27, 0.03, 0.22)),
        (BAND, sphere(at(p, 0, 1.03, -0.02), 0.07)),
    ]


_HAT = {"cap": _cap_hat, "beanie": _beanie, "top": _top_hat, "sun": _sun_hat, "party": _party_hat}
