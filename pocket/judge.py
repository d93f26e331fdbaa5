"""Labelled crops of the flat world for the judge, and the tests it has to pass before its word counts.

Positives are whole objects at sizes from 64 to 288 px, some blurred as a small autoencoder blurs them. Negatives
are world renders spoilt on purpose: halves of two objects joined, quarters, shuffled tiles, bare background.
Broken samples of kinds that it has never been shown (noise, blobs) are kept for the examination.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage

from engines.ultraimage.judge import COLOURS, KINDS, Component, JudgeNet, crop, find_objects, fit, to_tensor
from pocket.flatworld import Scene, Shape, render, sample_scene

SEED, COUNT = 900, 16_000  # of the training crops; the examination uses the next seed
SIDES = (64, 96, 96, 128, 192, 288)
NOTHING = len(KINDS) - 1


def labelled_crops(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops uint8 [N, 32, 32, 3], kinds and colours int64 [N]; one in four shows no whole object."""
    rng = np.random.default_rng(seed)
    crops, kinds, colours = [], [], []
    while len(crops) < count:
        scene = sample_scene(rng)
        picture = _soften(render(scene, int(rng.choice(SIDES))), rng)
        found = find_objects(picture)
        if len(found) != len(scene.shapes):
            continue
        for component in found:
            shape = _nearest(scene, component, picture.shape)
            crops.append(crop(picture, component))
            kinds.append(KINDS.index(shape.kind))
            colours.append(COLOURS.index(shape.colour))
        if rng.random() < 0.5 and len(crops) > 8:
            crops.append(_spoil(crops, picture, rng))
            kinds.append(NOTHING)
            colours.append(0)
    return np.stack(crops[:count]), np.array(kinds[:count]), np.array(colours[:count])


def noise_crops(seed: int, count: int) -> np.ndarray:  # uint8 [N, 32, 32, 3]
    """Uniform noise at several grains."""
    rng = np.random.default_rng(seed)
    grains = [2 ** rng.integers(0, 4) for _ in range(count)]
    coarse = [rng.integers(0, 256, (32 // grain, 32 // grain, 3)) for grain in grains]
    return np.stack([c.repeat(g, 0).repeat(g, 1) for c, g in zip(coarse, grains, strict=True)]).astype(np.uint8)


def blob_crops(seed: int, count: int) -> np.ndarray:  # uint8 [N, 32, 32, 3]
    """Smooth random saturated shapes on grey: what an undertrained model draws."""
    rng = np.random.default_rng(seed)
    blobs = []
    for _ in range(count):
        field = ndimage.gaussian_filter(rng.normal(size=(32, 32)), rng.uniform(2.0, 3.5))
        inside = (field > np.quantile(field, 0.6))[..., None]
        colour, back = rng.integers(0, 256, 3), np.full(3, rng.integers(110, 240))
        colour[rng.integers(3)] = 20
        blobs.append(np.where(inside, colour, back))
    return np.stack(blobs).astype(np.uint8)


def examine(net: JudgeNet, seed: int, count: int = 2000) -> dict[str, float]:
    """Accuracy on unseen world crops, and how often broken samples are taken for an object."""
    crops, kinds, colours = labelled_crops(seed, count)
    seen_kinds, seen_colours = _predict(net, crops)
    whole = kinds != NOTHING
    return {
        "kind": float((seen_kinds == kinds)[whole].mean()),
        "colour": float((seen_colours == colours)[whole].mean()),
        "spoilt_rejected": float((seen_kinds == NOTHING)[~whole].mean()),
        "noise_rejected": float((_predict(net, noise_crops(seed, count))[0] == NOTHING).mean()),
        "blobs_rejected": float((_predict(net, blob_crops(seed, count))[0] == NOTHING).mean()),
    }


@torch.no_grad()
def _predict(net: JudgeNet, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # uint8 [N, 32, 32, 3]
    kinds, colours = net(to_tensor(crops))
    return kinds.argmax(-1).numpy(), colours.argmax(-1).numpy()


def _nearest(scene: Scene, component: Component, size: tuple[int, ...]) -> Shape:
    """The shape of the scene whose centre lies closest to the component's."""
    v, u = (component.top + component.bottom) / 2 / size[0], (component.left + component.right) / 2 / size[1]
    return min(scene.shapes, key=lambda shape: (shape.u - u) ** 2 + (shape.v - v) ** 2)


def _soften(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half the time: blur, a change of tint, grain."""
    if rng.random() < 0.5:
        return picture
    sigma = rng.uniform(0, 1.2) * picture.shape[0] / 96
    soft = ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0))
    soft = soft * rng.uniform(0.92, 1.08, 3) + rng.normal(0, rng.uniform(0, 8), picture.shape)
    return np.clip(soft, 0, 255).astype(np.uint8)


def _spoil(crops: list[np.ndarray], picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop that shows no single whole object, made of crops that do."""
    one, other = (crops[i] for i in rng.choice(len(crops), 2, replace=False))
    way = rng.integers(5)
    if way == 0:  # halves of two objects side by side
        return np.concatenate([one[:, :16], other[:, 16:]], 1)
    if way == 1:  # one half, the rest its mirror: two objects grown together
        return np.roll(one, 16, axis=int(rng.integers(2)))
    if way == 2:  # shuffled tiles
        tiles = [one[y : y + 8, x : x + 8] for y in range(0, 32, 8) for x in range(0, 32, 8)]
        order = rng.permutation(16)
        return np.concatenate([np.concatenate([tiles[i] for i in order[r : r + 4]], 1) for r in range(0, 16, 4)])
    if way == 3:  # a quarter, enlarged
        y, x = rng.integers(0, 2, 2) * 16
        return one[y : y + 16, x : x + 16].repeat(2, 0).repeat(2, 1)
    swirl = rng.normal(size=(2, 32, 32)) * 40  # a world object melted into a blob
    shift = np.stack([ndimage.gaussian_filter(part, 3.5) for part in swirl]) * 4
    grid = np.mgrid[:32, :32] + shift
    return np.stack([ndimage.map_coordinates(one[..., c], grid, order=1, mode="nearest") for c in range(3)], -1)


def make(folder: Path, log: Callable[[str], None]) -> None:
    """Train the judge, examine it on seeds it has not seen, write its weights and what it achieved."""
    net = fit(*labelled_crops(SEED, COUNT), seed=SEED)
    net.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})  # as it is stored
    report = examine(net, SEED + 1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "examination.json").write_text(json.dumps(report, indent=2) + "\n")
    log(f"judge: {report}")
