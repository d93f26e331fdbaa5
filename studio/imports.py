"""How a library is imported that does more at its import than a server needs.

Knows no library; who imports one says what to leave out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Replacing(MetaPathFinder):
    """Finds one module as ever, and puts another value for one of its names as soon as it has run."""

    def __init__(self, module: str, name: str, value: Any) -> None:
        self.module, self.name, self.value = module, name, value

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self.module else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            if hasattr(module, self.name):
                setattr(module, self.name, self.value)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def without(module: str, name: str) -> Iterator[None]:
    """Modules imported inside the block find `module.name` to be a function that does nothing.

    For work at import time that cannot be switched off. A module that is imported already stays as it is.
    """
    finder = _Replacing(module, name, lambda *_args, **_kwargs: None)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Hiding(MetaPathFinder):
    """Finds nothing where it is asked for one of some packages, and leaves all others to the finders behind it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)


@contextmanager
def absent(*names: str) -> Iterator[None]:
    """Modules imported inside the block find the packages `names` not installed; what was imported before stays.

    For optional companions of a library that it imports whenever they are there, whether they are used or not.
    """
    finder = _Hiding(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
