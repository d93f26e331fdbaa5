"""Perturbations by search, and what a thief does against them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engines.rid.pgd import denoising_gradient, protect_by_search
from engines.rid.portrait import jpeg_roundtrip
from engines.rid.purify import WAYS, purified, redrawn
from engines.rid.surrogate import Diffusion
from tests.engines.rid.tiny import SIDE

EPS = 0.1


def pictures(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 1.2 - 0.6
    return F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def found(model: Diffusion, **given) -> torch.Tensor:
    settings = {"eps": EPS, "rounds": 4, "inner": 5, "prompt": "a person"} | given
    models = settings.pop("models", [model])
    return protect_by_search(models, pictures(), generator=torch.Generator().manual_seed(0), **settings)


def error(model: Diffusion, shown: torch.Tensor) -> float:
    """Of the predicted noise, over many draws that are the same for every picture."""
    generator, total = torch.Generator().manual_seed(9), 0.0
    with torch.no_grad():
        latents = model.encode(shown)
        for _ in range(40):
            noise = torch.randn(latents.shape, generator=generator)
            timesteps = torch.randint(model.steps, (len(shown),), generator=generator)
            words = model.embed(["a person"]).expand(len(shown), -1, -1)
            guess = model.predict(model.noised(latents, noise, timesteps), timesteps, words)
            total += float((guess - noise).square().mean())
    return total


def test_the_search_stays_within_the_budget_and_climbs(diffusion: Diffusion):
    moved, with_memory = found(diffusion), found(diffusion, momentum=True)
    for made in (moved, with_memory):
        assert (made - pictures()).abs().max() <= EPS + 1e-6
        assert made.abs().max() <= 1
    assert not torch.equal(moved, with_memory)
    assert error(diffusion, moved) > error(diffusion, pictures())


def test_models_are_averaged_and_steps_are_told(diffusion: Diffusion):
    told: list[int] = []
    moved = found(diffusion, models=[diffusion, diffusion], rounds=1, inner=2, on_step=told.append)
    assert told == [1, 2, 3, 4]
    assert (moved - pictures()).abs().max() <= EPS + 1e-6


def test_the_gradient_is_that_of_the_pictures_alone(diffusion: Diffusion):
    words = diffusion.embed(["a person"]).expand(3, -1, -1)
    gradient = denoising_gradient(diffusion, pictures(), words, torch.Generator().manual_seed(0))
    assert gradient.shape == pictures().shape
    assert gradient.abs().max() > 0
    assert all(weight.grad is None for weight in diffusion.parameters())


@pytest.mark.parametrize("way", ["none", "diffusion", *WAYS])
def test_every_purification_keeps_shape_and_range_and_is_repeatable(way: str, diffusion: Diffusion):
    one, again = (
        purified(pictures(), way, model=diffusion, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, again)
    assert one.shape == pictures().shape
    assert one.abs().max() <= 1
    assert torch.equal(one, pictures()) == (way == "none")


def test_jpeg_is_the_real_one(diffusion: Diffusion):
    shown = (pictures(1) * 127.5 + 127.5).round() / 127.5 - 1
    made = purified(shown, "jpeg50", model=diffusion, generator=torch.Generator())
    levels = (shown[0].permute(1, 2, 0).numpy() * 127.5 + 127.5).round().astype(np.uint8)
    expected = jpeg_roundtrip(levels, 50).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(made[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_blur_and_resizing_remove_what_is_fine(diffusion: Diffusion):
    fine = torch.ones(1, 3, SIDE, SIDE) * 0.3
    fine[..., ::2] *= -1
    for way in ("blur", "resize"):
        assert purified(fine, way, model=diffusion, generator=torch.Generator()).std() < 0.5 * fine.std()


def test_redrawing_a_little_changes_little(diffusion: Diffusion):
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    little, much = (
        redrawn(pictures(), diffusion, generator, strength)
        for generator, strength in zip(generators, (0.02, 0.9), strict=True)
    )
    kept = diffusion.decode(diffusion.encode(pictures()))
    assert (little - kept).abs().mean() < (much - kept).abs().mean()


def test_an_unknown_purification_is_refused(diffusion: Diffusion):
    with pytest.raises(ValueError, match="holy water"):
        purified(pictures(), "holy water", model=diffusion, generator=torch.Generator())
