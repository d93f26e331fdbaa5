"""Entropy-guided attention concentration: which heads look locally, and how much to sharpen them.

UltraImage (arXiv 2512.04504), section 3.2, equations 10 to 12. On a larger grid attention is spread over more
tokens; heads that look at little (low entropy) are sharpened, heads that look everywhere are left alone:
S' = lambda_a q k / sqrt(d). Because lambda is one number per head, multiplying q by it is exactly the same; that is
what `hooks.py` does, and `focused_attention` here is the plain twin it is tested against. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # tokens a side of a block in the published calibration
SMOOTHING = 1e-8  # added to every share when a block has none at all, as published


def block_attention_mass(
    q: Tensor,  # [B, h, N, d], after rotary embedding
    k: Tensor,  # [B, h, N, d]
    block_size: int = BLOCK,
    scale: float | None = None,  # None: 1 / sqrt(d)
    rows: Sequence[int] | None = None,  # block rows to measure; None: all of them
) -> Tensor:  # [B, h, rows, blocks]; each row sums to block_size
    """Attention summed over blocks of queries and keys, as the published calibration records it.

    q and k are padded with zeros to a multiple of the block. Padded keys have logit 0 and take their share; padded
    queries are uniform, so the last block row is biased towards high entropy.
    """
    q, k = _padded(q, block_size), _padded(k, block_size)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    keys = k.float().transpose(-1, -2)  # [B, h, d, N]
    mass = []
    for row in range(q.shape[-2] // block_size) if rows is None else rows:
        queries = q[..., row * block_size : (row + 1) * block_size, :].float()
        weights = torch.softmax(queries @ keys * scale, dim=-1)  # [B, h, block, N]
        mass.append(weights.sum(dim=-2).unflatten(-1, (-1, block_size)).sum(dim=-1))
    return torch.stack(mass, dim=-2)


def _padded(x: Tensor, block_size: int) -> Tensor:
    return F.pad(x, (0, 0, 0, -x.shape[-2] % block_size))


def block_entropy(
    mass: Tensor,  # [B, h, rows, blocks], from block_attention_mass
    block_size: int = BLOCK,
) -> tuple[Tensor, Tensor]:  # row [B, h, rows], head [B, h]; 0 .. ln(blocks), nats
    """-sum p ln p over each block row with p = mass / block_size, and its mean over the rows."""
    share = mass / block_size
    row = -(share * share.log()).sum(dim=-1)
    if row.isnan().any():  # 0 ln 0
        share = share + SMOOTHING
        row = -(share * share.log()).sum(dim=-1)
    if row.isnan().any():
        # Taken as 0 it would silently sharpen every head to the maximum.
        raise ValueError("block entropy: the attention mass holds values that are not numbers or negative")
    return row, row.mean(dim=-1)


def attention_entropy(
    q: Tensor,  # [B, h, N, d], after rotary embedding
    k: Tensor,  # [B, h, M, d]
    scale: float | None = None,  # None: 1 / sqrt(d)
    chunk: int = BLOCK,
) -> Tensor:  # [B, h], 0 .. ln M, nats
    """H = -(1/N) sum_i sum_j P_ij ln P_ij (Eq. 10), exact, one chunk of queries at a time.

    Its range is ln M, not the ln(blocks) of `block_entropy`: the published h_min and h_max do not apply to it.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    precision = torch.promote_types(q.dtype, torch.float32)
    keys = k.to(precision).transpose(-1, -2)
    total = 0.0
    for start in range(0, q.shape[-2], chunk):
        queries = q[..., start : start + chunk, :].to(precision) * scale
        logits = queries @ keys
        mean = torch.einsum("...ij,...ij->...", torch.softmax(logits, dim=-1), logits)  # sum_ij P_ij S_ij
        total = total + torch.logsumexp(logits, dim=-1).sum(dim=-1) - mean  # H = ln Z - E[S], no second map of logs
    return total / q.shape[-2]


def focus_factor(
    entropy: Tensor,  # any shape, nats
    h_min: float,
    h_max: float,
    lambda_min: float = 1.0,
    lambda_max: float = 1.3,
    func: str = "power",
    gamma: float = 2.0,
    clip: bool = True,
) -> Tensor:  # same shape, in [lambda_min, lambda_max]
    """lambda = lambda_min + (lambda_max - lambda_min) (1 - z)^gamma, z = (h - h_min) / (h_max - h_min) (Eq. 12).

    The published power rule does not clip z, and bends upwards (even gamma) or is not a number (fractional gamma)
    above h_max; `clip=False` reproduces it. The linear rule always clips.
    """
    if entropy.isnan().any():
        raise ValueError("focus factor: an entropy is not a number")
    if func not in ("power", "linear"):
        raise ValueError(f"focus function {func!r}: power or linear")
    span = h_max - h_min
    z = (entropy - h_min) / span if span else torch.ones_like(entropy)  # heads alike: nothing to tell apart
    if clip or func == "linear":
        z = z.clamp(0.0, 1.0)
    return lambda_min + (lambda_max - lambda_min) * (1 - z) ** (gamma if func == "power" else 1.0)


def focused_attention(
    q: Tensor,  # [B, h, N, d]
    k: Tensor,  # [B, h, M, d]
    v: Tensor,  # [B, h, M, d]
    factor: Tensor,  # [B, h] or [h]
) -> Tensor:  # [B, h, N, d]
    """softmax(lambda q k^T / sqrt(d)) v, written out: the twin of scaling q in front of any fast kernel."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return torch.softmax(factor.to(q.dtype)[..., None, None] * logits, dim=-1) @ v


def proportional_scale(sequence_length: int, train_sequence: int, head_dim: int) -> float:
    """The entropy-scale baseline (Jin et al.): sqrt(log_{N_train} N / d) instead of 1 / sqrt(d), for every head."""
    return math.sqrt(math.log(sequence_length) / math.log(train_sequence) / head_dim)
