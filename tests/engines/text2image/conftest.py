"""Miniature checkpoints, built once a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.text2image import presets
from engines.text2image.metrics import pictures_of
from pocket.lessons import lesson
from tests.engines.text2image import tiny

TRAINED_ON = list(range(100, 196))  # seeds of the training pictures of the miniature model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Miniature matrices gain nothing from threads, and waiting threads lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights in the pocket model's shape, and what judges them."""
    folder = tmp_path_factory.mktemp("small")
    pictures = pictures_of([lesson(seed) for seed in TRAINED_ON], 64)
    return {
        "repo": str(tiny.diffusion_folder(folder / "model")),
        "judge": str(tiny.judge_folder(folder / "judge")),
        "clip": str(tiny.clip_folder(folder / "clip")),
        "index": str(tiny.index_folder(folder / "index", pictures, TRAINED_ON)),
    }


@pytest.fixture
def small(small_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pocket preset, pointed to random weights of the same classes."""
    monkeypatch.setitem(presets.MODELS, "pocket", replace(presets.POCKET, **small_folders))
    return Path(small_folders["repo"])
