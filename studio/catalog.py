"""Which engines there are, and how their specs and run functions are found when they are first needed.

The one door from the studio to the engines: the house's own through `engines`, further ones by their dotted package
name with the same layout (`spec.SPEC`, `run.run`). This module knows no method, and loading a spec imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import engines
from studio.contract import EngineSpec, Run
from studio.errors import NotFound


class Catalog:
    """The house's engines, then `further` packages such as "lab.my_engine", known by their last name."""

    def __init__(self, further: Sequence[str] = ()) -> None:
        self._further = {package.rpartition(".")[2]: package for package in further}
        taken = sorted(set(self._further) & set(engines.NAMES))
        if taken:
            raise ValueError(f"engine {taken[0]!r} is already in the house; rename the package")

    @property
    def names(self) -> tuple[str, ...]:
        """All engine names, in the order of the pages."""
        return (*engines.NAMES, *self._further)

    def spec(self, name: str) -> EngineSpec:
        """The spec of one engine. Raises NotFound for a name nobody has."""
        if name in engines.NAMES:
            return engines.load_spec(name)
        spec: EngineSpec = import_module(f"{self._package(name)}.spec").SPEC
        if spec.name != name:
            raise ValueError(f"{self._further[name]} calls its engine {spec.name!r}; folder and name must agree")
        return spec

    def run(self, name: str) -> Run:
        """The run function of one engine; imports whatever the method needs."""
        if name in engines.NAMES:
            return engines.load_run(name)
        run: Run = import_module(f"{self._package(name)}.run").run
        return run

    def _package(self, name: str) -> str:
        if name not in self._further:
            raise NotFound(f"There is no engine named {name[:80]!r}.", f"Choose one of: {', '.join(self.names)}.")
        return self._further[name]
