"""What a calibration measures is a sample of the queries, always the same one, and tells what all would."""

from __future__ import annotations

import pytest
import torch

from engines.ultraimage.concentration import attention_entropy
from engines.ultraimage.methods import SAMPLED_SHARE, entropy_measure, sample
from engines.ultraimage.spec import UltraImageParams


@pytest.mark.parametrize(
    ("count", "most", "share", "size"),
    [(596, 4096, 12, 50), (60_000, 4096, 12, 4096), (5, 32, 1, 5), (400, 32, 1, 32)],
)
def test_a_sample_is_ascending_within_its_bounds_and_always_the_same(count: int, most: int, share: int, size: int):
    chosen = sample(count, most, share)
    assert len(chosen) == size
    assert (chosen.diff() > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < count
    assert torch.equal(chosen, sample(count, most, share))


def test_a_sample_of_queries_tells_the_entropy():
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.tensor([0.2, 1.0, 4.0])[None, :, None, None]
    q, k = (torch.randn(1, 3, 612, 16, generator=generator) for _ in range(2))
    whole = attention_entropy(q * sharpness, k)
    measure, some = entropy_measure(UltraImageParams())
    assert some is not None
    sampled = measure((q * sharpness)[..., some(q.shape[-2]), :], k)
    assert SAMPLED_SHARE > 1
    assert not torch.equal(sampled, whole)
    torch.testing.assert_close(sampled, whole, atol=0.25, rtol=0)  # of a range of 6.4
    assert (sampled.diff() < 0).all()
