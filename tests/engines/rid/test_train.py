"""Training a defender: it starts with nothing, learns to move latents, and touches no diffusion model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from engines.rid.surrogate import Diffusion
from engines.rid.train import (
    CELL,
    PROMPT,
    Protecting,
    build,
    drawn,
    evenness,
    hidden,
    reconstruction_loss,
    rolled,
    shaken,
    showing_loss,
    surrogate_loss,
    to_float,
)
from engines.shared.training import Recipe, load_average, train
from tests.engines.rid.tiny import SIDE

EPS = 0.2
RECIPE = Recipe(steps=40, batch=8, ranks=1, cooldown=10, warmup=2, muon_rate=0.02, adam_rate=5e-3, save_seconds=1e9)


def smooth(count: int, seed: int = 0) -> Tensor:  # uint8 [N, 3, SIDE, SIDE]
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, (SIDE, SIDE), mode="bilinear") * 140 + 60).byte()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.safetensors"
    save_file({"pictures": smooth(12).unflatten(0, (4, 3))}, path)
    return path


def task(pool: Path, diffusion: Diffusion, **given) -> Protecting:
    return Protecting([pool], [Path("one")], lambda path: diffusion, **given)


def fresh() -> torch.nn.Module:
    return build((SIDE, 4, 24, 2, 2), EPS, 1)


def shift(model: Diffusion, pictures: Tensor, deltas: Tensor) -> float:
    """How far the latents move."""
    with torch.no_grad():
        return float((model.encode(pictures + deltas) - model.encode(pictures)).square().mean().sqrt())


def test_the_first_perturbation_is_nothing_and_only_the_defender_is_trained(pool: Path, diffusion: Diffusion):
    student = fresh()
    assert student(to_float(smooth(2))).abs().max() == 0
    losses = task(pool, diffusion)(student, 4, torch.Generator().manual_seed(0))
    assert set(losses) == {"sds"}
    losses["sds"].backward()
    assert student.final_layer.linear.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in diffusion.parameters())


def test_what_is_learned_moves_latents_further_than_noise(pool: Path, diffusion: Diffusion, tmp_path: Path):
    student = fresh()
    train(student, task(pool, diffusion), RECIPE, tmp_path / "work", hidden)
    load_average(tmp_path / "work", student)
    pictures = to_float(smooth(16, seed=7))
    with torch.no_grad():
        deltas = student(pictures)
    assert deltas.abs().max() <= EPS
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(0, 2, deltas.shape, generator=generator) * 2.0 - 1
    noise = signs * deltas.abs().mean()
    assert shift(diffusion, pictures, deltas) > 1.5 * shift(diffusion, pictures, noise)


def test_targets_are_approached(pool: Path, diffusion: Diffusion, tmp_path: Path):
    source = smooth(6, seed=2)
    attacked = (source.int() + 20).clamp(0, 255).byte()
    pairs = tmp_path / "pairs.safetensors"
    save_file({"source": source, "attacked": attacked}, pairs)
    student, made = fresh(), task(pool, diffusion, pairs=pairs, regression=200.0)
    first = made(student, 8, torch.Generator().manual_seed(0))
    assert set(first) == {"sds", "regression"}
    train(student, made, RECIPE, tmp_path / "work", hidden)
    load_average(tmp_path / "work", student)
    with torch.no_grad():
        deltas = student(to_float(source))
    assert deltas.mean() > 0.5 * 20 / 127.5


def test_what_is_given_back_moves_away_from_the_picture(pool: Path, diffusion: Diffusion, tmp_path: Path):
    student = fresh()
    made = task(pool, diffusion, reconstruction=1.0)
    losses = made(student, 4, torch.Generator().manual_seed(0))
    assert set(losses) == {"sds", "reconstruction"}
    train(student, made, RECIPE, tmp_path / "work", hidden)
    load_average(tmp_path / "work", student)
    pictures = to_float(smooth(16, seed=7))
    with torch.no_grad():
        deltas = student(pictures)
        noise = deltas.abs().mean() * (torch.randint(0, 2, deltas.shape) * 2.0 - 1)
        clean, noisy, moved = (
            reconstruction_loss(diffusion.given_back(pictures + d), pictures) for d in (0, noise, deltas)
        )
    assert moved < min(clean, noisy), "worse than what noise of the same size does"


def test_what_is_given_back_is_measured_picture_by_picture(diffusion: Diffusion):
    pictures = to_float(smooth(3))
    with torch.no_grad():
        given = diffusion.given_back(pictures)
        wrong = [float((a - b).square().mean()) for a, b in zip(given, pictures, strict=True)]
        found = reconstruction_loss(given, pictures)
    assert float(found) == pytest.approx(-sum(math.log(each + 1e-3) for each in wrong) / 3, rel=1e-4)


def half_even(count: int, seed: int = 0) -> Tensor:  # [N, 3, SIDE, SIDE], even on the left
    pictures = smooth(count, seed).float().mean(dim=(2, 3), keepdim=True).expand(-1, -1, SIDE, SIDE).clone()
    grain = torch.randint(0, 2, pictures.shape, generator=torch.Generator().manual_seed(seed)) * 80.0 - 40
    pictures[..., SIDE // 2 :] += grain[..., SIDE // 2 :]
    return to_float(pictures.round().byte())


def test_a_change_shows_on_even_areas_and_not_beside_an_edge():
    pictures = half_even(2)
    even = evenness(pictures)
    assert even.shape == (2, 1, SIDE, SIDE)
    assert even[..., : SIDE // 2 - 2].min() > 0.99
    assert even[..., SIDE // 2 - 2 :].max() < 0.02
    left, right = torch.zeros(2, *pictures.shape)
    left[..., : SIDE // 2 - 2], right[..., SIDE // 2 - 2 :] = 1, -1
    assert showing_loss(left, pictures) == pytest.approx((SIDE // 2 - 2) / SIDE, rel=0.01)
    assert showing_loss(right, pictures) < 0.02 * showing_loss(left, pictures)


def test_a_perturbation_keeps_to_where_it_does_not_show(diffusion: Diffusion, tmp_path: Path):
    path = tmp_path / "pool.safetensors"
    save_file({"pictures": ((half_even(12) + 1) * 127.5).round().byte()}, path)
    student, made = fresh(), task(path, diffusion, reconstruction=1.0, showing=20.0)
    assert set(made(student, 4, torch.Generator().manual_seed(0))) == {"sds", "reconstruction", "showing"}
    train(student, made, RECIPE, tmp_path / "work", hidden)
    load_average(tmp_path / "work", student)
    with torch.no_grad():
        size = student(half_even(16, seed=7)).abs()
    assert size[..., : SIDE // 2 - 4].mean() < 0.5 * size[..., SIDE // 2 :].mean()


def test_every_surrogate_is_asked(pool: Path, diffusion: Diffusion):
    asked: list[Path] = []
    made = Protecting([pool], [Path("one"), Path("two")], lambda path: (asked.append(path), diffusion)[1])
    made(fresh(), 4, torch.Generator().manual_seed(0))
    assert asked == [Path("one"), Path("two")]


def test_the_prompt_is_read_once(pool: Path, diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []
    embed = Diffusion.embed
    monkeypatch.setattr(Diffusion, "embed", lambda model, prompts: (asked.append(prompts), embed(model, prompts))[1])
    made, student = task(pool, diffusion), fresh()
    for seed in range(3):
        made(student, 4, torch.Generator().manual_seed(seed))
    assert asked == [[PROMPT]]


def test_rough_training_perturbs_through_the_treatment(
    pool: Path, diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    """Gradients of a rough task come through what is done to the picture."""
    seen: list[Tensor] = []
    monkeypatch.setattr("engines.rid.train.shaken", lambda moved, generator: (seen.append(moved), 0 * moved)[1])
    losses = task(pool, diffusion, rough=True)(fresh(), 4, torch.Generator().manual_seed(0))
    assert len(seen) == 1
    assert seen[0].shape == (4, 3, SIDE, SIDE)
    losses["sds"].backward()
    assert seen[0].grad_fn is not None


def test_the_gradient_points_away_from_what_the_model_believes(diffusion: Diffusion):
    pictures = to_float(smooth(4)).requires_grad_(True)
    posterior = diffusion.posterior(pictures)
    surrogate_loss(diffusion, posterior, diffusion.embed([PROMPT]), torch.Generator().manual_seed(0)).backward()
    assert pictures.grad.abs().max() > 0


def test_rough_treatment_keeps_shape_lets_gradients_through_and_is_sometimes_none():
    pictures = to_float(smooth(2)).requires_grad_(True)
    kinds = []
    for seed in range(24):
        made = shaken(pictures, torch.Generator().manual_seed(seed))
        kinds.append(made is pictures)
        assert made.shape == pictures.shape
        (gradient,) = torch.autograd.grad(made.sum(), pictures)
        assert gradient.abs().max() > 0
    assert 4 < sum(kinds) < 20


def test_pictures_are_drawn_mirrored_or_not():
    pool = smooth(1)
    seen = {bool(torch.equal(one, to_float(pool)[0])) for one in drawn(pool, 40, torch.Generator().manual_seed(0))}
    assert seen == {True, False}


def test_targets_move_with_their_pictures_by_whole_cells():
    source = torch.arange(6 * 3 * SIDE * SIDE).view(6, 3, SIDE, SIDE)
    moved, target = rolled([source, source + 1], torch.Generator().manual_seed(0))
    assert torch.equal(target - moved, torch.ones_like(moved))
    ways = {(down, across) for down in range(0, SIDE, CELL) for across in range(0, SIDE, CELL)}
    for picture, one in zip(source, moved, strict=True):
        fits = [way for way in ways if torch.equal(torch.roll(picture, way, (1, 2)), one)]
        assert len(fits) == 1
    assert not torch.equal(moved, source)
