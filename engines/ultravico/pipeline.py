"""Which weights UltraViCo runs on, and the family they belong to; found and lent by `engines.shared.pipeline`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from engines.shared import pipeline
from engines.ultravico.families import FAMILIES, Family
from engines.ultravico.presets import MODELS, ModelPreset
from studio.errors import InvalidInput, WeightsMissing


class Weights(pipeline.Weights[ModelPreset]):
    """A folder of a video transformer, in diffusers layout."""

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
        return FAMILIES[name]({part: self.config(part) for part in ("transformer", "vae")})

    def precision(self, component: str, device: str) -> str:
        """As the model cards load them."""
        special = {"vae": self.source.vae_dtype, "image_encoder": "float32"}
        return special.get(component, self.source.dtype)


def locate(preset: str, published: Path | None) -> Weights:
    """The weights of a preset on this machine. Raises WeightsMissing with the command that fetches them."""
    return Weights.find(preset, MODELS[preset], published)
