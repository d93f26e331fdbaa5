"""The catalog: the house's engines and further ones, specs without torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import engines
from studio.catalog import Catalog
from studio.errors import InvalidInput, NotFound
from studio.requests import parse

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_specs_agree():
    catalog = Catalog(("tests.quick_engine",))
    assert catalog.names == (*engines.NAMES, "quick_engine")
    for name in catalog.names:
        assert catalog.spec(name).name == name
    assert callable(catalog.run("quick_engine"))


ODD = ([], {}, [[1]], {"a": [1]}, "\ud800", "\x00", float("nan"), 10**400, -1, True, None)


@pytest.mark.parametrize("name", [*engines.NAMES, "quick_engine"])
def test_no_value_of_any_parameter_is_more_than_refused(name: str):
    spec = Catalog(("tests.quick_engine",)).spec(name)
    starts = next(iter(spec.presets.values()), {})
    for field, value in itertools.product((*spec.params.model_fields, "no_such"), ODD):
        with contextlib.suppress(InvalidInput):
            json.dumps(parse(spec, {**starts, field: value}).model_dump(mode="json"))


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
