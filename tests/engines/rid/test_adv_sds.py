"""Adversarial score distillation: its direction, what it ignores, and where it must not reach."""

from __future__ import annotations

import pytest
import torch

from engines.rid.adv_sds import adv_sds_loss, rid_total_loss

ABAR = torch.linspace(0.9991, 0.0047, 1000, dtype=torch.float64)


def given(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 4, 5, 5, generator=generator, dtype=torch.float64) for _ in range(3))


def test_descent_moves_away_from_what_the_model_believes():
    latents, noise, believed = given()
    latents.requires_grad_()
    t = torch.tensor([400, 900])
    _, loss = adv_sds_loss(latents, noise, believed, t, ABAR)
    loss.backward()
    assert ((believed - noise) * -latents.grad).sum() > 0
    abar = ABAR[t].view(2, 1, 1, 1)
    expected = abar.sqrt() * -(1 - abar) * (believed - noise) / latents.numel()
    torch.testing.assert_close(latents.grad, expected)
    torch.testing.assert_close(loss.detach(), 0.5 * ((1 - abar) * (believed - noise)).square().mean())


def test_nothing_reaches_the_model_and_nothing_is_left_without_noise():
    latents, noise, believed = given()
    believed.requires_grad_()
    _, loss = adv_sds_loss(latents.requires_grad_(), noise, believed, torch.tensor([0, 0]), torch.ones(1))
    loss.backward()
    assert believed.grad is None
    assert latents.grad.abs().max() == 0


def test_what_is_no_number_gives_no_gradient():
    latents, noise, believed = given()
    believed[0, 0, 0, 0] = torch.nan
    latents.requires_grad_()
    adv_sds_loss(latents, noise, believed, torch.tensor([500, 500]), ABAR)[1].backward()
    assert latents.grad[0, 0, 0, 0] == 0
    assert latents.grad.isfinite().all()


def test_the_combination_counts_surrogates_equally():
    predicted, source, attacked = given()
    losses = torch.tensor([3.0, 6.0, 9.0], dtype=torch.float64)
    l1 = (predicted - (attacked - source)).abs().mean()
    torch.testing.assert_close(rid_total_loss(predicted, source, attacked, losses, 10.0).total, 10 * l1 / 4 + 6)
    two = rid_total_loss(predicted, source, attacked, list(losses[:2]), 0.0).total
    torch.testing.assert_close(two, losses[:2].mean())


def test_what_is_endless_gives_the_largest_number_there_is():
    latents, noise, believed = (part.float() for part in given())
    believed[0, 0, 0, 0], believed[1, 0, 0, 0] = torch.inf, -torch.inf
    latents.requires_grad_()
    noisy, loss = adv_sds_loss(latents, noise, believed, torch.tensor([500, 500]), ABAR)
    noisy.retain_grad()
    loss.backward()
    assert noisy.grad.isfinite().all()
    assert noisy.grad[0, 0, 0, 0] < -1e30
    assert noisy.grad[1, 0, 0, 0] > 1e30


def test_early_times_keep_the_precision_of_the_schedule():
    """1 - abar of the first time, 0.0009, would have lost four of its digits in single precision."""
    latents, noise, believed = given()
    t = torch.tensor([0, 1])
    exact, _ = adv_sds_loss(latents, noise, believed, t, ABAR)
    found, _ = adv_sds_loss(latents.float(), noise.float(), believed.float(), t, ABAR)
    torch.testing.assert_close(found.double(), exact, atol=2e-7, rtol=1e-6)


def test_without_a_surrogate_there_is_no_objective():
    predicted, source, attacked = given()
    with pytest.raises(ValueError, match="at least one surrogate"):
        rid_total_loss(predicted, source, attacked, [], 1.0)
