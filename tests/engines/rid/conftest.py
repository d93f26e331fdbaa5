"""Tiny weights where the presets look for the shipped ones, for the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.rid.pipeline import load_diffusion
from engines.rid.presets import MODELS, SURROGATES
from engines.rid.surrogate import Diffusion
from tests.engines.rid.tiny import diffusion_folder, weights_in


@pytest.fixture(scope="session")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    return load_diffusion(diffusion_folder(tmp_path_factory.mktemp("sd")))


@pytest.fixture
def pocket_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model, surrogate = weights_in(tmp_path / "pocket")
    monkeypatch.setitem(MODELS, "pocket", model)
    monkeypatch.setitem(SURROGATES, "pocket", surrogate)
    return tmp_path / "pocket"
