"""Variational score distillation: the gradient of the particles, and the loss of the network that knows them.

ProlificDreamer (arXiv 2305.16213). Particles follow w(t) (eps_pre - eps_phi): away from where their own renders are,
towards where the text-to-image model wants them. Score distillation sampling is the case of a single particle whose
exact score is the noise itself. Predictions convert between epsilon, v and sample, so that teacher and estimator may
differ. Pure functions of tensors; alpha_bar is per sample [B]. Knows no network.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]
Weighting = Literal["sigma2", "uniform", "fantasia3d"]


def scaled_linear_alphas_cumprod(
    num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tensor:  # float32 [N]
    """alpha_bar of Stable Diffusion: betas linear in their square roots."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _scales(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, shaped to multiply `like`."""
    alpha_bar = alpha_bar.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:  # [B, ...], [B, ...], [B]
    """x_t = alpha x_0 + sigma eps."""
    alpha, sigma = _scales(alpha_bar, x0)
    return alpha * x0 + sigma * noise


def convert_prediction(pred: Tensor, x_t: Tensor, alpha_bar: Tensor, src: Prediction, dst: Prediction) -> Tensor:
    """A network's prediction [B, ...] at x_t as another kind of prediction. Raises ValueError for unknown kinds.

    v = alpha eps - sigma x_0. Converting from or to v needs no division; epsilon to sample divides by alpha.
    """
    for kind in (src, dst):
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction type {kind!r}: epsilon, v_prediction or sample")
    if src == dst:
        return pred
    alpha, sigma = _scales(alpha_bar, x_t)
    match src, dst:
        case "v_prediction", "epsilon":
            return alpha * pred + sigma * x_t
        case "v_prediction", "sample":
            return alpha * x_t - sigma * pred
        case "epsilon", "sample":
            return (x_t - sigma * pred) / alpha
        case "epsilon", "v_prediction":
            return (pred - sigma * x_t) / alpha
        case "sample", "epsilon":
            return (x_t - alpha * pred) / sigma
    return (alpha * x_t - pred) / sigma  # sample to v


def weight(alpha_bar: Tensor, weighting: Weighting) -> Tensor:  # [B]
    """w(t): sigma^2, one, or alpha sigma^2. Raises ValueError for another name."""
    match weighting:
        case "sigma2":
            return 1 - alpha_bar
        case "uniform":
            return torch.ones_like(alpha_bar)
        case "fantasia3d":
            return alpha_bar.sqrt() * (1 - alpha_bar)
    raise ValueError(f"weighting {weighting!r}: sigma2, uniform or fantasia3d")


def vsd_gradient(
    x_t: Tensor,  # [B, C, H, W]
    eps_uncond: Tensor,  # [B, C, H, W], the teacher without text
    eps_cond: Tensor,  # [B, C, H, W], with it
    phi_pred: Tensor,  # [B, C, H, W], the estimator of the particles' score; never guided
    alpha_bar: Tensor,  # [B]
    *,
    guidance_scale: float = 7.5,
    phi_prediction_type: Prediction = "v_prediction",
    weighting: Weighting = "sigma2",
    clip: float | None = None,  # largest absolute value
) -> Tensor:  # [B, C, H, W]
    """w(t) (eps_pre - eps_phi) with eps_pre = eps_uncond + s (eps_cond - eps_uncond) (Eq. 9).

    With the noise as `phi_pred` and type epsilon this is score distillation sampling. What is not a number becomes 0.
    """
    pretrained = eps_uncond + guidance_scale * (eps_cond - eps_uncond)
    estimated = convert_prediction(phi_pred, x_t, alpha_bar, phi_prediction_type, "epsilon")
    scale = weight(alpha_bar, weighting).to(x_t.dtype).view(-1, *[1] * (x_t.ndim - 1))
    gradient = scale * (pretrained - estimated)
    if clip is not None:
        gradient = gradient.clamp(-clip, clip)
    return torch.nan_to_num(gradient)


def gradient_loss(latents: Tensor, grad: Tensor) -> Tensor:  # [B, ...], [B, ...] -> []
    """A loss whose derivative is grad / B: half the summed square of x - stop(x - g), over B.

    A sum, not a mean, over elements: with a mean the regularisers would win by four orders of magnitude. Written so
    that the derivative is exact where the square overflows.
    """
    grad = grad.detach()
    return (0.5 * grad.square().sum() + ((latents - latents.detach()) * grad).sum()) / len(latents)


def denoising_target(x0: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: Prediction) -> Tensor:
    """What a network of this type should predict for x_t [B, ...]."""
    if prediction_type == "epsilon":
        return noise
    alpha, sigma = _scales(alpha_bar, x0)
    return alpha * noise - sigma * x0 if prediction_type == "v_prediction" else x0


def score_estimator_loss(
    phi_pred: Tensor,  # [B, ...], predicted for add_noise(x0, noise, alpha_bar)
    x0: Tensor,
    noise: Tensor,
    alpha_bar: Tensor,  # [B]
    prediction_type: Prediction,
) -> Tensor:  # []
    """The estimator's denoising loss (Eq. 8), a mean over all elements, in float32 at least."""
    target = denoising_target(x0, noise, alpha_bar, prediction_type)
    precision = torch.promote_types(phi_pred.dtype, torch.float32)
    return (phi_pred.to(precision) - target.to(precision)).square().mean()


def camera_embedding(
    c2w: Tensor,  # [B, 4, 4]
    w1: Tensor,  # [E, 16]
    b1: Tensor,  # [E]
    w2: Tensor,  # [D, E]
    b2: Tensor,  # [D]
    drop: Tensor | None = None,  # bool [B], poses the estimator is not told
) -> Tensor:  # [B, D]
    """W2 silu(W1 vec(pose) + b1) + b2; a dropped pose is all zeros, so that the biases still act."""
    pose = c2w.flatten(1)
    if drop is not None:
        pose = pose.masked_fill(drop[:, None], 0.0)
    return torch.nn.functional.linear(torch.nn.functional.silu(torch.nn.functional.linear(pose, w1, b1)), w2, b2)
