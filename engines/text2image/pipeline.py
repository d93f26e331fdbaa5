"""Which weights the Pocket lab draws with, and the model that scores words; found by `engines.shared.pipeline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers

from engines.shared import pipeline
from engines.shared.pipeline import config_of, folder_revision, load_part
from engines.text2image.presets import MODELS, ModelPreset
from studio.contract import Context, ModelKey
from studio.errors import WeightsMissing

PIPELINE = "StableDiffusionPipeline"
PARTS = ("tokenizer", "scheduler", "text_encoder", "unet", "vae")


class Weights(pipeline.Weights[ModelPreset]):
    """A Stable Diffusion folder."""

    @cached_property
    def index(self) -> dict[str, Any]:
        """The pipeline's list of components and their classes. Raises WeightsMissing for another pipeline."""
        found = config_of(self.folder / "model_index.json")
        if found.get("_class_name") != PIPELINE:
            raise WeightsMissing(
                f"{self.folder.name} holds a {found.get('_class_name')}, not a {PIPELINE}.",
                "Point to a folder of that kind.",
            )
        return found

    def precision(self, component: str, device: str) -> str:
        """Half precision is for GPUs: on a processor it is slow where it works at all."""
        return "float32" if device == "cpu" else self.source.dtype


def locate(preset: str, published: Path | None) -> Weights:
    """The weights of a preset on this machine. Raises WeightsMissing with the command that fetches them."""
    return Weights.find(preset, MODELS[preset], published)


@contextmanager
def lend_clip(ctx: Context, folder: Path) -> Iterator[tuple[Any, Any]]:
    """The text-image model of a folder and its tokenizer."""
    revision = folder_revision(folder)

    def borrow(component: str, kind: Any) -> Any:
        key = ModelKey("pocket", f"pocket/{folder.name}", revision, component, "float32", ctx.device)
        return ctx.models.borrow(key, lambda: load_part(kind, folder, "float32", ctx.device))

    with (
        borrow("clip", transformers.CLIPModel) as model,
        borrow("tokenizer", transformers.PreTrainedTokenizerFast) as words,
    ):
        yield model, words
