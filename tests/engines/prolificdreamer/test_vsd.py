"""Variational score distillation: its identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

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


def test_a_huge_gradient_stays_itself():
    latents, huge = torch.zeros(2, 4, 2, 2, requires_grad=True), torch.full((2, 4, 2, 2), torch.finfo().max)
    gradient_loss(latents, huge).backward()
    torch.testing.assert_close(latents.grad, huge / 2)
