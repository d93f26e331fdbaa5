"""Which way decayed attention is computed: a rule, and a test against the plain form before a way is trusted.

On a GPU the Triton kernel, else FlexAttention compiled; on a CPU stripes of rows; and whatever fails its test is
passed over, down to rows of logits with a mask. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from subprocess import SubprocessError

import torch
from torch import Tensor

from engines.ultravico.decay import Decay, chunked_attention, dense_attention, flex_attention
from engines.ultravico.kernel import triton_attention
from engines.ultravico.stripes import striped_attention

Path = Callable[[Tensor, Tensor, Tensor, Decay], Tensor]  # q, k, v [B, h, N, d] -> [B, h, N, d]
WAYS: dict[str, Path] = {
    "triton": triton_attention,
    "flex": flex_attention,
    "stripes": striped_attention,
    "chunked": chunked_attention,
}
ORDER = {"cuda": ("triton", "flex", "stripes"), "cpu": ("stripes",)}
BY_ROWS = {"stripes": "rows", "chunked": "chunk"}  # ways that take the rows of logits they may hold at a time
# No compiler or a broken one, no Triton, a kernel this card does not have.
UNUSABLE = (RuntimeError, ImportError, OSError, ValueError, SubprocessError)
SAMPLE = 200  # tokens of the test
TOLERANCE = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Way:
    """One way to compute decayed attention."""

    name: str
    path: Path


def best_way(device: str, dtype: torch.dtype, head_dim: int, rows: int) -> Way:
    """The fastest way that this device has and that passes its test; `rows` of logits at a time where it matters."""
    kind = torch.device(device).type
    name = next((name for name in ORDER.get(kind, ()) if passes(name, device, dtype, head_dim)), "chunked")
    path = WAYS[name]
    return Way(name, partial(path, **{BY_ROWS[name]: rows}) if name in BY_ROWS else path)


@lru_cache(maxsize=32)
def passes(name: str, device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether a way works here and gives what the dense form gives, with bands, text, padding and a first frame.

    Raises torch.OutOfMemoryError where there is no room to find out, which is not remembered.
    """
    try:
        return agrees(WAYS[name], device, dtype, head_dim)
    except torch.OutOfMemoryError:
        raise
    except UNUSABLE:
        return False


def agrees(path: Path, device: str, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether `path` gives what the dense form gives on `SAMPLE` tokens."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (2 * torch.randn(1, 2, SAMPLE, head_dim, generator=generator) for _ in range(3))
    decays = (
        Decay(7, 6, 0.8, 0.5, 9.5, 1.25, text_tokens_end=11, padded_keys_end=4),
        Decay(7, 6, 0.9, text_tokens_start=5),
        Decay(7, 6, 0.7, first_frame_mask=True),
    )
    for decay in decays:
        rows = slice(0, SAMPLE - decay.padded_keys_end)
        rounded = [x.to(dtype) for x in (q, k, v)]
        wanted = dense_attention(*(x.double() for x in rounded), decay)[..., rows, :]
        found = path(*(x.to(device) for x in rounded), decay)[..., rows, :].cpu().double()
        if not torch.allclose(found, wanted, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]):
            return False
    return True
