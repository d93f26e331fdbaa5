"""Which training pictures a picture resembles: a compact index of all of them, and the search in it.

Of every training picture lie here its seed and a few principal components of its pixels at a quarter of the size.
They find candidates; how near those really are is measured on the pictures themselves, which the world renders from
their seeds (`metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

CELLS = 16  # pixels of the small picture that components are taken of, a side
FILE = "index.safetensors"


@dataclass(frozen=True)
class TrainingIndex:
    """Seeds and features of all training pictures."""

    mean: np.ndarray  # float32 [D]
    basis: np.ndarray  # float32 [K, D], orthonormal rows
    features: np.ndarray  # float32 [N, K]
    seeds: np.ndarray  # int64 [N]

    @classmethod
    def load(cls, folder: Path) -> TrainingIndex:
        """The index of a folder."""
        found = load_file(folder / FILE)
        floats = (found[name].astype(np.float32) for name in ("mean", "basis", "features"))
        return cls(*floats, found["seeds"])

    def candidates(self, picture: np.ndarray, count: int) -> list[int]:  # uint8 [H, W, 3]
        """Seeds of the pictures whose components are nearest, nearest first."""
        place = self.basis @ (small(picture[None])[0] - self.mean)
        apart = np.square(self.features - place).sum(1)
        nearest = np.argsort(apart, kind="stable")[:count]
        return [int(self.seeds[i]) for i in nearest]


def small(pictures: np.ndarray) -> np.ndarray:  # uint8 [B, H, W, 3] -> float32 [B, CELLS * CELLS * 3], in [0, 1]
    """Means over cells, which is what components are taken of; sides must be multiples of CELLS."""
    count, height, width = pictures.shape[:3]
    cells = pictures.reshape(count, CELLS, height // CELLS, CELLS, width // CELLS, 3).astype(np.float32)
    return cells.mean((2, 4)).reshape(count, -1) / 255


@lru_cache(maxsize=2)
def shipped(folder: Path) -> TrainingIndex:
    """The index of a folder, read once per process."""
    return TrainingIndex.load(folder)
