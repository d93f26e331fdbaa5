"""The pictures that the pocket models of toys and people are trained on: three sorts, in shards of a scratch folder.

Whoever trains on them shares the files; what is missing is rendered. Knows which seeds lie in which file, nothing of
what is learned from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pocket import lessons, peoplepool, toypool
from pocket.shards import STRIDE, filled


@dataclass(frozen=True)
class Sort:
    """Pictures of one sort."""

    name: str  # of its folder
    first: int  # seed
    shards: int
    scenes: int  # of a shard
    fill: Callable[[Path, int, int], None]  # writes one: its file, its first seed, its scenes
    each: int = 1  # pictures of a scene

    def files(self, folder: Path, resume: bool, log: Callable[[str], None], count: int | None = None) -> list[Path]:
        """The files of the first `count` shards in `folder`/name, each of which is there."""

        def fill(path: Path, seed: int) -> None:
            self.fill(path, seed, self.scenes)

        doing = f"rendering {self.name}"
        return filled(folder / self.name, count or self.shards, self.first, fill, doing, resume, log)

    def seeds(self) -> list[int]:
        """Of every picture in order, the seed that `lessons.lesson` knows it by."""
        places = product(range(self.shards), range(self.scenes), range(self.each))
        return [self.first + (shard * STRIDE + scene) * self.each + one for shard, scene, one in places]


TOYS = Sort("toys", lessons.TOYS, 16, 2000, toypool.fill)
SIDED = Sort("sided", lessons.SIDED, 8, 2000, toypool.fill)
PEOPLE = Sort("people", lessons.PEOPLE, 6, 250, peoplepool.fill, each=lessons.PORTRAITS)
