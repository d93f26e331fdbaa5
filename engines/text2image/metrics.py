"""What the page prints under a picture: whether it shows what was asked for, and which training pictures are near.

A caption is read by the world's own grammar, so that what the judge sees can be compared with what was said; and the
world itself shows the caption, which is the baseline. What a caption leaves unsaid is not judged, nor are people.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch

from engines.text2image.judge import Verdict
from engines.text2image.neighbours import TrainingIndex
from pocket import people, world
from pocket.lessons import lesson
from pocket.people import Portrait
from pocket.renderer import View
from pocket.wording import NotUnderstood, Spec, ToySpec, parse, write
from pocket.world import Scene, sample_scene
from studio.errors import InvalidInput

CANDIDATES = 16  # training pictures that are rendered and compared pixel by pixel
# A colour for each paint of a figure, and black for what is none.
PAINTS_SHOWN = (
    (0.90, 0.30, 0.25),
    (0.98, 0.75, 0.45),
    (0.60, 0.35, 0.75),
    (0.30, 0.45, 0.85),
    (0.95, 0.95, 0.90),
    (0.60, 0.42, 0.25),
    (0.35, 0.70, 0.35),
    (0.45, 0.80, 0.90),
    (0.0, 0.0, 0.0),
)


@dataclass(frozen=True)
class Neighbour:
    """A training picture and how far it is."""

    seed: int
    distance: float  # root mean square over pixels and channels, grey levels
    picture: np.ndarray  # uint8 [H, W, 3]


def wanted(prompt: str) -> Spec | None:
    """What a prompt says, or None if the grammar does not hold it."""
    try:
        return parse(prompt)
    except NotUnderstood:
        return None


def about_toys(spec: Spec | None) -> TypeGuard[ToySpec]:
    """Whether a caption speaks of toys, which the judge knows."""
    return isinstance(spec, ToySpec)


def world_scene(prompt: str, seed: int) -> Scene | Portrait:
    """A scene of the world for a prompt. Raises InvalidInput with the grammar's own sentence."""
    try:
        spec = parse(prompt)
    except NotUnderstood as error:
        raise InvalidInput(str(error), "The world shows only what its grammar holds.", field="prompt") from error
    return sample_scene(seed, spec) if isinstance(spec, ToySpec) else people.sample(seed, seed, spec)


def agreement(spec: ToySpec, seen: Verdict, sided: Set[str]) -> dict[str, object]:
    """Whether what was said is what is seen; None for what was left unsaid or cannot be told.

    Nothing is right in a picture without a whole toy. `sided` are the kinds whose side can be told.
    """
    whole = seen.kind is not None
    tells = spec.view is not None and spec.kind in sided
    return {
        "kind": seen.kind == spec.kind,
        "colour": None if spec.colour is None else whole and seen.colour == spec.colour,
        "view": whole and seen.view == spec.view if tells else None,
        "number": whole and seen.number == spec.number,
    }


def described(seen: Verdict) -> str:
    """A verdict in the world's words."""
    if seen.kind is None:
        return "no whole toy"
    return write(ToySpec(seen.kind, seen.colour, number=seen.number, view=seen.view))


def pictures_of(scenes: Sequence[Scene | Portrait], side: int) -> np.ndarray:  # uint8 [B, side, side, 3]
    """What the world shows, as training saw it."""
    rgb = torch.cat([view.rgb for view in _views(scenes, side)])
    return (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _views(scenes: Sequence[Scene | Portrait], side: int) -> list[View]:
    """What is seen of toys, all in one view, or of people, each in its own."""
    if all(isinstance(scene, Scene) for scene in scenes):
        return [world.render([scene for scene in scenes if isinstance(scene, Scene)], side)]
    return [
        people.render([scene], side) if isinstance(scene, Portrait) else world.render([scene], side)
        for scene in scenes
    ]


def layers(scene: Scene | Portrait, side: int) -> np.ndarray:  # uint8 [side, 5 * side, 3]
    """Render, depth, normals, place on the figure and paints of a scene, side by side."""
    (view,) = _views([scene], side)
    on = view.paint[0] >= 0
    depth = view.depth[0]
    near, far = (depth[on].min(), depth[on].max()) if on.any() else (0.0, 1.0)
    closeness = torch.where(on, 1 - 0.8 * (depth - near) / max(float(far - near), 1e-6), 0.0)
    shown = [
        view.rgb[0],
        closeness.expand(3, -1, -1),
        (view.normal[0] + 1) / 2 * on,
        view.canonical[0] * on,
        torch.tensor(PAINTS_SHOWN)[view.paint[0]].permute(2, 0, 1),  # paint -1, off the figure, is the last one
    ]
    strip = torch.cat(shown, dim=2).clamp(0, 1)
    return (strip * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def nearest(picture: np.ndarray, index: TrainingIndex, count: int) -> list[Neighbour]:  # uint8 [S, S, 3]
    """The training pictures that a picture is nearest to, nearest first."""
    found = index.candidates(picture, CANDIDATES)
    pictures = pictures_of([lesson(seed) for seed in found], picture.shape[0])
    apart = np.sqrt(np.square(pictures.astype(np.float32) - picture).mean((1, 2, 3)))
    order = np.argsort(apart, kind="stable")[:count]
    return [Neighbour(found[i], float(apart[i]), pictures[i]) for i in order]


def row(pictures: Sequence[np.ndarray], times: int, gap: int = 8) -> np.ndarray:  # uint8 [H, W, 3] each, alike
    """Pictures side by side, every pixel `times` wide, with white gaps."""
    tall = [picture.repeat(times, 0).repeat(times, 1) for picture in pictures]
    white = np.full((tall[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for picture in tall for part in (white, picture)][1:], axis=1)
