"""Toy people: portraits of as many identities as there are seeds, each from any side, in any light and mood.

An identity decides everything that stays: face, skin, hair, eyes, what is worn. A portrait adds what changes from
picture to picture: pose, camera, light, expression, background. What an identity is built of is in `pocket.heads`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pocket import renderer
from pocket.camera import Camera
from pocket.heads import BEARDS, HAIR_STYLES, HATS, SKINS, UNDER_HATS, Expression, Identity
from pocket.renderer import View
from pocket.wording import COLOURS, HAIRS, PLAINS, PersonSpec, write

EYES = ("brown", "blue", "green", "grey")
PATTERNS = ("plain", "stripes", "dots")
MOODS = {  # curve and opening of the mouth, opening of the eyes, height of the brows
    "calm": (0.35, 0.0, 1.0, 0.0),
    "smiling": (1.0, 0.0, 0.95, 0.1),
    "laughing": (0.9, 1.0, 0.75, 0.3),
    "surprised": (0.0, 0.8, 1.15, 1.0),
    "sad": (-0.7, 0.0, 0.8, -0.3),
}
LONGEST = 22  # words and commas of a caption: with begin and end, what the pocket text encoder takes


@dataclass(frozen=True)
class Portrait:
    """One picture of one identity."""

    identity: Identity
    expression: Expression = Expression()
    yaw: float = 0.0  # radians turned from +z towards +x
    pitch: float = 0.0  # radians, nodding forward
    roll: float = 0.0  # radians, leaning to its left
    shift: tuple[float, float, float] = (0.0, -0.06, 0.0)
    camera: Camera = Camera(radius=2.8, theta=1.5, fovy=38.0)
    light: tuple[float, float, float] = (-0.5, 0.8, 0.6)
    exposure: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the light's colours
    plain: str | None = "grey"
    ground: str | None = None
    sky: str | None = None

    @property
    def view(self) -> str:
        """The word for the side it is seen from."""
        away = abs((math.degrees(self.camera.phi - self.yaw) + 180) % 360 - 180)
        return "front" if away < 30 else "back" if away >= 150 else "side"

    @property
    def truth(self) -> PersonSpec:
        """All that a caption could say."""
        person = self.identity
        hair = person.hair_colour if person.hair != "bald" else None
        return PersonSpec(person.shirt, hair, person.worn, self.view, self.plain)

    def frame(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] from the person's frame to the world, and its shift [3]."""
        turns = []
        for (first, second), angle in (((2, 0), self.yaw), ((1, 2), self.pitch), ((0, 1), self.roll)):
            turn = torch.eye(3, dtype=torch.float64)
            turn[first, first] = turn[second, second] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            turns.append(turn)
        yaw, pitch, roll = turns
        return (yaw @ pitch @ roll).to(dtype), torch.tensor(self.shift, dtype=dtype)


def identity(seed: int | np.random.Generator, spec: PersonSpec | None = None) -> Identity:
    """Who a seed is; with a spec somebody who fulfils it."""
    rng = np.random.default_rng(seed)
    chances = {"hat": rng.random() < 0.3, "glasses": rng.random() < 0.35, "beard": rng.random() < 0.3}
    if spec is not None:
        chances |= dict.fromkeys(spec.worn, True)
    hats, beards = str(rng.choice(HATS)), str(rng.choice(BEARDS))
    frames = str(rng.choice(("round", "square")))
    styles, covered = str(rng.choice(HAIR_STYLES)), str(rng.choice(UNDER_HATS))
    hair = covered if chances["hat"] or (spec is not None and spec.hair and styles == "bald") else styles
    hair_colour, shirt = str(rng.choice(HAIRS)), str(rng.choice(COLOURS))
    hat_colour = str(rng.choice([colour for colour in COLOURS if colour != shirt]))
    shape = rng.uniform(-1, 1, 9).round(4).tolist()
    return Identity(
        skin=int(rng.integers(len(SKINS))),
        hair=hair,
        hair_colour=(spec and spec.hair) or hair_colour,
        eyes=str(rng.choice(EYES)),
        shirt=(spec and spec.shirt) or shirt,
        pattern=str(rng.choice(PATTERNS)),
        hat=hats if chances["hat"] else None,
        hat_colour=hat_colour,
        glasses=frames if chances["glasses"] else None,
        beard=beards if chances["beard"] else None,
        shape=tuple(shape),
    )


def sample(identity_seed: int, view_seed: int, spec: PersonSpec | None = None) -> Portrait:
    """A picture of the identity of one seed, drawn from another; with a spec one that fulfils it."""
    rng = np.random.default_rng((view_seed, 1))
    uniform, normal = rng.random(6), rng.normal(size=8)
    side = spec.view if spec is not None and spec.view else "front" if uniform[0] < 0.75 else "side"
    angle = {"front": 29 * (2 * uniform[1] - 1), "back": 180 + 29 * (2 * uniform[1] - 1)}.get(
        side, (31 + 49 * uniform[1]) * (1 if uniform[2] < 0.5 else -1)
    )
    mood = MOODS[str(rng.choice(list(MOODS)))]
    plain = str(rng.choice(PLAINS))
    warm, bright = 0.03 * normal[0], 1.08 + 0.08 * normal[1]
    return Portrait(
        identity(identity_seed, spec),
        Expression(*mood, gaze=(float(0.5 * normal[2]), float(0.3 * normal[3]))),
        yaw=math.radians(angle),
        pitch=math.radians(float(np.clip(5 * normal[4], -11, 11))),
        roll=math.radians(float(np.clip(5 * normal[5], -11, 11))),
        shift=(float(0.05 * normal[6]), float(-0.1 + 0.025 * normal[7]), 0.0),
        camera=Camera(radius=2.55 + 0.35 * uniform[3], theta=math.radians(80 + 10 * uniform[4]), fovy=38.0),
        light=(-0.9 + 1.8 * uniform[5], 0.7 + 0.1 * normal[0], 1.0),
        exposure=(bright * (1 + warm), bright, bright * (1 - warm)),
        plain=(spec and spec.plain) or plain,
    )


def disguised(portrait: Portrait, seed: int) -> Portrait:
    """The same face under other hair and in other clothes: what does not make a face, from a seed of its own."""
    other, rng = identity(np.random.default_rng((seed, 2))), np.random.default_rng((seed, 3))
    clothes = {
        name: getattr(other, name) for name in ("shirt", "pattern", "hat", "hat_colour", "hair", "hair_colour")
    }
    glasses = portrait.identity.glasses if rng.random() < 0.7 else other.glasses
    return replace(portrait, identity=replace(portrait.identity, **clothes, glasses=glasses))


def render(portraits: Sequence[Portrait], side: int = 64, dtype: torch.dtype = torch.float32) -> View:
    """Pictures of `side` pixels of any portraits, in their order; those of one identity are traced together."""
    return renderer.render(portraits, [portrait.identity for portrait in portraits], side, dtype)


def caption(portrait: Portrait, seed: int | np.random.Generator | None = None, longest: int = LONGEST) -> str:
    """What is true of a portrait, in at most `longest` words and commas; with a seed some of it, by chance."""
    rng = np.random.default_rng(seed)
    said = portrait.truth
    hushed = {"view": 0.3, "plain": 0.4, "hair": 0.5, "shirt": 0.5}  # how often each is not said
    unsaid = [name for name, chance in hushed.items() if seed is not None and rng.random() < chance]
    if seed is not None:
        said = replace(said, worn=tuple(thing for thing in said.worn if rng.random() < 0.6))
    order = [str(name) for name in rng.permutation(list(hushed))] if seed is not None else list(hushed)
    for name in (*unsaid, *(name for name in order if name not in unsaid)):
        if name not in unsaid and words_of(said) <= longest:
            break
        said = replace(said, **{name: None})
    return write(said)


def words_of(spec: PersonSpec) -> int:
    """Words and commas of its caption."""
    return len(write(spec).replace(",", " ,").split())
