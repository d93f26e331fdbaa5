"""Finding defenders and diffusion models on this machine, and lending them. Downloads nothing, ever.

The only place with `from_pretrained`. Defenders come from safetensors that say their budget, or from the published
files, which are read without running anything; Stable Diffusion folders from the assets, the folder of published
checkpoints or the hub's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS, Defender
from engines.rid.pgd import protect_by_search
from engines.rid.presets import MODELS, SURROGATES, ModelPreset
from engines.rid.surrogate import Diffusion
from studio.contract import Context, ModelKey
from studio.errors import WeightsMissing


@dataclass(frozen=True)
class Checkpoint:
    """One file of weights on this machine."""

    model: str  # name of its preset
    path: Path
    budget: float  # grey levels asked for
    revision: str

    @property
    def eps(self) -> float:
        """The budget in [-1, 1]."""
        return self.budget / GREY_LEVELS

    @contextmanager
    def lend(self, ctx: Context) -> Iterator[Defender]:
        """The folded defender on the context's device."""
        key = ModelKey(self.model, f"rid/{self.path.name}", self.revision, "defender", "float32", ctx.device)
        with ctx.models.borrow(key, lambda: checkpoints.load(self.path).to(ctx.device)) as defender:
            yield defender


def locate(model: str, budget: float, published: Path | None) -> Checkpoint:
    """The checkpoint for a budget in grey levels. Raises WeightsMissing with what to do."""
    preset = MODELS[model]
    found = preset.file_for(budget)
    if found is None:
        raise ValueError(f"{model} has no checkpoint for {budget} grey levels")  # the spec refuses it before
    for folder in _folders(preset, published):
        for name in (Path(found[1]).with_suffix(".safetensors").name, found[1]):
            if (folder / name).is_file():
                return Checkpoint(model, folder / name, budget, file_revision(folder / name))
    raise _missing(preset, found[1])


def _folders(preset: ModelPreset, published: Path | None) -> list[Path]:
    if preset.local:
        return [Path(preset.folder)]
    return [published / preset.folder, published] if published else []


def _missing(preset: ModelPreset, name: str) -> WeightsMissing:
    if preset.local:
        return WeightsMissing(f"The {preset.title.lower()} is not in the assets.", "Run `make pocket` to train it.")
    return WeightsMissing(
        f"{name} is not on this machine.",
        f"Download it from {preset.where} ({preset.download}; licence: {preset.licence}) and put it, under its own "
        f"name, into the sub-folder `{preset.folder}` of the folder that ATELIER_WEIGHTS names.",
    )


def file_revision(path: Path) -> str:
    """The file's hash, as a cache key wants it."""
    stat = path.stat()
    return f"sha256:{_digest(str(path), stat.st_size, stat.st_mtime_ns)}"


@lru_cache(maxsize=16)
def _digest(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folder:
    """A Stable Diffusion folder on this machine."""

    surrogate: str
    repo: str
    revision: str
    path: Path

    @contextmanager
    def lend(self, ctx: Context) -> Iterator[Diffusion]:
        """The diffusion model on the context's device, frozen; whoever trains it trains a copy."""
        key = ModelKey(self.surrogate, self.repo, self.revision, "diffusion", "float32", ctx.device)
        with ctx.models.borrow(key, lambda: load_diffusion(self.path).to(ctx.device)) as model:
            yield model


def locate_surrogate(name: str, published: Path | None) -> Folder:
    """A surrogate's folder. Raises WeightsMissing with the command that fetches it."""
    surrogate = SURROGATES[name]
    if surrogate.local:
        path = Path(surrogate.repo)
        if not complete(path):
            raise WeightsMissing(f"The {surrogate.title.lower()} is not in the assets.", "Run `make pocket`.")
        return Folder(name, f"pocket/{path.name}", folder_revision(path), path)
    for repo, revision in ((surrogate.repo, surrogate.revision), *surrogate.fallbacks):
        local = published / repo.replace("/", "--") if published else None
        if local is not None and complete(local):
            return Folder(name, repo, folder_revision(local), local)
        cached = _in_hub_cache(repo, revision)
        if cached is not None and complete(cached):
            return Folder(name, repo, cached.name, cached)
    raise WeightsMissing(
        f"The weights of {surrogate.title} are not on this machine.",
        f"Download them with `hf download {surrogate.repo}` ({surrogate.download}; licence: {surrogate.licence}), or "
        f"put them into the folder that ATELIER_WEIGHTS names, as {surrogate.repo.replace('/', '--')}.",
    )


def load_diffusion(path: Path) -> Diffusion:
    """The parts of a Stable Diffusion folder that are needed here, in float32 and frozen."""
    options: dict[str, Any] = {"local_files_only": True}
    weights = options | {"use_safetensors": True}
    return Diffusion(
        vae=AutoencoderKL.from_pretrained(path / "vae", torch_dtype=torch.float32, **weights),
        unet=UNet2DConditionModel.from_pretrained(path / "unet", torch_dtype=torch.float32, **weights),
        text=CLIPTextModel.from_pretrained(path / "text_encoder", dtype=torch.float32, **weights),
        tokenizer=AutoTokenizer.from_pretrained(path / "tokenizer", **options),
        scheduler=DDPMScheduler.from_pretrained(path / "scheduler", **options),
    )


def complete(path: Path) -> bool:
    """Whether a folder holds every part of a Stable Diffusion model."""
    networks = all(any((path / part).glob("*.safetensors")) for part in ("vae", "unet", "text_encoder"))
    return networks and (path / "model_index.json").is_file() and (path / "tokenizer").is_dir()


def folder_revision(path: Path) -> str:
    """sha256 over names, sizes and first bytes of the weight files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*/*.safetensors")):
        digest.update(json.dumps([file.parent.name, file.name, file.stat().st_size]).encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**24))
    return f"sha256:{digest.hexdigest()}"


def _in_hub_cache(repo: str, revision: str) -> Path | None:
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def save_defender(defender: Defender, target: Path) -> None:
    """Write a trained defender in half precision, as `Checkpoint.lend` reads it."""
    checkpoints.save(defender, target)


def search(
    models: list[Diffusion], pictures: Tensor, *, eps: float, rounds: int, inner: int, generator: torch.Generator
) -> Tensor:  # [B, 3, S, S]
    """Perturbations by search, for whoever trains a defender; see `engines.rid.pgd`."""
    return protect_by_search(
        models, pictures, eps=eps, rounds=rounds, inner=inner, prompt="a person", generator=generator, momentum=True
    )
