"""Exact scores against what they are by definition."""

from __future__ import annotations

import torch

from engines.prolificdreamer.exact import mixture_epsilon
from engines.prolificdreamer.vsd import add_noise, scaled_linear_alphas_cumprod

ABAR = scaled_linear_alphas_cumprod().double()[[50, 400, 900]]


def test_it_is_the_gradient_of_the_logarithm_of_the_density():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)
    x_t = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    variance = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    kept = ABAR[:, None, None, None]
    total = kept * variance + 1 - kept
    components = -0.5 * ((x_t[:, None] - kept.sqrt() * centres) ** 2 / total).flatten(2).sum(dim=-1)
    (score,) = torch.autograd.grad(torch.logsumexp(components, dim=1).sum(), x_t)
    expected = -(1 - ABAR).sqrt()[:, None, None] * score
    torch.testing.assert_close(mixture_epsilon(x_t.detach(), centres, ABAR, variance), expected)


def test_of_a_single_picture_it_is_the_noise():
    generator = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn(3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    noise = noise.expand(3, 3, 4, 4)
    x_t = add_noise(picture.expand_as(noise), noise, ABAR)
    torch.testing.assert_close(mixture_epsilon(x_t, picture[None], ABAR), noise)
