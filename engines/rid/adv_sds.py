"""Adversarial score distillation: what the defender is trained with.

RID (arXiv 2412.09844), section "Method". Score distillation pulls a latent towards what a diffusion model believes;
this pushes it away: descending the loss moves the latent along +w (e - noise). Nothing flows through the diffusion
model itself. Pure functions of its predictions; loads and calls no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def adv_sds_loss(
    latents: Tensor,  # [B, C, H, W], with the gradient of the encoder
    noise: Tensor,  # [B, C, H, W]
    eps_pred: Tensor | None,  # [B, C, H, W], predicted for `noisy`; None: only `noisy` is wanted
    timesteps: Tensor,  # int64 [B]
    alphas_cumprod: Tensor,  # [T]
) -> tuple[Tensor, Tensor]:  # noisy [B, C, H, W], loss []
    """0.5 mean (z_t - stop(z_t + w (e - noise)))^2 with w = 1 - abar_t.

    The gradient to z_t is g / numel with g = -w (e - noise), to the latents sqrt(abar_t) times that. Entries of g
    that are not finite are replaced: not a number by 0, infinities by the largest finite number.
    """
    abar = alphas_cumprod[timesteps].view(-1, *[1] * (latents.ndim - 1))
    # In the schedule's own precision: near t = 0 it is nearly one.
    signal, sigma, weight = (part.to(latents.dtype) for part in (abar.sqrt(), (1 - abar).sqrt(), 1 - abar))
    noisy = signal * latents + sigma * noise
    if eps_pred is None:
        return noisy, noisy.new_zeros(())
    gradient = torch.nan_to_num(-weight * (eps_pred.detach() - noise))
    target = (noisy - gradient).detach()
    return noisy, 0.5 * F.mse_loss(noisy, target)  # whose derivative does not double before it divides


@dataclass(frozen=True)
class TotalLoss:
    """The regression terms and what is minimised."""

    reg_l1: Tensor
    reg_mse: Tensor
    total: Tensor  # reg_weight L1 / (n + 1) + mean of the n Adv-SDS losses
    total_reg_only: Tensor  # 10 MSE, the recipe without Adv-SDS


def rid_total_loss(
    delta_pred: Tensor,  # [B, 3, H, W]
    source_image: Tensor,  # [B, 3, H, W]
    attacked_image: Tensor,  # [B, 3, H, W], the same protected image by image
    sds_losses: Tensor | Sequence[Tensor],  # n, one a surrogate
    reg_weight: float,
) -> TotalLoss:
    """The combined objective: the mean of n + 1 entries, the n Adv-SDS losses counted (n + 1) / n times."""
    wrong = delta_pred - (attacked_image - source_image)
    l1, mse = wrong.abs().mean(), wrong.square().mean()
    if not len(sds_losses):
        raise ValueError("the combined objective needs at least one surrogate")
    losses = sds_losses if isinstance(sds_losses, Tensor) else torch.stack(list(sds_losses))
    count = len(losses)
    entries = torch.cat([(reg_weight * l1).to(losses.dtype)[None], losses * ((count + 1) / count)])
    return TotalLoss(l1, mse, entries.mean(), 10 * mse)
