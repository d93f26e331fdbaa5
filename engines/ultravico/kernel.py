"""Decayed attention as one Triton kernel: flash attention in which lambda is computed where the logits are.

No table of any kind is read: lambda of a pair follows from the distance of its tokens, and every constant of the
method is an argument, so that no change of a setting compiles anything anew. Products of queries and keys, and the
sums, are in float32. Triton is imported when the kernel is first wanted; without a GPU it runs in Triton's own
interpreter, which the tests use. Knows no model.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from engines.ultravico.decay import Decay, smoothed

ROWS, COLUMNS = 128, 64  # of a tile
NO_BANDS = 1e30  # tokens: a period that no distance reaches
PROFILES = {"constant": 0, "linear": 1, "parabolic": 2}


def triton_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:
    """See `decay.dense_attention`; q, k, v [B, h, N, d], d a power of two of at least 16, on one device.

    Raises ImportError without Triton, NotImplementedError for another d, RuntimeError where it does not compile.
    """
    import triton

    batch, heads, length, dim = q.shape
    if dim < 16 or dim & (dim - 1):
        raise NotImplementedError(f"heads of {dim} channels: a power of two of at least 16 is needed")
    q, k, v = (x.contiguous() for x in (q, smoothed(k, decay), v))
    out = torch.empty_like(q)
    rows, columns = _tile(dim, q.dtype)
    launch = _kernel()[(triton.cdiv(length, rows), batch * heads)]
    try:
        launch(
            q,
            k,
            v,
            out,
            length,
            length - decay.padded_keys_end,
            decay.text_tokens_start,
            length - decay.text_tokens_end,
            1 / math.sqrt(dim),
            *_constants(decay),
            PROFILE=PROFILES[decay.profile],
            DIM=dim,
            ROWS=rows,
            COLUMNS=columns,
            num_warps=8 if dim > 64 else 4,
            num_stages=2,
        )
    except triton.TritonError as error:
        raise RuntimeError(f"decayed attention does not compile for {q.device}: {error}") from error
    return out


def _constants(decay: Decay) -> tuple[float, ...]:
    """The method's constants as the kernel takes them; distances in tokens."""
    per_frame, constant = decay.tokens_per_frame, decay.profile == "constant"
    end = 0.85 if decay.alpha1 is None else decay.alpha1
    start = 0.95 if decay.alpha2 is None else decay.alpha2
    bands = (1.0, NO_BANDS, 0.0)
    if decay.beta is not None and decay.period_frames is not None and decay.gamma_frames is not None:
        bands = (float(decay.beta), float(decay.period_frames * per_frame), float(decay.gamma_frames * per_frame))
    return (
        float(decay.half_window),
        float(decay.alpha if constant else start),
        float(decay.alpha if constant else end),
        *bands,
        per_frame if decay.first_frame_mask else -1,
        float(decay.window_frames * per_frame),
    )


def _tile(dim: int, dtype: torch.dtype) -> tuple[int, int]:
    """Rows and columns of a tile that fit the fast memory of a card."""
    return (ROWS // 2, COLUMNS // 2) if dtype == torch.float32 or dim > 128 else (ROWS, COLUMNS)


@lru_cache(maxsize=1)
def _kernel() -> Any:
    """The kernel; made when first wanted, because importing Triton takes a second."""
    import triton
    import triton.language as tl

    @triton.jit
    def decayed(
        q_at,
        k_at,
        v_at,
        out_at,
        length,
        kept,  # keys that may be looked at
        video_start,
        video_end,
        scale,
        half_window,
        near_factor,  # lambda at distance 0, of the profile that is extended to the far end
        far_factor,
        beta,
        period,  # tokens
        gamma,  # tokens
        first_frame,  # last token of the first frame, plus one; -1: the first frame is nothing special
        trained,  # tokens of the training length
        PROFILE: tl.constexpr,
        DIM: tl.constexpr,
        ROWS: tl.constexpr,
        COLUMNS: tl.constexpr,
    ):
        log2e = 1.4426950408889634
        base = tl.program_id(1).to(tl.int64) * length * DIM
        channel = tl.arange(0, DIM)
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        query = tl.load(q_at + base + row[:, None] * DIM + channel[None, :], mask=row[:, None] < length, other=0.0)
        row_text = (row < video_start) | (row >= video_end)
        row_first = (row - video_start <= first_frame) & (row_text == 0)
        largest = tl.full([ROWS], -1e30, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        mixed = tl.zeros([ROWS, DIM], tl.float32)
        video = (video_end - video_start).to(tl.float32)
        first_row = tl.program_id(0) * ROWS
        for start in range(0, kept, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            known = column < kept
            place = column[None, :] * DIM + channel[:, None]
            key = tl.load(k_at + base + place, mask=known[None, :], other=0.0)
            logit = tl.dot(query, key, input_precision="ieee") * scale
            # The largest distance of this tile: where even that is within the window, no logit changes.
            reach = tl.maximum(first_row + ROWS - 1 - start, start + COLUMNS - 1 - first_row)
            if (reach.to(tl.float32) > half_window) | (first_row - video_start <= first_frame):
                distance = tl.abs(row[:, None] - column[None, :]).to(tl.float32)
                factor = tl.full([ROWS, COLUMNS], far_factor, tl.float32)
                if PROFILE > 0:
                    share = distance / video
                    share = share * share if PROFILE == 2 else share
                    factor = far_factor * share + near_factor * (1 - share)
                turn = tl.maximum(tl.floor(distance / period + 0.5), 1.0)
                in_band = tl.abs(distance - turn * period) <= gamma
                factor = tl.where(in_band, beta, factor)
                column_text = (column < video_start) | (column >= video_end)
                same = (distance <= half_window) | row_text[:, None] | column_text[None, :]
                logit = tl.where(same | (logit <= 0), logit, logit * factor)
                later = (column - video_start > trained) & (column_text == 0)
                logit = tl.where(row_first[:, None] & later[None, :], -float("inf"), logit)
            logit = tl.where(known[None, :], logit * log2e, -float("inf"))
            new = tl.maximum(largest, tl.max(logit, 1))
            weight = tl.exp2(logit - new[:, None])
            fade = tl.exp2(largest - new)
            total = total * fade + tl.sum(weight, 1)
            value = tl.load(v_at + base + column[:, None] * DIM + channel[None, :], mask=known[:, None], other=0.0)
            mixed = mixed * fade[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
            largest = new
        result = mixed / total[:, None]
        tl.store(
            out_at + base + row[:, None] * DIM + channel[None, :],
            result.to(out_at.dtype.element_ty),
            mask=row[:, None] < length,
        )

    return decayed
