"""The catalog: the house's engines and further ones, specs without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import engines
from studio.catalog import Catalog
from studio.errors import NotFound

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_specs_agree():
    catalog = Catalog(("tests.quick_engine",))
    assert catalog.names == (*engines.NAMES, "quick_engine")
    for name in catalog.names:
        assert catalog.spec(name).name == name
    assert callable(catalog.run("quick_engine"))


def test_unknown_engines_are_not_found():
    with pytest.raises(NotFound, match="no engine named 'nothing'"):
        Catalog().spec("nothing")
    with pytest.raises(NotFound):
        Catalog().run("../etc")


def test_an_engine_cannot_take_a_name_of_the_house():
    with pytest.raises(ValueError, match="already in the house"):
        Catalog((f"lab.{engines.NAMES[0]}",))


def test_specs_and_requests_need_no_torch():
    code = (
        "import sys; from studio.catalog import Catalog; import studio.requests, studio.web, studio.executors.local\n"
        "c = Catalog(); [c.spec(name) for name in c.names]\n"
        "assert not {'torch', 'diffusers', 'transformers', 'gradio'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
