"""Miniature checkpoints, built once a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.prolificdreamer import presets
from tests.engines.prolificdreamer import tiny


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Miniature matrices gain nothing from threads, and waiting threads lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the pocket model's classes."""
    return tiny.sd_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pocket preset, pointed to random weights of the same classes."""
    teacher = replace(presets.POCKET.teacher, repo=str(small_folder))
    monkeypatch.setitem(presets.MODELS, "pocket", replace(presets.POCKET, teacher=teacher))
    return small_folder


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of published checkpoints, as ATELIER_WEIGHTS names one."""
    folder = tmp_path_factory.mktemp("published")
    tiny.sd_folder(folder / "sd2-community--stable-diffusion-2-1-base")
    tiny.sd_folder(folder / "sd2-community--stable-diffusion-2-1", prediction_type="v_prediction", seed=5)
    tiny.sd_folder(folder / "stable-diffusion-v1-5--stable-diffusion-v1-5")
    return folder
