"""The methods of the house: their names, and a loader that imports no torch until something runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.contract import EngineSpec, Run

NAMES = ("ultraimage", "text2image", "prolificdreamer", "ultravico", "rid")  # those with a page
KERNELS = ("ultraimage", "ultravico", "rid", "prolificdreamer")  # methods whose functions have numeric cases


def load_spec(name: str) -> EngineSpec:
    """The spec of one engine; cheap, imports no torch. Raises KeyError for an unknown name."""
    return import_module(f"engines.{_known(name)}.spec").SPEC


def load_run(name: str) -> Run:
    """The run function of one engine; imports torch."""
    return import_module(f"engines.{_known(name)}.run").run


def _known(name: str) -> str:
    if name not in NAMES:
        raise KeyError(f"no engine named {name!r}; there are {', '.join(NAMES)}")
    return name
