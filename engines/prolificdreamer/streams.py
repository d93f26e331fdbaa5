"""Randomness of a run: one generator for every purpose and step, all from the seed.

Nothing remembers how much was drawn before, so a run that goes on from any step draws what an undisturbed one would,
and no state of a generator has to be kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

MakeGenerator = Callable[[int], Any]  # seed -> torch.Generator on the CPU, as `Context.generator`


class Streams:
    """Generators by purpose and counters."""

    def __init__(self, make: MakeGenerator, *path: object) -> None:
        self._make, self._path = make, path

    def under(self, *path: object) -> Streams:
        """Those of a part of the run."""
        return Streams(self._make, *self._path, *path)

    def at(self, *purpose: object) -> Any:
        """A generator of its own for this purpose, e.g. `at("camera", step)`."""
        name = "/".join(str(part) for part in (*self._path, *purpose))
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return self._make(int.from_bytes(digest, "little") >> 1)
