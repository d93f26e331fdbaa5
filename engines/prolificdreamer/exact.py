"""Exact scores: what a perfect network would predict where the clean distribution is known.

A mixture of Gaussians with equal weights stays one when noise is added, so the noise that is expected at a point is a
softmax away. One component is the teacher of the analytic toy, components without width are a finite set of pictures
or of particles. Pure functions of tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mixture_epsilon(
    x_t: Tensor,  # [B, ...]
    centres: Tensor,  # [K, ...], the means of the components
    alpha_bar: Tensor,  # [B]
    variance: Tensor | float = 0.0,  # [...] or a number, of every component in every direction
) -> Tensor:  # [B, ...]
    """E[eps | x_t] for data from the mixture: sigma times the negative score of x_t.

    Component k has mean alpha m_k and variance alpha^2 s^2 + sigma^2 after noising. alpha_bar must be below 1.
    """
    shape = x_t.shape
    x, means = x_t.flatten(1), centres.flatten(1)
    kept = alpha_bar.to(x.dtype)[:, None]
    spread = torch.as_tensor(variance, dtype=x.dtype, device=x.device).expand(shape[1:]).flatten()
    total = kept * spread + (1 - kept)  # [B, D]
    # |x - alpha m|^2 / total without [B, K, D]: the square is multiplied out.
    scaled = x / total
    cross = scaled @ means.T * kept.sqrt()
    squares = (kept / total) @ means.square().T
    logits = cross - 0.5 * squares
    share = torch.softmax(logits, dim=1)
    mean = share @ means
    return ((1 - kept).sqrt() * (x - kept.sqrt() * mean) / total).view(shape)
