"""What a component of a model weighs and how it moves, by its tensors alone; and what a cache of them reports.

Works on modules, tensors, pipelines and plain containers of them, by what they can do and not by their type, so that
it needs no torch of its own. Knows nothing of caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_NO_ROOM = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass(frozen=True)
class ModelFacts:
    """One cached component as a page shows it."""

    key: str
    bytes: int
    place: str
    borrowed: int


@dataclass(frozen=True)
class ModelStats:
    """What the cache has done and holds."""

    hits: int
    loads: int
    failures: int
    offloads: int
    reloads: int
    evictions: int
    ram_bytes: int
    ram_budget: int
    vram_bytes: int
    vram_budget: int
    models: tuple[ModelFacts, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a worker's heartbeat."""
        return asdict(self)


def storages(value: Any) -> dict[int, int]:
    """Address -> bytes of every storage under the tensors of `value`; tied weights appear once."""
    found = {}
    for tensor in _tensors(value):
        storage = tensor.untyped_storage()
        if storage.data_ptr():  # meta tensors have no memory
            found[storage.data_ptr()] = int(storage.nbytes())
    return found


def moved(value: Any, device: str) -> Any:
    """`value` with its tensors on `device`: modules move in place, containers are built anew."""
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(moved(item, device) for item in value)
    return value.to(device) if callable(getattr(value, "to", None)) else value


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine, the GPU driver or torch's allocator says that memory did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_ROOM)


def broke_device(error: BaseException) -> bool:
    """Whether the GPU refuses this process from now on: after such an error every later call fails as well."""
    named = type(error).__name__ == "AcceleratorError"
    return named or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def gib(size: int) -> str:
    """Bytes for a sentence: "1.5 GB" or "300 MB"."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def _tensors(value: Any) -> Iterator[Any]:
    if callable(getattr(value, "parameters", None)) and callable(getattr(value, "buffers", None)):
        yield from value.parameters()
        yield from value.buffers()
    elif hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(getattr(value, "components", None), Mapping):  # a pipeline
        yield from _tensors(value.components)
