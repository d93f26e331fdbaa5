"""Worn pictures stay close to what they were; broken ones do not, each in its own way."""

from __future__ import annotations

import pytest
import torch

from pocket.broken import UNSEEN_WAYS, WAYS, bare, broken, worn
from pocket.toys import KINDS
from pocket.world import Scene, render


@pytest.fixture(scope="module")
def toys() -> torch.Tensor:
    """One picture of every kind."""
    return render([Scene(kind, "red") for kind in KINDS]).rgb * 2 - 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_worn_pictures_are_still_the_same_pictures(toys: torch.Tensor):
    found = worn(toys, generator())
    assert found.shape == toys.shape
    assert found.abs().max() <= 1
    own = (found - toys).square().mean((1, 2, 3))
    others = (found[:, None] - toys[None]).square().mean((2, 3, 4))
    assert (others.argmin(1) == torch.arange(len(toys))).float().mean() > 0.8
    assert own.max() < 0.2
    assert not torch.equal(worn(toys, generator(1)), found)


@pytest.mark.parametrize("way", WAYS + UNSEEN_WAYS)
def test_broken_pictures_are_far_from_what_they_were(toys: torch.Tensor, way: str):
    found = broken(way, toys, toys.roll(1, 0), generator())
    assert found.shape == toys.shape
    assert found.abs().max() <= 1.5  # bicubic overshoot; `worn` clamps
    assert (found - toys).abs().mean() > 0.02
    assert torch.equal(broken(way, toys, toys.roll(1, 0), generator()), found)


def test_halves_are_those_of_two(toys: torch.Tensor):
    found = broken("beside", toys, toys.roll(1, 0), generator())
    assert torch.equal(found[..., :32], toys[..., :32])
    assert torch.equal(found[..., 32:], toys.roll(1, 0)[..., 32:])


def test_tiles_are_all_there(toys: torch.Tensor):
    found = broken("tiles", toys, toys, generator())
    assert torch.equal(found.flatten().sort().values, toys.flatten().sort().values)


def test_half_melted_keeps_a_third_as_it_was(toys: torch.Tensor):
    found = broken("half_melted", toys, toys, generator())
    kept = ((found - toys).abs().amax(1) < 1e-3).float().mean((1, 2))
    assert (kept > 0.3).all()


def test_patches_are_squares_of_the_other(toys: torch.Tensor):
    others = toys.roll(1, 0)
    found = broken("patched", toys, others, generator())
    assert ((found != toys).any(1).sum((1, 2)) <= 32 * 32).all()
    assert torch.isin(found, torch.cat([toys, others])).all()


def test_bare_pictures_have_no_toy(toys: torch.Tensor):
    assert bare(toys).std(dim=3).max() < 1e-5
