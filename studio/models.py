"""The shared model cache: components borrowed by key, loaded once, kept within byte budgets for GPU memory and RAM.

Sizes are measured on what was loaded, each storage counted once. Beyond a budget the least recently used components
that nobody borrows make way: from a GPU to RAM first, from RAM for good. This module knows no engine and no job; it
treats a component as anything with tensors (and `.to(device)`, if it can move).
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from studio.contract import ModelKey
from studio.errors import Cancelled, OutOfMemory, Paused
from studio.measure import ModelFacts, ModelStats, gib, is_out_of_memory, moved, storages

log = logging.getLogger(__name__)

RAM = "cpu"
RESERVE = 256 * 2**20  # bytes that must stay free when a load exceeds the budget


@dataclass
class _Entry:
    """One component: loading or moving while `busy`, on its way out while `leaving`."""

    key: ModelKey
    value: Any = None
    place: str = RAM  # where its tensors are: its own device, or RAM after off-loading
    sizes: dict[int, int] = field(default_factory=dict)  # storage -> bytes
    hidden: int = 0  # bytes the GPU's allocator counted beyond the tensors found
    borrowed: int = 0
    used: int = 0  # the cache's tick of the last borrowing
    busy: bool = True
    leaving: bool = False
    error: BaseException | None = None


def collect(place: str) -> None:
    """Give memory back now: modules with hooks are cyclic, and torch keeps freed GPU blocks for itself."""
    gc.collect()
    if place != RAM and "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


class ModelCache:
    """Components of one worker process. `free(device)` says how many bytes a device really has left."""

    def __init__(
        self,
        ram_budget: int,
        vram_budget: int,
        free: Callable[[str], int],
        reserve: int = RESERVE,
        collect: Callable[[str], None] = collect,
    ) -> None:
        self._budgets = (ram_budget, vram_budget)
        self._free = free
        self._reserve = reserve
        self._collect = collect
        self._changed = threading.Condition()
        self._entries: dict[ModelKey, _Entry] = {}
        self._known_sizes: dict[ModelKey, int] = {}  # of components loaded before, so that room is made in time
        self._labels: dict[str, frozenset[ModelKey]] = {}
        self._counts = dict.fromkeys(("hits", "loads", "failures", "offloads", "reloads", "evictions"), 0)
        self._tick = 0

    @contextmanager
    def borrow(self, key: ModelKey, load: Callable[[], Any]) -> Iterator[Any]:
        """The component under `key` on its device; `load` is called by the first who asks, the others wait.

        A failing load raises for all who waited and leaves nothing. Raises OutOfMemory if the device is full of what
        others borrow.
        """
        entry = self._take(key, load)
        try:
            yield entry.value
        finally:
            with self._changed:
                entry.borrowed -= 1
                self._changed.notify_all()
            self._fit(entry.place)

    def evict_all(self) -> int:
        """Drop every component that nobody borrows; returns the bytes given back."""
        dropped = 0
        while (victim := self._victim(None)) is not None:
            dropped += _bytes(victim)
            self._drop(victim)
        return dropped

    def remember(self, label: str, keys: Collection[ModelKey]) -> None:
        """Call a set of components by a name, e.g. a job's model key, for `warm_keys`."""
        if label and keys:
            with self._changed:
                self._labels[label] = frozenset(keys)

    def warm_keys(self) -> list[str]:
        """The names under which everything is still loaded."""
        with self._changed:
            return sorted(label for label, keys in self._labels.items() if keys <= self._entries.keys())

    def evictable(self, place: str) -> int:
        """Bytes on `place` that would make way for a new load."""
        with self._changed:
            return sum(
                _bytes(e) for e in self._entries.values() if e.place == place and not e.borrowed and not e.busy
            )

    def stats(self) -> ModelStats:
        """A consistent picture of the cache."""
        with self._changed:
            places = {entry.place for entry in self._entries.values()} - {RAM}
            models = [
                ModelFacts(str(entry.key), _bytes(entry), entry.place, entry.borrowed)
                for entry in sorted(self._entries.values(), key=lambda entry: -entry.used)
                if entry.value is not None
            ]
            return ModelStats(
                **self._counts,
                ram_bytes=self._used(RAM),
                ram_budget=self._budgets[0],
                vram_bytes=sum(self._used(place) for place in places),
                vram_budget=self._budgets[1],
                models=tuple(models),
            )

    def _take(self, key: ModelKey, load: Callable[[], Any]) -> _Entry:
        with self._changed:
            entry = self._ready(key)
            fresh = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry(key, place=key.device)
            else:
                self._counts["hits"] += 1
            entry.borrowed += 1
            self._tick += 1
            entry.used = self._tick
            if not fresh and entry.place == key.device:
                return entry
            entry.busy = True
        self._bring(entry, load if fresh else None)
        return entry

    def _ready(self, key: ModelKey) -> _Entry | None:
        """The entry under `key` once nobody loads or moves it; None if it is ours to load. Called with the lock."""
        while (entry := self._entries.get(key)) is not None and entry.busy:
            self._changed.wait_for(lambda waited=entry: not waited.busy)  # type: ignore[misc]
            # Somebody else's cancel is no reason to give up: then it is ours to load.
            if isinstance(entry.error, Exception) and not isinstance(entry.error, Cancelled | Paused):
                raise entry.error
        return entry

    def _bring(self, entry: _Entry, load: Callable[[], Any] | None) -> None:
        """Load `entry`, or bring it back from RAM when there is no `load`; it is busy and borrowed by the caller."""
        device = entry.key.device
        try:
            self._fit(device, incoming=self._known_sizes.get(entry.key, 0))
            before = _allocated(device)
            source = load or (lambda: entry.value)
            value = self._with_room(device, lambda: moved(source(), device))
            sizes = storages(value)
            with self._changed:
                alone = sum(other.busy and not other.leaving for other in self._entries.values()) == 1
                entry.value, entry.sizes, entry.place = value, sizes, device
                entry.hidden = max(0, _allocated(device) - before - sum(sizes.values())) if alone else 0
                self._known_sizes[entry.key] = _bytes(entry)
            self._fit(device)
            self._check_room(entry)
        except BaseException as error:
            self._give_up(entry, error)
            raise
        with self._changed:
            entry.busy = False
            self._counts["loads" if load else "reloads"] += 1
            self._changed.notify_all()

    def _give_up(self, entry: _Entry, error: BaseException) -> None:
        with self._changed:
            entry.error, entry.value, entry.sizes, entry.hidden = error, None, {}, 0
            entry.busy = False
            entry.borrowed -= 1
            del self._entries[entry.key]
            self._counts["failures"] += 1
            self._changed.notify_all()
        self._collect(entry.key.device)

    def _with_room(self, device: str, load: Callable[[], Any]) -> Any:
        """`load()`; if the device has no room, once more after everything unborrowed has gone."""
        try:
            return load()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        log.warning("no room on %s for a load; evicting all that nobody borrows", device)
        self.evict_all()
        return load()

    def _check_room(self, entry: _Entry) -> None:
        """A component beyond the budget stays only if the device really has room for it."""
        device = entry.key.device
        with self._changed:
            used, budget = self._used(device), self._budget(device)
        if used > budget and (free := self._free(device)) < self._reserve:
            raise OutOfMemory(
                f"{entry.key.component} of {entry.key.repo} needs {gib(_bytes(entry))} on {device}, where models in "
                f"use already take {gib(used - _bytes(entry))} and {gib(free)} is left.",
                "Wait until the running job has ended, choose a smaller model, or raise the memory budget.",
            )

    def _fit(self, place: str, incoming: int = 0) -> None:
        """Let the least recently used make way until `place` holds its budget less `incoming`."""
        while True:
            with self._changed:
                over = self._used(place) + incoming > self._budget(place)
                victim = self._victim(place) if over else None
            if victim is None:
                return
            if place == RAM or _bytes(victim) > self._budgets[0]:
                self._drop(victim)
            else:
                self._offload(victim)
                self._fit(RAM)

    def _victim(self, place: str | None) -> _Entry | None:
        """The least recently used entry nobody borrows, marked as leaving: no one else can take it now."""
        with self._changed:
            idle = [e for e in self._entries.values() if not (e.borrowed or e.busy) and place in (None, e.place)]
            victim = min(idle, key=lambda entry: entry.used, default=None)
            if victim is not None:
                victim.busy = victim.leaving = True
            return victim

    def _drop(self, entry: _Entry) -> None:
        entry.value = None
        self._collect(entry.place)
        with self._changed:
            del self._entries[entry.key]
            entry.busy = False
            self._counts["evictions"] += 1
            self._changed.notify_all()

    def _offload(self, entry: _Entry) -> None:
        try:
            value = moved(entry.value, RAM)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._drop(entry)
            return
        self._collect(entry.place)
        with self._changed:
            entry.value, entry.place, entry.sizes, entry.hidden = value, RAM, storages(value), 0
            entry.busy = entry.leaving = False
            self._counts["offloads"] += 1
            self._changed.notify_all()

    def _used(self, place: str) -> int:
        """Bytes on `place`; a storage that two components share counts once. Called with the lock."""
        here = [entry for entry in self._entries.values() if entry.place == place and not entry.leaving]
        shared = {storage: size for entry in here for storage, size in entry.sizes.items()}
        return sum(shared.values()) + sum(entry.hidden for entry in here)

    def _budget(self, place: str) -> int:
        return self._budgets[0] if place == RAM else self._budgets[1]


def _bytes(entry: _Entry) -> int:
    return sum(entry.sizes.values()) + entry.hidden


def _allocated(device: str) -> int:
    if device == RAM or "torch" not in sys.modules:
        return 0
    import torch

    return int(torch.cuda.memory_allocated(device)) if torch.cuda.is_available() else 0
