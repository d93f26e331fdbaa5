"""A cached pool of toys seen from all sides alike, for whoever learns to look at them.

A camera that may stand anywhere seldom looks from above, so every other picture is of a side that the seed names.
Rendered once, to a scratch folder, never into the repository: scenes follow from the seeds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pocket import toypool
from pocket.lessons import sided
from pocket.wording import ToySpec
from pocket.world import Scene, render, sample_scene

BATCH = 480  # pictures rendered at once: enough of every kind to fill the tracer's chunks
PAIRS = 0.2  # share of pictures with two toys where the side is prescribed


@dataclass(frozen=True)
class Sights:
    """Pictures and what is true of them."""

    pictures: np.ndarray  # uint8 [N, S, S, 3]
    truths: tuple[ToySpec, ...]

    def __len__(self) -> int:
        return len(self.truths)

    def __add__(self, more: Sights) -> Sights:
        return Sights(np.concatenate([self.pictures, more.pictures]), self.truths + more.truths)


def scene_of(seed: int) -> Scene:
    """The scene of a seed: even seeds as the world draws them, odd ones from any of the four sides alike."""
    return sided(seed, PAIRS) if seed % 2 else sample_scene(seed)


def pictures_of(scenes: Iterable[Scene], side: int = 64) -> np.ndarray:  # uint8 [N, side, side, 3]
    """The scenes as pictures are stored."""
    rgb = render(list(scenes), side).rgb
    return (rgb * 255 + 0.5).byte().permute(0, 2, 3, 1).contiguous().numpy()


def of_pool(files: Iterable[Path]) -> Sights:
    """What shards hold of the pool of toys that the text-to-image model is trained on."""
    pool = toypool.load(files)
    return Sights(pool.pictures.permute(0, 2, 3, 1).contiguous().numpy(), pool.truths)


def gather(folder: Path, first_seed: int, count: int, log: Callable[[str], None]) -> Sights:
    """The pictures of the seeds `first_seed ...`; parts that already lie in the folder are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in tqdm(range(first_seed, first_seed + count, BATCH), "toys from all sides", disable=None):
        path = folder / f"{start}.npy"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            with unfinished.open("wb") as file:
                np.save(file, pictures_of(scene_of(seed) for seed in range(start, start + BATCH)))
            unfinished.rename(path)
            log(f"toys: {start + BATCH - first_seed} of {count} pictures drawn")
        parts.append(np.load(path))
    truths = tuple(scene_of(seed).truth for seed in range(first_seed, first_seed + count))
    return Sights(np.concatenate(parts)[:count], truths)
