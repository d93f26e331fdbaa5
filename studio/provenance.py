"""Where a result comes from: what must be equal for its bytes to be equal, and the manifest that tells the rest.

The provenance inside a file is deterministic; times, dates and job ids stand only in the manifest beside it. This
module knows no engine and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio import __version__
from studio.contract import ModelKey
from studio.devices import device_kind

LIBRARIES = ("torch", "diffusers", "transformers", "numpy")
MANIFEST_FORMAT = 1


@cache
def versions() -> dict[str, str]:
    """Versions of Atelier and the libraries that decide about bytes; read from metadata, imports none of them."""
    found = {"atelier": __version__}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def model_row(key: ModelKey) -> dict[str, str]:
    """A model as provenance names it: without the number of the device, and without the folders above a local one."""
    repo = Path(key.repo).name if Path(key.repo).is_absolute() else key.repo
    return {
        "preset": key.preset,
        "repo": repo,
        "revision": key.revision,
        "component": key.component,
        "dtype": key.dtype,
    }


def merge_models(*groups: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """All rows once, in an order that does not depend on which was borrowed first."""
    rows = {tuple(sorted(row.items())): row for group in groups for row in group}
    return [rows[key] for key in sorted(rows)]


def provenance(engine: str, params: dict[str, Any], models: list[dict[str, str]], device: str) -> dict[str, Any]:
    """The deterministic part, embedded in every file."""
    return {
        "engine": engine,
        "params": params,
        "seed": params.get("seed"),
        "models": models,
        "versions": versions(),
        "device": device_kind(device),
    }
