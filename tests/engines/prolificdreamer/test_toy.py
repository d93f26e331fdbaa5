"""The analytic toy: the effect of the paper with nothing learned."""

from __future__ import annotations

import pytest
import torch

from engines.prolificdreamer.toy import MEAN, VARIANCE, distil_gaussian


def test_vsd_finds_the_distribution_where_sds_collapses():
    assert (distil_gaussian("sds", steps=2500).variance < 0.02).all()
    found = distil_gaussian("vsd", steps=2500)
    torch.testing.assert_close(found.variance, torch.tensor(VARIANCE, dtype=torch.float64), rtol=0.2, atol=0)
    torch.testing.assert_close(found.mean, torch.tensor(MEAN, dtype=torch.float64), rtol=0, atol=0.1)


@pytest.mark.parametrize("method", ["vsd", "sds"])
def test_both_start_from_the_same_places_and_can_be_repeated(method: str):
    one, again = (distil_gaussian(method, steps=8, particles=6, seed=3) for _ in range(2))
    assert torch.equal(one.path, again.path)
    assert one.path.shape == (5, 6, 2)
    assert torch.equal(one.path[0], distil_gaussian("vsd", steps=8, particles=6, seed=3).path[0])
    assert not torch.equal(one.path[0], distil_gaussian(method, steps=8, particles=6, seed=4).path[0])
