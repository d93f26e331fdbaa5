"""The pool: what is drawn from it is what the world says, encoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pocket import vae
from pocket.flatworld import layout, sample_scene, truth
from pocket.pool import fill, load
from pocket.ultraimage import LAYOUT, CaptionedLatents


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    torch.manual_seed(0)
    autoencoder, folder = vae.build().eval(), tmp_path_factory.mktemp("pool")
    for index in range(2):
        fill(folder / f"{index}.safetensors", autoencoder, 100 * index, 5, batch=3)
    return [folder / "0.safetensors", folder / "1.safetensors"]


def test_shards_join_in_order(shards: list[Path]):
    pool = load(shards)
    scenes = [sample_scene(seed) for seed in (*range(5), *range(100, 105))]
    assert pool.truths == tuple(truth(scene) for scene in scenes)
    assert pool.latents.shape == (10, 4, 24, 24)
    for told, scene in zip(pool.layouts, scenes, strict=True):
        assert torch.allclose(told.float(), torch.from_numpy(layout(scene)), atol=2e-3)


def test_a_batch_depends_on_its_generator_alone(shards: list[Path]):
    def draw(seed: int) -> tuple[torch.Tensor, ...]:
        return CaptionedLatents(shards).draw(6, torch.Generator().manual_seed(seed))

    once, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], other[0])
    latents, tokens, layouts = once
    assert latents.shape == (6, 4, 24, 24)
    assert tokens.shape == (6, 20)
    assert layouts.shape == (6, LAYOUT, 12, 12)
