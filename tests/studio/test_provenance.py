"""Provenance: the same for the same run, whatever the folder, the device's number or the order of borrowing."""

from __future__ import annotations

import itertools

from studio.contract import ModelKey
from studio.provenance import merge_models, model_row, provenance, versions


def test_folders_and_device_numbers_are_left_out():
    here = ModelKey("full", "/home/anna/models/flux", "sha256:1", "vae", device="cuda:0")
    there = ModelKey("full", "/srv/models/flux", "sha256:1", "vae", device="cuda:3")
    assert model_row(here) == model_row(there)
    assert model_row(here)["repo"] == "flux"
    assert "anna" not in str(provenance("e", {}, [model_row(here)], "cuda:0"))


def test_models_have_one_order():
    rows = [model_row(ModelKey("pocket", "a", "1", name)) for name in ("vae", "text", "net")]
    orders = {str(merge_models(order)) for order in itertools.permutations(rows)}
    assert len(orders) == 1
    assert len(merge_models(rows, rows)) == 3


def test_the_kind_of_device_and_the_versions_are_told():
    told = provenance("e", {"seed": 4}, [], "cuda:1")
    assert (told["device"], told["seed"]) == ("cuda", 4)
    assert told["versions"] == versions()
    assert list(versions())[0] == "atelier"
