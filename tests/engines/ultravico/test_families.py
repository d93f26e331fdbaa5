"""What a family makes of latents, where whole runs do not tell it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.ultravico.pipeline import locate
from pocket.clips import render, sample


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_cogvideox_decodes_even_counts_as_the_beginning_of_odd_ones(published: Path, count: int):
    """The decoder looks back only, so that what comes later changes nothing but the last of its pairs."""
    weights = locate("cogvideox", published)
    family, vae = weights.family, weights.load("vae", "cpu").float()
    latents = torch.randn(1, 5, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, part = (family.decode(vae, some, tiles=False)[0] for some in (latents, latents[:, :count]))
    assert len(part) == 4 * (count - 1) + 1
    shared = {1: 0, 2: 0, 4: 9, 5: 17}[count]  # frames of pairs that are the same in both
    assert np.array_equal(part[:shared], whole[:shared])


def test_tiles_give_nearly_what_decoding_in_one_piece_gives():
    weights = locate("pocket", None)
    family, vae = weights.family, weights.load("vae", "cpu")
    clip = torch.from_numpy(render(sample(1), 9)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    mean, inverse = family.statistics(vae, clip)
    with torch.no_grad():
        latents = (vae.encode(clip).latent_dist.mean - mean) * inverse
        whole = family.decode(vae, latents, tiles=False).astype(int)
        vae.tile_sample_min_height = vae.tile_sample_min_width = 48
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = 32
        parts = family.decode(vae, latents, tiles=True).astype(int)
    assert not vae.use_tiling, "the shared autoencoder is left as it was"
    assert np.abs(parts - whole).max() > 0, "they were tiles"
    assert np.abs(parts - whole).mean() < 8, "grey levels: its attention sees a tile alone"
