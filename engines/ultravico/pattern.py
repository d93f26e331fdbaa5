"""Why a model repeats: how its mean logit depends on the distance in time, and how much of that is one rhythm.

UltraViCo (arXiv 2511.20123), section 3: a sum of cosines whose frequencies are whole multiples of one of them adds
up again after every period, attention becomes periodic, and the video loops.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_attention_pattern(
    amplitude: Tensor,  # [K], mean product of query and key in the channels of each frequency
    freqs: Tensor,  # [K], radians a latent frame
    phase: Tensor,  # [K], radians
    constant: float,
    distance: Tensor,  # [D], latent frames
) -> Tensor:  # [D]
    """S(dt) = sum_i a_i cos(phi_i dt + b_i) + C."""
    angle = distance[:, None] * freqs + phase
    return (amplitude * angle.cos()).sum(dim=-1) + constant


def harmonic_share(freqs: Tensor, amplitude: Tensor, tol: float) -> tuple[int, float]:
    """(dominant, share): the 0-based frequency of largest amplitude, and what it and its harmonics carry of the sum.

    A harmonic is a frequency whose ratio to the dominant one lies within `tol` of a whole number from 1 on.
    """
    dominant = int(amplitude.argmax())
    ratio = freqs / freqs[dominant]
    harmonic = ((ratio - ratio.round()).abs() <= tol) & (ratio.round() >= 1)
    return dominant, float(amplitude[harmonic].sum() / amplitude.sum())


def amplitudes(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:  # [..., N, 2K] before rotation -> [K], [K]
    """Amplitude and phase of every temporal frequency, from the mean query and key of its two channels."""
    query, key = (x.double().flatten(0, -2).unflatten(-1, (-1, 2)).mean(dim=0) for x in (q, k))
    real = (query * key).sum(dim=-1)
    imaginary = query[:, 1] * key[:, 0] - query[:, 0] * key[:, 1]
    return torch.hypot(real, imaginary), torch.atan2(imaginary, real)


def coefficients(q: Tensor, k: Tensor) -> Tensor:  # [B, h, N, 2K] twice, before rotation -> complex128 [h, K]
    """a_i exp(i b_i) of every head and temporal frequency: mean query times conjugate mean key, over sqrt(d) not yet.

    The mean over all pairs of tokens of one distance is the product of the means, as far as tokens are alike in time.
    """
    query, key = (
        torch.view_as_complex(x.double().mean(dim=(0, 2)).unflatten(-1, (-1, 2)).contiguous()) for x in (q, k)
    )
    return query * key.conj()
