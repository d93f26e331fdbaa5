"""A context in memory for tests of engines: records everything, and can cancel or crash at a given report."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio import bundle, encoders
from studio.contract import ModelKey
from studio.errors import Cancelled


class Crash(RuntimeError):
    """What a killed process looks like from inside a test."""


class FakeModels:
    """Loads each key once and remembers what was borrowed."""

    def __init__(self) -> None:
        self.loaded: dict[ModelKey, Any] = {}
        self.borrowed = 0

    @contextmanager
    def borrow(self, key: ModelKey, load: Callable[[], Any]) -> Iterator[Any]:
        if key not in self.loaded:
            self.loaded[key] = load()
        self.borrowed += 1
        try:
            yield self.loaded[key]
        finally:
            self.borrowed -= 1


class FakeContext:
    """See `studio.contract.Context`. After that many checks: `stop_at` cancels, `crash_at` raises, `enough_at`."""

    def __init__(
        self,
        weights: Path | None = None,
        *,
        plan: str = "fast",
        models: FakeModels | None = None,
        stop_at: int | None = None,
        crash_at: int | None = None,
        enough_at: int | None = None,
    ) -> None:
        self.device, self.plan, self.weights = "cpu", plan, weights
        self.models = models or FakeModels()
        self.stop_at, self.crash_at, self.enough_at = stop_at, crash_at, enough_at
        self.checks = 0
        self.uploads: dict[str, bytes] = {}
        self.reports: list[tuple[int, int, str]] = []
        self.previews: list[Image.Image] = []
        self.files: dict[str, bytes] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, dict[str, Any]] = {}
        self.newest: tuple[int, bytes] | None = None
        self.cached: dict[str, bytes] = {}

    def again(self) -> FakeContext:
        """The next attempt at the same job: durable things stay, nothing interferes."""
        following = FakeContext(self.weights, plan=self.plan, models=self.models)
        following.files, following.attributes = dict(self.files), dict(self.attributes)
        following.uploads = self.uploads
        following.numbers, following.newest, following.cached = dict(self.numbers), self.newest, dict(self.cached)
        return following

    def progress(self, step: int, total: int, message: str, preview: Any | None = None) -> None:
        self.reports.append((step, total, message))
        if preview is not None:
            self.previews.append(preview)

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stop_at:
            raise Cancelled("The job was cancelled.")
        if self.checks == self.crash_at:
            raise Crash

    def enough(self) -> bool:
        return self.enough_at is not None and self.checks >= self.enough_at

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator("cpu").manual_seed(seed)

    def input(self, sha: str) -> bytes:
        return self.uploads[sha]

    def save(self, name: str, kind: str, value: Any, **attributes: Any) -> str:
        # Videos are kept as plain arrays, since a test compares their pixels; all else as it would be stored.
        if kind == "video":
            buffer = io.BytesIO()
            np.save(buffer, value)
            data = buffer.getvalue()
        else:
            data, _ = encoders.encode(kind, value, name, {"engine": "fake"}, attributes)
        self.files[name], self.attributes[name] = data, {"kind": kind, **attributes}
        return name

    def input_state(self, sha: str) -> dict[str, Any]:
        return bundle.unpack(self.uploads[sha])

    def done(self, name: str) -> bool:
        return name in self.files

    def metrics(self, name: str, /, **values: Any) -> None:
        self.numbers[name] = {**self.numbers.get(name, {}), **values}

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        self.newest = (step, bundle.pack(state))

    def resume(self) -> tuple[int, dict[str, Any]] | None:
        return None if self.newest is None else (self.newest[0], bundle.unpack(self.newest[1]))

    def cache(self, key: str) -> dict[str, Any] | None:
        return bundle.unpack(self.cached[key]) if key in self.cached else None

    def store_cache(self, key: str, state: Mapping[str, Any]) -> None:
        self.cached[key] = bundle.pack(state)
