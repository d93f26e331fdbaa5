"""Shards of a pool in a scratch folder: named by number, made where they are missing, each from its own seeds.

Knows nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STRIDE = 1_000_000  # seeds between the first of one shard and the first of the next


def filled(
    folder: Path,
    count: int,
    first_seed: int,
    fill: Callable[[Path, int], None],  # writes one shard: its file, its first seed
    doing: str,  # what is said of it while it is made
    resume: bool,  # whether those that are there may stay
    log: Callable[[str], None],
) -> list[Path]:
    """The files of `count` shards, each of which is there."""
    paths = [folder / f"{index}.safetensors" for index in range(count)]
    for index, path in enumerate(paths):
        if not (resume and path.exists()):
            log(f"{doing}, part {index + 1} of {count}")
            fill(path, first_seed + index * STRIDE)
    return paths
