"""What is left out of an import, and that it is left out of nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from studio.imports import absent, without


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose import makes a file for each of its classes."""
    folder = tmp_path / "busy_package"
    folder.mkdir()
    (folder / "meta.py").write_text("made = []\n\n\ndef make_file(name):\n    made.append(name)\n    return name\n")
    (folder / "__init__.py").write_text("from busy_package.meta import make_file, made\nanswer = make_file('one')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_the_work_at_import_is_left_out(package: str):
    finders = list(sys.meta_path)
    with without("busy_package.meta", "make_file"):
        found = import_module(package)
    assert (found.made, found.answer) == ([], None)
    assert sys.meta_path == finders


def test_other_names_and_later_imports_are_as_ever(package: str):
    with without("busy_package.meta", "another_name"):
        found = import_module(package)
    assert (found.made, found.answer) == (["one"], "one")


def test_the_finder_is_gone_after_an_error():
    finders = list(sys.meta_path)
    with pytest.raises(ModuleNotFoundError), without("busy_package.meta", "make_file"):
        import_module("there_is_no_such_package")
    assert sys.meta_path == finders


def test_the_pages_framework_still_has_what_is_left_out():
    spec = find_spec("gradio")
    assert spec is not None
    assert spec.origin is not None
    meta = Path(spec.origin).with_name("component_meta.py").read_text(encoding="utf-8")
    assert "\n        create_or_modify_pyi(component_class, name, events)\n" in meta


def test_a_companion_is_not_found_inside_and_found_after(package: str):
    finders = list(sys.meta_path)
    with absent(package):
        for name in (package, f"{package}.meta"):
            with pytest.raises(ModuleNotFoundError, match="left out"):
                import_module(name)
        assert import_module("json.tool").__name__ == "json.tool"
    assert sys.meta_path == finders
    assert import_module(package).answer == "one"
