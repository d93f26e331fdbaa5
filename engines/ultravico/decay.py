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
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, cast

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

    def factor(self, i: Tensor, j: Tensor, length: int) -> Tensor:  # float64
        """lambda of a positive logit between tokens i and j (integers that broadcast) of a sequence of `length`."""
        distance = (i - j).abs().double()
        far = self._beyond(distance, length)
        near = (distance <= self.half_window) | self.text(i, length) | self.text(j, length)
        return torch.where(near, torch.ones_like(far), far)

    def hidden(self, i: Tensor, j: Tensor, length: int) -> Tensor:
        """Whether token i may not look at key j at all."""
        padded = self.padded(j, length) & (i >= 0)  # every i is, which only gives the pair its shape
        return padded | (self.first(i, length) & self.later(j, length)) if self.first_frame_mask else padded

    def text(self, index: Tensor, length: int) -> Tensor:
        """Whether a token is text."""
        return (index < self.text_tokens_start) | (index >= length - self.text_tokens_end)

    def padded(self, index: Tensor, length: int) -> Tensor:
        """Whether a key is padding, which nobody may look at."""
        return index >= length - self.padded_keys_end

    def first(self, index: Tensor, length: int) -> Tensor:
        """Whether a token is of the first frame, or, as published, the one after it."""
        return (index - self.text_tokens_start <= self.tokens_per_frame) & ~self.text(index, length)

    def later(self, index: Tensor, length: int) -> Tensor:
        """Whether a key lies beyond the training length."""
        beyond = index - self.text_tokens_start > self.window_frames * self.tokens_per_frame
        return beyond & ~self.text(index, length)

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
    """By PyTorch's FlexAttention; uncompiled it builds all logits and is for tests only.

    Raises RuntimeError where it would no longer be compiled.
    """
    run = compiled_flex() if compiled else _flex()
    return run(q, smoothed(k, decay), v, score_mod=score_mod(decay, q.shape[-2], q.device))


def _flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention as plain

    return cast(Callable[..., Tensor], plain)


@lru_cache(maxsize=2)
def compiled_flex(backend: str | Callable[..., Any] = "inductor") -> Callable[..., Tensor]:
    """FlexAttention compiled once, for every decay; whole, so that it fails where it would fall back to N x N."""
    return cast(Callable[..., Tensor], torch.compile(_flex(), fullgraph=True, backend=backend))


def score_mod(decay: Decay, length: int, device: torch.device) -> Callable[..., Tensor]:
    """FlexAttention's change of one logit that already holds 1 / sqrt(d).

    All that a decay says lies in tables: numbers in the code would have it compiled anew for each.
    """
    index, video = torch.arange(length), length - decay.text_tokens_start - decay.text_tokens_end
    alone = replace(decay, text_tokens_start=0, text_tokens_end=0)
    by_distance = alone.factor(index.new_zeros(()), index, video).float()
    text, padded = decay.text(index, length), decay.padded(index, length)
    first = decay.first(index, length) & decay.first_frame_mask
    tables = (table.to(device) for table in (by_distance, text, padded, first, decay.later(index, length)))
    by_distance, text, padded, first, later = tables

    def change(score: Tensor, _batch: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        far = by_distance[(i - j).abs()].to(score.dtype)
        shrunk = torch.where((score > 0) & ~(text[i] | text[j]), score * far, score)
        return torch.where(padded[j] | (first[i] & later[j]), torch.full_like(shrunk, -torch.inf), shrunk)

    return change


def smoothed(k: Tensor, decay: Decay) -> Tensor:  # [B, h, N, d]
    """Keys minus their mean over the whole joint sequence, text and padding included; a new tensor."""
    return k - k.mean(dim=-2, keepdim=True) if decay.smooth_k else k
