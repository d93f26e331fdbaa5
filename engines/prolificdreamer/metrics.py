"""What the page prints under a result: variety of particles, colours gone too far, distance to what is true.

Numbers of pictures need nothing else. For a teacher trained on the world of toys the world itself says what the
object of a prompt looks like from every side; then also how well silhouette, colours and sides agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from pocket.camera import Camera
from pocket.wording import NotUnderstood, ToySpec, parse
from pocket.world import Scene, render, sample_scene

COARSE = 8  # pixels a side at which variety is measured, so that noise does not count as variety
SMALL = 32  # pixels a side at which renders are compared with the truth
OPAQUE = 0.5  # cover from which a pixel belongs to a silhouette
GREY = 0.5  # what both are compared over
AROUND = 8  # views of an object that are measured
COMPASS = 36  # directions among which the most similar one is looked for
AGREES = 30.0  # degrees: the median error up to which an object counts as consistent
TIED = 1.02  # a side that is nearly as similar as the best one is not wrong: many toys are symmetric
TRUE_PICTURES = 48  # of a prompt, for the distance of playground pictures


def variety(pictures: np.ndarray) -> tuple[float, float]:  # float [n, 3, S, S] -> mean, minimum
    """RMS difference of pairs after averaging to 8 x 8 pixels; zero for a single picture."""
    coarse = F.adaptive_avg_pool2d(torch.from_numpy(pictures.clip(0, 1)).float(), COARSE).flatten(1)
    pairs = [float((a - b).square().mean().sqrt()) for a, b in combinations(coarse, 2)]
    return (float(np.mean(pairs)), min(pairs)) if pairs else (0.0, 0.0)


def variety_of_objects(objects: Sequence[np.ndarray]) -> tuple[float, float]:  # each float [8, 3, S, S]
    """`variety` of objects side by side: views from the same side are compared, and their differences averaged."""
    by_side = [variety(np.stack(views)) for views in zip(*objects, strict=True)]
    mean, least = np.mean(by_side, axis=0)
    return float(mean), float(least)


def saturation(pictures: np.ndarray) -> np.ndarray:  # float [n, 3, S, S] -> [n, S, S]
    """Of HSV."""
    clipped = pictures.clip(0, 1)
    most = clipped.max(axis=1)
    return (most - clipped.min(axis=1)) / np.maximum(most, 1e-6)


def of_pictures(pictures: np.ndarray) -> dict[str, float]:  # float [n, 3, S, S], not clamped
    """What can be said of any particles that are pictures."""
    mean, least = variety(pictures)
    colour = saturation(pictures)
    return {
        "variety": mean,
        "least_variety": least,
        "saturation": float(colour.mean()),
        "vividness": float(np.percentile(colour, 97)),
        "clipped": float(((pictures < 0) | (pictures > 1)).mean()),
    }


def spec_of(prompt: str) -> ToySpec | None:
    """What a prompt asks of the world of toys; None if it asks for something else, or leaves kind or colour open."""
    try:
        spec = parse(prompt)
    except NotUnderstood:
        return None
    return spec if spec.colour is not None and spec.number == 1 else None


def distance_to_truth(pictures: np.ndarray, prompt: str) -> float | None:
    """Mean RMSE of each picture [n, 3, S, S] to the nearest of many true ones of the prompt, at 32 pixels."""
    spec = spec_of(prompt)
    if spec is None:
        return None
    truth = _true_pictures(spec)
    given = F.adaptive_avg_pool2d(torch.from_numpy(pictures.clip(0, 1)).float(), SMALL)
    apart = (given[:, None] - truth[None]).square().mean(dim=(2, 3, 4)).sqrt()
    return float(apart.min(dim=1).values.mean())


@lru_cache(maxsize=8)
def _true_pictures(spec: ToySpec) -> torch.Tensor:  # [N, 3, 32, 32]
    scenes = [sample_scene(seed, spec) for seed in range(TRUE_PICTURES)]
    return F.adaptive_avg_pool2d(render(scenes, 2 * SMALL).rgb, SMALL)


def true_views(
    prompt: str, radius: float, theta: float, fovy: float, count: int
) -> tuple[np.ndarray, np.ndarray] | None:  # colour over grey [n, 3, 32, 32], cover [n, 32, 32]
    """What the object of a prompt looks like from `count` sides, beginning in front; None if nobody knows.

    theta and fovy in degrees. The prompt is understood with or without a scene; material is matte if unsaid.
    """
    spec = spec_of(prompt)
    return (
        None if spec is None else _true_views(spec.kind, str(spec.colour), spec.material, radius, theta, fovy, count)
    )


@lru_cache(maxsize=32)
def _true_views(
    kind: str, colour: str, material: str | None, radius: float, theta: float, fovy: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    scene = Scene(kind, colour, material or "matte")
    cameras = [Camera(radius, float(np.radians(theta)), 2 * np.pi * index / count, fovy) for index in range(count)]
    view = render([replace(scene, camera=camera) for camera in cameras], 2 * SMALL)
    cover = view.alpha[:, None]
    over_grey = F.avg_pool2d(view.rgb * cover + GREY * (1 - cover), 2)
    return over_grey.numpy(), F.avg_pool2d(cover, 2)[:, 0].numpy()


def of_object(
    colour: np.ndarray,  # float [8, 3, S, S], renders over mid-grey from `AROUND` sides, beginning in front
    cover: np.ndarray,  # float [8, S, S]
    prompt: str,
    radius: float,
    theta: float,
    fovy: float,
) -> dict[str, float | bool | None]:
    """Silhouette, colours and sides of an object against the truth; sharpness and clipping in any case.

    A silhouette is what is covered by more than half, so that soft edges are judged by where they lie.
    """
    size = (SMALL, SMALL)
    picture = F.adaptive_avg_pool2d(torch.from_numpy(colour).float(), size).numpy()
    inside = F.adaptive_avg_pool2d(torch.from_numpy(cover)[:, None].float(), size)[:, 0].numpy()
    found: dict[str, float | bool | None] = {
        "sharpness": sharpness(picture, inside),
        "clipped": float(((colour <= 0.004) | (colour >= 0.996)).mean()),
        "vividness": float(np.percentile(saturation(picture), 97)),
    }
    truth = true_views(prompt, radius, theta, fovy, AROUND)
    if truth is None:
        return found
    true_colour, true_cover = truth
    here, there = inside > OPAQUE, true_cover > OPAQUE
    error = side_error(picture, prompt, radius, theta, fovy)
    return found | {
        "iou": float((here & there).sum() / max((here | there).sum(), 1)),
        "rmse": float(np.sqrt(np.square(picture - true_colour).mean())),
        "side_error": error,
        "consistent": error is not None and error <= AGREES,
        "true_sharpness": sharpness(true_colour, true_cover),
    }


def sharpness(picture: np.ndarray, cover: np.ndarray) -> float:  # [n, 3, S, S], [n, S, S]
    """Mean length of the slope of brightness where the object is, in levels a pixel."""
    grey = picture.mean(axis=1)
    slope = np.hypot(*np.gradient(grey, axis=(1, 2)))
    weight = np.where(cover > OPAQUE, 1.0, 0.0)
    return float((slope * weight).sum() / max(weight.sum(), 1.0))


def side_error(picture: np.ndarray, prompt: str, radius: float, theta: float, fovy: float) -> float | None:  # degrees
    """Median difference between where each render [8, 3, 32, 32] was taken and the true side it looks most like."""
    truth = true_views(prompt, radius, theta, fovy, COMPASS)
    if truth is None:
        return None
    errors = []
    for index, seen in enumerate(picture):
        apart = np.sqrt(np.square(truth[0] - seen).mean(axis=(1, 2, 3)))
        own = round(index * COMPASS / len(picture)) % COMPASS
        best = int(apart.argmin())
        step = abs(best - own)
        degrees = min(step, COMPASS - step) * 360 / COMPASS
        errors.append(0.0 if apart[own] <= TIED * apart[best] else degrees)
    return float(np.median(errors))
