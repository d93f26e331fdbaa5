"""Miniature checkpoints, built once a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.ultravico import presets
from tests.engines.ultravico import folders


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Miniature matrices gain nothing from threads, and waiting threads lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of published checkpoints, as ATELIER_WEIGHTS names one."""
    folder = tmp_path_factory.mktemp("published")
    names = {name: folder / model.repo.replace("/", "--") for name, model in presets.MODELS.items()}
    folders.wan_folder(names["wan"], head_dim=128, text_length=512, levels=3, unipc=True)
    folders.wan_image_folder(names["wan_image"])
    folders.hunyuan_folder(names["hunyuan"])
    folders.cogvideox_folder(names["cogvideox"])
    folders.cogvideox_folder(names["cogvideox_small"], rotary=False)
    return folder


@pytest.fixture
def short(published: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, under presets that were trained on five latent frames: real lengths take minutes without a GPU."""
    for name, preset in presets.MODELS.items():
        if not preset.local:
            monkeypatch.setitem(presets.MODELS, name, replace(preset, train_latent_frames=5))
    return published


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the pocket model's layout: 8 px a token, heads of 64."""
    return folders.wan_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture
def small(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pocket preset, pointed to random weights of the same classes, with a short training length."""
    changed = replace(
        presets.POCKET, repo=str(small_folder), train_latent_frames=3, width=32, height=32, pixels_per_token=8
    )
    monkeypatch.setitem(presets.MODELS, "pocket", changed)
    return small_folder
