"""Image-wise perturbations by projected gradient ascent: the slow baselines, and the targets of the regression.

RID (arXiv 2412.09844), supplement; AdvDM and Anti-DreamBooth are this loop without and with a fine-tuned surrogate.
All in units of [-1, 1]. Knows neither surrogates nor losses: gradients are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pgd_step(
    x_adv: Tensor,  # [B, 3, H, W]
    x_orig: Tensor,  # [B, 3, H, W]
    grad: Tensor,  # [B, 3, H, W], of the loss that is to grow
    *,
    alpha: float,  # step
    eps: float,  # budget
    lo: float = -1.0,
    hi: float = 1.0,
) -> Tensor:  # [B, 3, H, W]
    """clip(x_orig + clip(x + alpha sign(grad) - x_orig, -eps, eps), lo, hi): the ball first, then the range."""
    return (x_orig + (x_adv + alpha * grad.sign() - x_orig).clamp(-eps, eps)).clamp(lo, hi)


def momentum_pgd_step(
    x_adv: Tensor,
    x_orig: Tensor,
    grad: Tensor,
    momentum: Tensor,  # [B, 3, H, W] or [B, 1, 1, 1]; zeros at first, kept over surrogates and outer iterations
    *,
    alpha: float,
    eps: float,
    decay: float = 0.99,
    lo: float = -1.0,
    hi: float = 1.0,
) -> tuple[Tensor, Tensor]:  # picture, momentum, both [B, 3, H, W]
    """m <- decay m + grad / mean |grad| of each picture, then a step along sign(m). No gradient adds nothing."""
    size = grad.abs().mean(dim=(1, 2, 3), keepdim=True)
    momentum = decay * momentum + torch.where(size > 0, grad / size, torch.zeros_like(grad))
    return pgd_step(x_adv, x_orig, momentum, alpha=alpha, eps=eps, lo=lo, hi=hi), momentum


def ensemble_average(pictures: Sequence[Tensor]) -> Tensor:
    """The mean over surrogates, where the next outer iteration starts; stays in every ball all of them are in."""
    return torch.stack(list(pictures)).mean(dim=0)
