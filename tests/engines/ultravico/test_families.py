"""What a family makes of latents, where whole runs do not tell it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.ultravico.pipeline import locate


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
