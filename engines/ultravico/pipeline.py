"""Finding a model's weights on this machine and lending its components one by one. Downloads nothing, ever.

Looks for a folder `owner--name` under the folder of published checkpoints, then in the hub's cache at the pinned
revision, for the model and then for its fallbacks. Safetensors only. The only place with `from_pretrained`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from engines.ultravico.families import FAMILIES, Family
from engines.ultravico.presets import MODELS, ModelPreset
from studio.contract import Context, ModelKey
from studio.errors import InvalidInput, WeightsMissing

LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
WHOLE_HASH = 2**30  # bytes of weights up to which a folder's revision is the hash of all of them
HEADER = 2**16  # bytes of each larger file that are hashed, with its size


@dataclass(frozen=True)
class Weights:
    """A diffusers folder on this machine and the identity of what lies in it."""

    preset: str
    model: ModelPreset
    repo: str
    revision: str
    folder: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """The pipeline's list of components and their classes."""
        return json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))

    @cached_property
    def family(self) -> Family:
        """The architecture behind the pipeline class that the folder names."""
        name = self.index["_class_name"]
        if name not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise WeightsMissing(
                f"{self.folder.name} holds a {name}, none of {known}.", "Point to a folder of one of those kinds."
            )
        if self.index.get("boundary_ratio") is not None or self.index.get("expand_timesteps"):
            raise InvalidInput(
                f"{self.folder.name} is of the generation of Wan2.2, which this method is reported to break.",
                "Use Wan2.1.",
                field="model",
            )
        configs = {part: _config(self.folder / part / "config.json") for part in ("transformer", "vae")}
        return FAMILIES[name](configs)

    def key(self, component: str, device: str) -> ModelKey:
        """Under which name the cache knows a component."""
        return ModelKey(self.preset, self.repo, self.revision, component, self._dtype(component), device)

    def _dtype(self, component: str) -> str:
        special = {"vae": self.model.vae_dtype, "image_encoder": "float32"}  # as the model cards load them
        return special.get(component, self.model.dtype)

    @contextmanager
    def lend(self, ctx: Context, *components: str) -> Iterator[dict[str, Any]]:
        """Components by name, loaded if nobody has them, kept in place while the block runs."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    ctx.models.borrow(self.key(name, ctx.device), self._loader(name, ctx.device))
                )
                for name in components
            }

    def _loader(self, component: str, device: str) -> Callable[[], Any]:
        return lambda: self.load(component, device)

    def load(self, component: str, device: str) -> Any:
        """One component through the class its folder names; networks in evaluation mode on the device."""
        library, name = self.index[component]
        if library not in LIBRARIES:
            raise WeightsMissing(f"{component} asks for the library {library!r}.", "Use the published folder.")
        kind = getattr(LIBRARIES[library], name)
        options: dict[str, Any] = {"local_files_only": True}
        if issubclass(kind, torch.nn.Module):
            dtype = getattr(torch, self._dtype(component))
            options |= {"use_safetensors": True, "dtype": dtype}
        part = kind.from_pretrained(self.folder / component, **options)
        return part.to(device).eval() if isinstance(part, torch.nn.Module) else part


def _config(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def locate(preset: str, published: Path | None) -> Weights:
    """The weights of a preset on this machine. Raises WeightsMissing with the command that fetches them."""
    model = MODELS[preset]
    if model.local:
        folder = Path(model.repo)
        if not complete(folder):
            raise WeightsMissing(
                f"The {model.title.lower()} is not in {folder.name} of the assets.", "Run `make pocket` to train it."
            )
        return Weights(preset, model, f"pocket/{folder.name}", folder_revision(folder), folder)
    for repo, revision in ((model.repo, model.revision), *model.fallbacks):
        local = published / repo.replace("/", "--") if published else None
        if local is not None and complete(local):
            return Weights(preset, model, repo, folder_revision(local), local)
        cached = _in_hub_cache(repo, revision)
        if cached is not None and complete(cached):
            return Weights(preset, model, repo, cached.name, cached)
    raise missing(model)


def missing(model: ModelPreset) -> WeightsMissing:
    """The sentence, the command, the size and the licence."""
    return WeightsMissing(
        f"The weights of {model.title} are not on this machine.",
        f"Download them with `hf download {model.repo} --revision {model.revision}` ({model.download}; "
        f"licence: {model.licence}), or put them into the folder that ATELIER_WEIGHTS names, as "
        f"{model.repo.replace('/', '--')}.",
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
    entries = _config(index).items()
    parts = [name for name, value in entries if not name.startswith("_") and isinstance(value, list) and value[0]]
    shards = [
        path.parent / shard
        for path in folder.glob("*/*.safetensors.index.json")
        for shard in set(_config(path)["weight_map"].values())
    ]
    networks = [p for p in parts if (folder / p / "config.json").is_file()]
    return (
        all((folder / part).is_dir() for part in parts)
        and all(path.is_file() for path in shards)
        and all(any((folder / part).glob("*.safetensors")) for part in networks)
    )


def folder_revision(folder: Path) -> str:
    """sha256 over the weight files of a folder; of their headers and sizes where they are too large to read."""
    files = sorted(folder.glob("*/*.safetensors"))
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
