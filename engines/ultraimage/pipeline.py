"""Which weights UltraImage runs on, and the family they belong to; found and lent by `engines.shared.pipeline`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from engines.shared import pipeline
from engines.ultraimage.families import FAMILIES, Family
from engines.ultraimage.presets import MODELS, ModelPreset
from studio.errors import WeightsMissing


class Weights(pipeline.Weights[ModelPreset]):
    """A folder of a model whose positions are rotary, in diffusers layout."""

    @cached_property
    def family(self) -> Family:
        """The architecture behind the pipeline class that the folder names."""
        name = self.index["_class_name"]
        if name not in FAMILIES:
            known = " or ".join(FAMILIES)
            raise WeightsMissing(
                f"{self.folder.name} holds a {name}, not a {known}.", "Point to a folder of that kind."
            )
        return FAMILIES[name]({part: self.config(part) for part in ("transformer", "vae")})


def locate(preset: str, published: Path | None) -> Weights:
    """The weights of a preset on this machine. Raises WeightsMissing with the command that fetches them."""
    return Weights.find(preset, MODELS[preset], published)
