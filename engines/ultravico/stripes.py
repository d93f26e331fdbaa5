"""Decayed attention on a CPU near the speed of its matrix products: the same as `decay.chunked_attention`, unmasked.

Some rows of logits are made at a time. For those rows nearly all columns lie in stripes in which lambda is one
number: the window, what is beyond it, a band, text. There the queries are multiplied by lambda before the product,
and leaky ReLU of slope 1 / lambda, in place, gives negative logits back what they lost. Only the narrow edges between
stripes need lambda pair by pair. Where queries and keys are short enough, as normalised ones are, no row needs its
largest logit taken off before the exponential, which saves two of five passes. Memory is the rows times the length,
for a few heads at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.ultravico.decay import Decay, smoothed

ROWS = 128  # rows of logits at a time: few enough for the cache, enough for the matrix product
HIDDEN = -math.inf
SAFE = 60.0  # logits up to here can be raised to e as they are: sums stay far within float32, none is lost
BUFFER = 64 * 2**20  # bytes of logits at a time, over all heads of a group


@dataclass(frozen=True)
class Run:
    """Distances, both included, over which lambda is one number."""

    first: int
    last: int
    factor: float


@dataclass(frozen=True)
class Stripe:
    """Columns [start, end) of some rows; `factor` is None where lambda differs from pair to pair.

    Columns that may not be seen at all have the factor HIDDEN.
    """

    start: int
    end: int
    factor: float | None


def striped_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay, rows: int = ROWS) -> Tensor:
    """See `decay.dense_attention`; q, k, v [B, h, N, d] -> [B, h, N, d]. Rows of padding are undefined."""
    precision, length = torch.promote_types(q.dtype, torch.float32), q.shape[-2]
    kept = length - decay.padded_keys_end
    queries = (q.to(precision) / math.sqrt(q.shape[-1])).flatten(0, 1)
    keys = smoothed(k, decay).to(precision)[..., :kept, :].flatten(0, 1).transpose(-1, -2)
    values = v.to(precision)[..., :kept, :].flatten(0, 1)
    out = values.new_empty(len(values), length, values.shape[-1])
    heads = max(1, min(len(queries), BUFFER // (4 * rows * length)))
    logits = queries.new_empty(heads * rows * kept)
    lambdas = Lambdas(decay, length, rows)
    small = _largest_logit(queries, keys) * max(1.0, float(lambdas.by_distance.max())) < SAFE
    for first, last in lambdas.blocks(rows):
        stripes = lambdas.stripes(first, last, kept)
        wide = stripes[-1].end
        for group in range(0, len(queries), heads):
            some = slice(group, group + heads)
            shape = (len(queries[some]), last - first, wide)
            block = logits[: math.prod(shape)].view(shape)
            for stripe in stripes:
                lambdas.fill(block, queries[some, first:last], keys[some], stripe, first)
            if not small:
                block.sub_(block.amax(-1, keepdim=True))
            weights = block.exp_()
            torch.bmm(weights, values[some, :wide], out=out[some, first:last])
            out[some, first:last].div_(weights.sum(-1, keepdim=True))
    return out.unflatten(0, q.shape[:2]).to(q.dtype)


def _largest_logit(queries: Tensor, keys: Tensor) -> float:  # [g, N, d], [g, d, M]
    """A bound of every logit's size: the longest query times the longest key."""
    return float((queries.norm(dim=-1).amax(-1) * keys.norm(dim=-2).amax(-1)).max())


class Lambdas:
    """lambda of one sequence, laid out for blocks of rows."""

    def __init__(self, decay: Decay, length: int, rows: int) -> None:
        self.begin, self.end = decay.text_tokens_start, length - decay.text_tokens_end  # of the video
        self.length = length
        alone = replace(decay, text_tokens_start=0, text_tokens_end=0, padded_keys_end=0, first_frame_mask=False)
        video = self.end - self.begin
        self.by_distance = alone.factor(torch.zeros((), dtype=torch.long), torch.arange(video), video)  # float64 [V]
        # Shorter runs are never the same for all rows of a block.
        self.runs = [run for run in runs_of(self.by_distance) if not run.first or run.last - run.first >= rows - 1]
        self.first_rows = min(video, decay.tokens_per_frame + 1) if decay.first_frame_mask else 0
        self.first_columns = min(video, math.floor(decay.window_frames * decay.tokens_per_frame) + 1)
        self._edges: dict[tuple[int, int, int], Tensor] = {}

    def blocks(self, rows: int) -> Iterator[tuple[int, int]]:
        """Consecutive rows [first, last) that see alike: text, the first frame where it is special, the rest."""
        bounds = (0, self.begin, self.begin + self.first_rows, self.end, self.length)
        for lower, upper in zip(bounds, bounds[1:], strict=False):
            for first in range(lower, upper, rows):
                yield first, min(upper, first + rows)

    def stripes(self, first: int, last: int, kept: int) -> list[Stripe]:
        """The columns that rows [first, last) may look at, from left to right and without gaps."""
        if last <= self.begin or first >= self.end:
            return [Stripe(0, kept, 1.0)]
        limit = self.end
        if first < self.begin + self.first_rows:
            limit = self.begin + self.first_columns
        found = list(self._pure(first, last, min(limit, kept)))
        whole, at = ([Stripe(0, self.begin, 1.0)] if self.begin else []), self.begin
        for stripe in sorted(found, key=lambda stripe: stripe.start):
            if at < stripe.start:
                whole.append(Stripe(at, stripe.start, None))
            whole.append(stripe)
            at = stripe.end
        if at < min(limit, kept):
            whole.append(Stripe(at, min(limit, kept), None))
        if self.end < kept:
            whole += [Stripe(limit, self.end, HIDDEN)] if limit < self.end else []
            whole.append(Stripe(self.end, kept, 1.0))
        return whole

    def _pure(self, first: int, last: int, limit: int) -> Iterator[Stripe]:
        """Columns at whose distance from every one of the rows lambda is the same number."""
        for run in self.runs:
            right = (last - 1 + run.first, first + run.last)
            left = (last - 1 - run.last, first - run.first)
            spans = [(left[0], right[1])] if run.first == 0 else [left, right]
            for start, stop in spans:
                start, stop = max(start, self.begin), min(stop + 1, limit)
                if start < stop:
                    yield Stripe(start, stop, run.factor)

    def fill(self, block: Tensor, queries: Tensor, keys: Tensor, stripe: Stripe, first: int) -> None:
        """Decayed logits of one stripe into its columns of `block` [g, r, wide]."""
        at = slice(stripe.start, stripe.end)
        target, factor = block[..., at], stripe.factor
        if factor == HIDDEN:
            target.fill_(HIDDEN)
        elif factor is None or factor <= 0:
            torch.bmm(queries, keys[..., at], out=target)
            target.copy_(torch.where(target > 0, target * self._edge(queries, stripe, first), target))
        elif factor == 1:
            torch.bmm(queries, keys[..., at], out=target)
        else:
            torch.bmm(queries * factor, keys[..., at], out=target)
            F.leaky_relu_(target, 1 / factor)

    def _edge(self, queries: Tensor, stripe: Stripe, first: int) -> Tensor:  # [r, columns]
        """lambda pair by pair; the same for every block at the same offset."""
        rows, columns = queries.shape[-2], stripe.end - stripe.start
        key = (stripe.start - first, columns, rows)
        if key not in self._edges:
            if len(self._edges) > 64:  # a profile without runs makes an edge of everything
                self._edges.clear()
            distance = (torch.arange(columns) + key[0] - torch.arange(rows)[:, None]).abs()
            self._edges[key] = self.by_distance[distance].to(queries)
        return self._edges[key]


def runs_of(factors: Tensor) -> list[Run]:  # [V]
    """Stretches of equal numbers, from distance 0 on."""
    values, counts = torch.unique_consecutive(factors, return_counts=True)
    ends = counts.cumsum(0)
    return [
        Run(int(end - count), int(end) - 1, float(value))
        for value, count, end in zip(values, counts, ends, strict=True)
    ]
