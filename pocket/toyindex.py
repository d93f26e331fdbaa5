"""The recipe of the index of training pictures: what is needed to find those that a drawn picture is nearest to.

Of every training picture its seed and its first principal components; the picture itself follows from the seed. So a
few megabytes stand for all that the model has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engines.text2image.neighbours import FILE, small
from pocket import lessonpool, toypool

COMPONENTS = 64
SAMPLE = 6000  # pictures of all sorts, at most, that the components are found on
BATCH = 1000  # pictures taken apart at once


def components(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # float32 [N, D] -> [D], [COMPONENTS, D]
    """The mean and the leading directions, as orthonormal rows."""
    mean = cells.mean(0)
    covariance = np.cov(cells.T)
    _, vectors = np.linalg.eigh(covariance)
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :COMPONENTS].T).astype(np.float32)


def make(
    folder: Path,
    pictures: np.ndarray,  # uint8 [N, S, S, 3]
    seeds: Sequence[int],
    log: Callable[[str], None],
) -> None:
    """Write the index of training pictures."""
    cells = np.concatenate([small(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)])
    mean, basis = components(cells[:: -(-len(cells) // SAMPLE)])
    features = (cells - mean) @ basis.T
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "mean": mean.astype(np.float16),
        "basis": basis.astype(np.float16),
        "features": features.astype(np.float16),
        "seeds": np.array(seeds, np.int64),
    }
    save_file(tensors, folder / FILE)
    kept = 1 - np.square(cells - mean - features @ basis).mean() / np.square(cells - mean).mean()
    log(f"index: {len(seeds)} pictures, {COMPONENTS} components hold {kept:.1%} of their variance")


def train_everything(work: Path, out: Path, log: Callable[[str], None] = print) -> None:
    """The index of everything that the text-to-image models were trained on."""
    sorts = (lessonpool.TOYS, lessonpool.SIDED, lessonpool.PEOPLE)
    files = [file for sort in sorts for file in sort.files(work.parent, True, log)]
    shown = toypool.pictures(files).permute(0, 2, 3, 1).contiguous().numpy()
    make(out, shown, [seed for sort in sorts for seed in sort.seeds()], log)
