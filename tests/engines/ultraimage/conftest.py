"""Miniature checkpoints, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.ultraimage import presets
from tests.engines.ultraimage import tiny


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Miniature matrices gain nothing from threads, and waiting threads lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of published checkpoints, as ATELIER_WEIGHTS names one."""
    folder = tmp_path_factory.mktemp("published")
    tiny.flux_folder(
        folder / "black-forest-labs--FLUX.1-dev", axes=(16, 56, 56), guidance=True, text_length=512, vae_levels=4
    )
    tiny.qwen_folder(folder / "Qwen--Qwen-Image")
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the pocket model's shape: 8 px a token, axes (8, 28, 28)."""
    return tiny.flux_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pocket preset, pointed to random weights of the same classes."""
    from dataclasses import replace

    monkeypatch.setitem(presets.MODELS, "pocket", replace(presets.POCKET, repo=str(small_folder), layers=3))
    return small_folder
