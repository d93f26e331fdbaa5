"""Variational score distillation: its identities, and that it keeps a distribution where SDS collapses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engines.prolificdreamer.schedules import timestep_bounds
from engines.prolificdreamer.vsd import (
    add_noise,
    convert_prediction,
    denoising_target,
    gradient_loss,
    scaled_linear_alphas_cumprod,
    score_estimator_loss,
    vsd_gradient,
)

ABAR = scaled_linear_alphas_cumprod().double()
KINDS = ("epsilon", "v_prediction", "sample")


def numbers(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 5, 5, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("src", KINDS)
@pytest.mark.parametrize("dst", KINDS)
def test_predictions_convert_there_and_back(src: str, dst: str):
    x0, noise = numbers(2)
    abar = ABAR[[20, 400, 970]]
    x_t = add_noise(x0, noise, abar)
    pred = denoising_target(x0, noise, abar, src)
    there = convert_prediction(pred, x_t, abar, src, dst)
    torch.testing.assert_close(there, denoising_target(x0, noise, abar, dst))
    torch.testing.assert_close(convert_prediction(there, x_t, abar, dst, src), pred)


def test_v_weighs_errors_by_the_signal():
    x0, noise, wrong = numbers(3)
    abar = ABAR[[300, 300, 300]]
    x_t = add_noise(x0, noise, abar)
    in_eps = score_estimator_loss(wrong, x0, noise, abar, "epsilon")
    in_v = score_estimator_loss(
        convert_prediction(wrong, x_t, abar, "epsilon", "v_prediction"), x0, noise, abar, "v_prediction"
    )
    torch.testing.assert_close(in_v, in_eps / abar[0])


def test_sds_is_vsd_of_a_single_particle():
    x0, noise, uncond, cond = numbers(4)
    abar = ABAR[[100, 500, 900]]
    x_t = add_noise(x0, noise, abar)
    alpha, sigma = abar.sqrt().view(3, 1, 1, 1), (1 - abar).sqrt().view(3, 1, 1, 1)
    exact = (x_t - alpha * x0) / sigma
    given = {"guidance_scale": 100.0, "phi_prediction_type": "epsilon"}
    torch.testing.assert_close(
        vsd_gradient(x_t, uncond, cond, exact, abar, **given), vsd_gradient(x_t, uncond, cond, noise, abar, **given)
    )


def test_order_of_guidance_weight_clip_and_repair():
    x_t, uncond, cond, phi = numbers(4)
    abar = torch.full((3,), 0.5, dtype=torch.float64)
    grad = vsd_gradient(x_t, uncond, cond, phi, abar, phi_prediction_type="epsilon", clip=0.1)
    plain = 0.5 * (uncond + 7.5 * (cond - uncond) - phi)
    torch.testing.assert_close(grad, plain.clamp(-0.1, 0.1))
    phi[0, 0, 0, 0] = torch.nan
    assert vsd_gradient(x_t, uncond, cond, phi, abar)[0, 0, 0, 0] == 0


def test_the_loss_has_the_gradient_and_no_other():
    latents, grad = numbers(2)
    assert torch.autograd.gradcheck(
        lambda x: (x * grad).sum() / len(x), latents.requires_grad_()
    )  # the derivative that is asked for
    gradient_loss(latents, grad).backward()
    torch.testing.assert_close(latents.grad, grad / 3)


MEAN, VARIANCE = torch.tensor([1.5, -0.5], dtype=torch.float64), torch.tensor([0.25, 1.0], dtype=torch.float64)


def distilled(variational: bool, steps: int = 3000, particles: int = 64) -> Tensor:
    """Particles in the plane after distillation from an exact Gaussian teacher, phi exact or the noise itself."""
    generator = torch.Generator().manual_seed(0)
    theta = (2 * torch.randn(particles, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.03, betas=(0.9, 0.99))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        low, high = timestep_bounds(step, anneal_step=steps // 5)
        abar = ABAR[torch.randint(low, high + 1, (particles,), generator=generator)]
        noise = torch.randn(particles, 2, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            x_t = add_noise(theta, noise, abar)
            alpha, sigma = abar.sqrt()[:, None], (1 - abar).sqrt()[:, None]
            teacher = sigma * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
            away = (x_t[:, None] - alpha[:, None] * theta[None]) / sigma[:, None]  # [B, particles, 2]
            share = torch.softmax(-0.5 * away.square().sum(dim=-1), dim=1)
            mixture = (share[..., None] * away).sum(dim=1)
            phi = mixture if variational else noise
            grad = vsd_gradient(x_t, teacher, teacher, phi, abar, phi_prediction_type="epsilon")
        optimiser.zero_grad()
        gradient_loss(theta, grad).backward()
        optimiser.step()
    return theta.detach()


def test_vsd_finds_the_distribution_where_sds_collapses():
    assert (distilled(variational=False).var(dim=0) < 0.02).all()
    found = distilled(variational=True)
    torch.testing.assert_close(found.var(dim=0), VARIANCE, rtol=0.2, atol=0)
    torch.testing.assert_close(found.mean(dim=0), MEAN, rtol=0, atol=0.1)
