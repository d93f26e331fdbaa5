"""Decayed attention: positive logits beyond the training window are shrunk, most where the video would repeat.

UltraViCo (arXiv 2511.20123), equations 5 and 6: S'_ij = lambda_ij S_ij, then softmax. lambda is 1 within half a
training length, for negative logits and for text; beta in the bands around multiples of the repetition period; alpha
elsewhere. The decay multiplies the logit itself, so that no mask added to the logits can express it. Distances are
counted in tokens of the flattened order, not in frames. `decayed_attention` is the plain form; `chunked_attention`
and `flex_attention` compute the same in less memory. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Profile = Literal["constant", "linear", "parabolic"]


@dataclass(frozen=True)
class Decay:
    """Everything lambda depends on but the logit."""

    tokens_per_frame: int  # P
    window_frames: float  # L, the training length in latent frames; the window is half of it either way
    alpha: float  # factor beyond the window
    beta: float | None = None  # factor in the bands; None: no bands
    period_frames: float | None = None  # T, latent frames after which the plain model repeats
    gamma_frames: float | None = None  # half width of a band
    text_tokens_start: int = 0
    text_tokens_end: int = 0  # padding included
    padded_keys_end: int = 0  # of the text at the end, keys that nobody may look at
    first_frame_mask: bool = False  # Wan: the first frame looks at the training length only
    smooth_k: bool = True  # subtract the mean key first, as published; the sign of a logit depends on it
    profile: Profile = "constant"
    alpha1: float | None = None  # factor at the far end of the other profiles
    alpha2: float | None = None  # factor at distance 0

    def __post_init__(self) -> None:
        parts = (self.beta, self.period_frames, self.gamma_frames)
        if any(part is None for part in parts) and self.beta is not None:
            raise ValueError("a decay in bands needs beta, period_frames and gamma_frames")
        if self.profile not in ("constant", "linear", "parabolic"):
            raise ValueError(f"decay profile {self.profile!r}: constant, linear or parabolic")

    @property
    def half_window(self) -> float:
        """Tokens either way that are left alone, L P / 2."""
        return self.window_frames * self.tokens_per_frame / 2

    def factor(self, i: Tensor, j: Tensor, length: int, precision: torch.dtype = torch.float64) -> Tensor:
        """lambda of a positive logit between tokens i and j (integers that broadcast) of a sequence of `length`.

        In float32 distances are exact up to 16 million tokens.
        """
        distance = (i - j).abs().to(precision)
        far = self._beyond(distance, length)
        near = (distance <= self.half_window) | self._text(i, length) | self._text(j, length)
        return torch.where(near, torch.ones_like(far), far)

    def hidden(self, i: Tensor, j: Tensor, length: int) -> Tensor:
        """Whether token i may not look at key j at all."""
        padded = (j >= length - self.padded_keys_end) & (i >= 0)  # every i is, which only gives the pair its shape
        if not self.first_frame_mask:
            return padded
        row, column = i - self.text_tokens_start, j - self.text_tokens_start
        later = (column > self.window_frames * self.tokens_per_frame) & ~self._text(j, length)
        first = (row <= self.tokens_per_frame) & ~self._text(i, length)  # one token more than the frame, as published
        return padded | (first & later)

    def _beyond(self, distance: Tensor, length: int) -> Tensor:
        if self.profile == "constant":
            far = torch.full_like(distance, self.alpha)
        else:
            share = distance / (length - self.text_tokens_start - self.text_tokens_end)
            share = share if self.profile == "linear" else share.square()
            end = 0.85 if self.alpha1 is None else self.alpha1
            start = 0.95 if self.alpha2 is None else self.alpha2
            far = end * share + start * (1 - share)
        if self.beta is None or self.period_frames is None or self.gamma_frames is None:
            return far
        turn = (distance / (self.period_frames * self.tokens_per_frame)).round().clamp(min=1)
        lower = (turn * self.period_frames - self.gamma_frames) * self.tokens_per_frame
        upper = (turn * self.period_frames + self.gamma_frames) * self.tokens_per_frame
        return torch.where((distance >= lower) & (distance <= upper), torch.full_like(far, self.beta), far)

    def _text(self, index: Tensor, length: int) -> Tensor:
        return (index < self.text_tokens_start) | (index >= length - self.text_tokens_end)


def decay_multiplier(
    seq_len: int,
    tokens_per_frame: int,
    window_frames: float,
    alpha: float,
    beta: float | None = None,
    period_frames: float | None = None,
    gamma_frames: float | None = None,
    text_tokens_start: int = 0,
    text_tokens_end: int = 0,
    profile: Profile = "constant",
    alpha1: float | None = None,
    alpha2: float | None = None,
) -> Tensor:  # float64 [N, N]
    """lambda for every pair of tokens, as if all logits were positive (Eq. 6)."""
    decay = Decay(
        tokens_per_frame,
        window_frames,
        alpha,
        beta,
        period_frames,
        gamma_frames,
        text_tokens_start,
        text_tokens_end,
        profile=profile,
        alpha1=alpha1,
        alpha2=alpha2,
    )
    index = torch.arange(seq_len)
    return decay.factor(index[:, None], index[None, :], seq_len)


def decayed_attention(
    q: Tensor,  # [B, h, N, d], after rotary embedding
    k: Tensor,  # [B, h, N, d]
    v: Tensor,  # [B, h, N, d]
    tokens_per_frame: int,
    window_frames: float,
    alpha: float,
    beta: float | None = None,
    period_frames: float | None = None,
    gamma_frames: float | None = None,
    text_tokens_start: int = 0,
    text_tokens_end: int = 0,
    padded_keys_end: int = 0,
    first_frame_mask: bool = False,
    smooth_k: bool = True,
) -> Tensor:  # [B, h, N, d]
    """softmax(lambda S) v with S = q (k - mean k) / sqrt(d), written out. Rows of padding are undefined."""
    decay = Decay(
        tokens_per_frame,
        window_frames,
        alpha,
        beta,
        period_frames,
        gamma_frames,
        text_tokens_start,
        text_tokens_end,
        padded_keys_end,
        first_frame_mask,
        smooth_k,
    )
    return dense_attention(q, k, v, decay)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:  # [B, h, N, d], as all below
    """All logits at once: the reference of the others, for short sequences."""
    return chunked_attention(q, k, v, decay, chunk=q.shape[-2])


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay, chunk: int = 256) -> Tensor:
    """`chunk` rows of logits at a time: exact, B h chunk N numbers of memory, on any device."""
    precision, length = torch.promote_types(q.dtype, torch.float32), q.shape[-2]
    keys, values = smoothed(k, decay).to(precision).transpose(-1, -2), v.to(precision)
    columns = torch.arange(length, device=q.device)
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    for start in range(0, length, chunk):
        queries = q[..., start : start + chunk, :].to(precision)
        rows = torch.arange(start, start + queries.shape[-2], device=q.device)[:, None]
        logits = queries @ keys / math.sqrt(q.shape[-1])
        factor = decay.factor(rows, columns, length).to(precision)
        logits = torch.where(logits > 0, logits * factor, logits)
        logits = logits.masked_fill(decay.hidden(rows, columns, length), -torch.inf)
        out[..., start : start + chunk, :] = (torch.softmax(logits, dim=-1) @ values).to(q.dtype)
    return out


def flex_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay, compiled: bool = True) -> Tensor:
    """By PyTorch's FlexAttention; uncompiled it builds all logits and is for tests only."""
    from torch.nn.attention.flex_attention import flex_attention as plain

    run: Callable[..., Tensor] = torch.compile(plain, dynamic=False) if compiled else plain
    return run(q, smoothed(k, decay), v, score_mod=score_mod(decay, q.shape[-2]))


def score_mod(decay: Decay, length: int) -> Callable[..., Tensor]:
    """FlexAttention's change of one logit that already holds 1 / sqrt(d)."""

    def change(score: Tensor, _batch: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        factor = decay.factor(i, j, length, torch.float32)
        shrunk = torch.where(score > 0, score * factor.to(score.dtype), score)
        return torch.where(decay.hidden(i, j, length), torch.full_like(shrunk, -torch.inf), shrunk)

    return change


def smoothed(k: Tensor, decay: Decay) -> Tensor:  # [B, h, N, d]
    """Keys minus their mean over the whole joint sequence, text and padding included; a new tensor."""
    return k - k.mean(dim=-2, keepdim=True) if decay.smooth_k else k
