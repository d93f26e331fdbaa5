"""Where a set of published weights comes from, as data: read by specs and pages, imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class Source:
    """One pipeline in diffusers layout: where it is, under what terms, and how large."""

    title: str
    repo: str  # hub id, or a folder that ships with the project
    revision: str = ""  # commit on the hub; "" for a folder
    fallbacks: tuple[tuple[str, str], ...] = ()  # further (repo, revision) of the same weights, tried in order
    licence: str = "Apache-2.0"
    download: str = ""  # size in words; "" where nothing is downloaded
    files: str = ""  # further arguments of the command that downloads it, where not everything is needed
    dtype: str = "float32"  # of the networks once loaded

    @property
    def local(self) -> bool:
        """Whether the weights ship with the project."""
        return not self.revision


class Chosen(Protocol):
    """A model as an engine's presets describe it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Parameters that suit it best."""
        ...


def with_settings(values: Any, models: Mapping[str, Chosen]) -> Any:
    """Raw parameters with the settings of the model they name (or "pocket"); as they are if that is none."""
    if isinstance(values, dict) and isinstance(name := values.get("model", "pocket"), str) and name in models:
        return {**models[name].settings, **values}
    return values
