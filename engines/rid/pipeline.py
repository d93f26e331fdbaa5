"""Finding defenders and diffusion models on this machine, and lending them. Downloads nothing, ever.

Defenders come from safetensors that say their budget, or from the published files, which are read without running
anything; Stable Diffusion folders are found by `engines.shared.pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS, Defender
from engines.rid.pgd import protect_by_reconstruction
from engines.rid.plain import Plain
from engines.rid.presets import MODELS, SURROGATES, ModelPreset, Surrogate
from engines.rid.surrogate import Diffusion
from engines.shared import pipeline
from studio.contract import Context, ModelKey
from studio.errors import WeightsMissing


@dataclass(frozen=True)
class Checkpoint:
    """One file of weights on this machine."""

    model: str  # name of its preset
    path: Path
    budget: float  # grey levels asked for
    trained: float  # grey levels that its file stands for
    revision: str

    @property
    def eps(self) -> float:
        """The budget in [-1, 1]."""
        return self.budget / GREY_LEVELS

    @contextmanager
    def lend(self, ctx: Context) -> Iterator[Plain]:
        """The defender for use, on the context's device. Raises InvalidInput for a file of another budget.

        In bfloat16 on a GPU: eleven times as fast there, and a quarter of a grey level off, where pictures have whole
        ones.
        """
        number = "bfloat16" if torch.device(ctx.device).type == "cuda" else "float32"
        key = ModelKey(self.model, f"rid/{self.path.name}", self.revision, "defender", number, ctx.device)
        with ctx.models.borrow(key, lambda: self._loaded().to(ctx.device, getattr(torch, number))) as defender:
            yield defender

    def _loaded(self) -> Plain:
        return Plain(checkpoints.load(self.path, self.trained / GREY_LEVELS))


def locate(model: str, budget: float, published: Path | None) -> Checkpoint:
    """The checkpoint for a budget in grey levels. Raises WeightsMissing with what to do."""
    preset = MODELS[model]
    found = preset.file_for(budget)
    if found is None:
        raise ValueError(f"{model} has no checkpoint for {budget} grey levels")  # the spec refuses it before
    for folder in _folders(preset, published):
        for name in (Path(found[1]).with_suffix(".safetensors").name, found[1]):
            if (folder / name).is_file():
                return Checkpoint(model, folder / name, budget, found[0], file_revision(folder / name))
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
    return checkpoints.sha256_of(Path(path))


class Folder(pipeline.Weights[Surrogate]):
    """A Stable Diffusion folder on this machine."""

    @contextmanager
    def lend_whole(self, ctx: Context) -> Iterator[Diffusion]:
        """The diffusion model on the context's device, frozen; whoever trains it trains a copy."""
        key = self.key("diffusion", ctx.device, "float32")
        with ctx.models.borrow(key, lambda: load_diffusion(self.folder).to(ctx.device)) as model:
            yield model


def locate_surrogate(name: str, published: Path | None) -> Folder:
    """A surrogate's folder. Raises WeightsMissing with the command that fetches it."""
    return Folder.find(name, SURROGATES[name], published)


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


def save_defender(defender: Defender, target: Path) -> None:
    """Write a trained defender in half precision, as `Checkpoint.lend` reads it."""
    checkpoints.save(defender, target)


def search(
    models: list[Diffusion], pictures: Tensor, *, eps: float, rounds: int, inner: int, generator: torch.Generator
) -> Tensor:  # [B, 3, S, S]
    """Pictures protected one by one through the autoencoders, for whoever trains a defender; see `engines.rid.pgd`.

    These can be learned from: begun at two random places they agree to 0.97 (cosine), since no noise is drawn.
    """
    return protect_by_reconstruction(models, pictures, eps=eps, rounds=rounds, inner=inner, generator=generator)
