"""Finding a diffusers folder on this machine and lending its components one by one. Downloads nothing, ever.

Looks for a folder `owner--name` under the folder of published checkpoints, then in the hub's cache at the pinned
revision, for the source and then for its fallbacks. Safetensors only. Knows no method; an engine's own pipeline says
which source a preset stands on, and what is special about its components.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import diffusers
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from engines.shared.sources import Source
from studio.contract import Context, ModelKey
from studio.errors import WeightsMissing

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
WHOLE_HASH = 2**30  # bytes of weights up to which a folder's revision is the hash of all of them
HEADER = 2**16  # bytes of each larger file that are hashed, with its size


S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class Weights(Generic[S]):
    """A diffusers folder on this machine and the identity of what lies in it."""

    preset: str
    source: S
    repo: str
    revision: str
    folder: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """The pipeline's list of components and their classes."""
        return config_of(self.folder / "model_index.json")

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of one component, before it is loaded."""
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        return config_of(self.folder / component / name)

    def precision(self, component: str, device: str) -> str:
        """The number type a component is loaded in where nobody asks for another."""
        return self.source.dtype

    def key(self, component: str, device: str, dtype: str | None = None) -> ModelKey:
        """Under which name the cache knows a component."""
        number = dtype or self.precision(component, device)
        return ModelKey(self.preset, self.repo, self.revision, component, number, device)

    @contextmanager
    def lend(self, ctx: Context, *components: str, dtype: str | None = None) -> Iterator[dict[str, Any]]:
        """Components by name, loaded if nobody has them, kept in place while the block runs."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    ctx.models.borrow(self.key(name, ctx.device, dtype), self._loader(name, ctx.device, dtype))
                )
                for name in components
            }

    def _loader(self, component: str, device: str, dtype: str | None) -> Callable[[], Any]:
        return lambda: self.load(component, device, dtype)

    def load(self, component: str, device: str, dtype: str | None = None) -> Any:
        """One component through the class its folder names; networks in evaluation mode on the device."""
        library, name = self.index[component]
        if library not in LIBRARIES:
            raise WeightsMissing(f"{component} asks for the library {library!r}.", "Use the published folder.")
        number = dtype or self.precision(component, device)
        return load_part(getattr(LIBRARIES[library], name), self.folder / component, number, device)

    @classmethod
    def find(cls, preset: str, source: S, published: Path | None) -> Self:
        """The weights of a source on this machine. Raises WeightsMissing with the command that fetches them."""
        if source.local:
            folder = Path(source.repo)
            if not complete(folder):
                raise WeightsMissing(
                    f"The {source.title.lower()} is not in {folder.name} of the assets.",
                    "Run `make pocket` to train it.",
                )
            return cls(preset, source, f"pocket/{folder.name}", folder_revision(folder), folder)
        for repo, revision in ((source.repo, source.revision), *source.fallbacks):
            local = published / repo.replace("/", "--") if published else None
            if local is not None and complete(local):
                return cls(preset, source, repo, folder_revision(local), local)
            cached = _in_hub_cache(repo, revision)
            if cached is not None and complete(cached):
                return cls(preset, source, repo, cached.name, cached)
        raise missing(source)


def load_part(kind: Any, folder: Path, dtype: str, device: str) -> Any:
    """What a library's class makes of a folder; networks in evaluation mode on the device."""
    options: dict[str, Any] = {"local_files_only": True}
    if issubclass(kind, torch.nn.Module):
        named = "torch_dtype" if issubclass(kind, diffusers.ModelMixin) else "dtype"
        options |= {"use_safetensors": True, named: getattr(torch, dtype)}
    part = kind.from_pretrained(folder, **options)
    return part.to(device).eval() if isinstance(part, torch.nn.Module) else part


def config_of(path: Path) -> dict[str, Any]:
    """A JSON file as a table."""
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def missing(source: Source) -> WeightsMissing:
    """The sentence, the command, the size and the licence."""
    command = f"hf download {source.repo} --revision {source.revision} {source.files}".rstrip()
    return WeightsMissing(
        f"The weights of {source.title} are not on this machine.",
        f"Download them with `{command}` ({source.download}; "
        f"licence: {source.licence}), or put them into the folder that ATELIER_WEIGHTS names, as "
        f"{source.repo.replace('/', '--')}.",
    )


def _in_hub_cache(repo: str, revision: str) -> Path | None:
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def complete(folder: Path) -> bool:
    """Whether a folder holds a whole pipeline: every component, and every shard its index promises."""
    index = folder / "model_index.json"
    if not index.is_file():
        return False
    parts = [name for name, value in config_of(index).items() if _is_component(name, value)]
    shards = [
        path.parent / shard
        for path in folder.glob("*/*.safetensors.index.json")
        for shard in set(config_of(path)["weight_map"].values())
    ]
    networks = [p for p in parts if (folder / p / "config.json").is_file()]
    return (
        all((folder / part).is_dir() for part in parts)
        and all(path.is_file() for path in shards)
        and all(any((folder / part).glob("*.safetensors")) for part in networks)
    )


def _is_component(name: str, value: Any) -> bool:
    """What the index promises and we need: the safety checker and its feature extractor are not loaded."""
    return isinstance(value, list) and bool(value[0]) and name not in ("safety_checker", "feature_extractor")


def folder_revision(folder: Path) -> str:
    """sha256 over the weight files of a folder; of their headers and sizes where they are too large to read."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")])
    facts = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(facts)


@lru_cache(maxsize=16)
def _digest(facts: tuple[tuple[str, int, int], ...]) -> str:
    whole = sum(size for _, size, _ in facts) <= WHOLE_HASH
    digest = hashlib.sha256()
    for name, size, _ in facts:
        path = Path(name)
        digest.update(f"{path.parent.name}/{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read() if whole else file.read(HEADER))
    return f"sha256{'' if whole else '-headers'}:{digest.hexdigest()}"
