"""The defender with its constants folded in: the same numbers, the same budget, nothing to train."""

from __future__ import annotations

import pytest
import torch

from engines.rid.defender import Defender, fold
from engines.rid.plain import Plain
from tests.engines.rid.test_defender import EPS, SMALL, pictures, trained

GREY_LEVEL = 1 / 127.5


@torch.no_grad()
def test_it_computes_what_the_published_network_computes():
    whole = trained()
    torch.testing.assert_close(Plain(whole)(pictures()), whole(pictures()), atol=1e-14, rtol=0)
    folded = Defender(SMALL, EPS, folded=True).double()
    folded.load_state_dict(fold(whole.state_dict()))
    torch.testing.assert_close(Plain(folded)(pictures()), whole(pictures()), atol=1e-14, rtol=0)


@torch.no_grad()
def test_in_single_precision_it_is_equal_to_a_ten_thousandth_of_a_grey_level():
    whole, image = trained().float(), pictures().float()
    torch.testing.assert_close(Plain(whole)(image), whole(image), atol=1e-6, rtol=0)


@torch.no_grad()
def test_in_half_the_bits_it_stays_near_and_within_the_budget():
    whole, image = trained().float(), pictures().float()
    half = Plain(whole).to(torch.bfloat16)
    found = half(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole(image), atol=0.5 * GREY_LEVEL, rtol=0)
    assert half(torch.full((1, 3, 32, 32), 1e6)).abs().max() <= EPS


def test_the_network_it_came_from_and_the_pictures_stay_as_they_were():
    whole, image = trained(), pictures()
    before = {name: weight.clone() for name, weight in whole.state_dict().items()}
    plain = Plain(whole)
    first = plain(image)
    assert torch.equal(plain(image), first)
    assert torch.equal(image, pictures())
    assert all(torch.equal(weight, before[name]) for name, weight in whole.state_dict().items())
    assert not list(plain.parameters())
    assert not first.requires_grad


def test_the_budget_holds_and_another_size_is_refused():
    plain = Plain(trained())
    assert plain(torch.full((1, 3, 32, 32), 1e6, dtype=torch.float64)).abs().max() <= EPS
    with pytest.raises(ValueError, match="32x32"):
        plain(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
