"""Projected ascent: up, not down; inside the ball first and the range second."""

from __future__ import annotations

import torch

from engines.rid.attacks import ensemble_average, momentum_pgd_step, pgd_step

EPS, STEP = 12 / 255, 1.2 / 255


def test_it_ascends_and_stays_inside():
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    target = -x.sign()
    adv = x
    for _ in range(30):
        adv = pgd_step(adv, x, target, alpha=STEP, eps=EPS)
    torch.testing.assert_close(adv, x + EPS * target)
    still = pgd_step(x, x, torch.zeros_like(x), alpha=STEP, eps=EPS)
    assert torch.equal(still, x)


def test_the_ball_comes_before_the_range():
    x = torch.full((1, 3, 1, 1), 0.99)
    adv = pgd_step(x + 5, x, torch.ones_like(x), alpha=STEP, eps=0.5)
    assert torch.equal(adv, torch.ones_like(x))


def test_momentum_is_normed_by_picture_and_kept():
    x = torch.zeros(2, 3, 2, 2)
    grad = torch.stack([torch.full((3, 2, 2), 1e-6), torch.full((3, 2, 2), -1e6)])
    adv, momentum = momentum_pgd_step(x, x, grad, torch.zeros(2, 1, 1, 1), alpha=STEP, eps=EPS)
    torch.testing.assert_close(momentum, grad.sign())
    torch.testing.assert_close(adv, STEP * grad.sign())
    again, kept = momentum_pgd_step(adv, x, torch.zeros_like(grad), momentum, alpha=STEP, eps=EPS)
    torch.testing.assert_close(kept, 0.99 * momentum)
    torch.testing.assert_close(again, 2 * adv)


def test_an_average_stays_in_the_ball():
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(1, 3, 4, 4)
    parts = [x + EPS * (2 * torch.rand(x.shape, generator=generator) - 1) for _ in range(5)]
    assert (ensemble_average(parts) - x).abs().max() <= EPS
