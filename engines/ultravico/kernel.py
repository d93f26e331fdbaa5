"""Decayed attention as one Triton kernel: flash attention in which lambda costs next to nothing.

For some rows nearly all columns lie in stripes of one lambda (`stripes.Lambdas`). So each block of rows walks its
columns in three loops: those that are left alone, those of one factor, and the edges between them, where lambda of a
pair is read from a table by distance. Only edges test anything column by column. That table, and which columns belong
to which loop, are made once for a length and a decay. For one factor f of at least 0 the decay keeps the order of
logits, so that the search for the largest needs none; and the decay itself, plus (f - 1) max(logit, 0), hides behind
the exponential, which takes longer. Triton is imported when the kernel is first wanted; without a GPU it runs in
Triton's own interpreter, which the tests use. Knows no model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from engines.ultravico.decay import Decay, smoothed
from engines.ultravico.stripes import HIDDEN, Lambdas, Stripe

UNDECAYED = Decay(1, 0, 1.0, smooth_k=False)


@dataclass(frozen=True)
class Tile:
    """How the work is cut up."""

    rows: int = 128
    columns: int = 128
    warps: int = 8
    stages: int = 2  # tiles of keys and values on their way at a time


@dataclass(frozen=True)
class Plan:
    """Which columns each block of rows meets in which loop, for one length and decay."""

    blocks: Tensor  # int32 [n, 6]: rows [first, last), and where its left alone, shrunk and edge parts start and end
    parts: Tensor  # int32 [m, 3]: columns [start, end) and a distance; whole tiles, but for edges
    lambdas: Tensor  # float32 [V], by distance in tokens


def triton_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:
    """See `decay.dense_attention`; q, k, v [B, h, N, d], d a power of two of at least 16, on one device.

    Raises ImportError without Triton, NotImplementedError for another d, RuntimeError where it does not compile.
    """
    return tiled_attention(q, smoothed(k, decay), v, decay, best_tile(q.shape[-1], q.dtype))


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay | None, tile: Tile) -> Tensor:
    """The same of keys that are smoothed already; without a decay plain attention, the decay compiled out."""
    import triton
    from triton.tools.tensor_descriptor import TensorDescriptor

    from engines.ultravico.loops import decayed

    batch, heads, length, dim = q.shape
    if dim < 16 or dim & (dim - 1):
        raise NotImplementedError(f"heads of {dim} channels: a power of two of at least 16 is needed")
    q, k, v = (x.contiguous() for x in (q, k, v))
    out = torch.empty_like(q)
    plan = planned(decay or UNDECAYED, length, tile.rows, tile.columns, str(q.device))
    keys, values = (TensorDescriptor.from_tensor(x.view(-1, dim), [tile.columns, dim]) for x in (k, v))
    try:
        decayed[(len(plan.blocks), batch * heads)](
            q,
            keys,
            values,
            out,
            plan.blocks,
            plan.parts,
            plan.lambdas,
            length,
            math.log2(math.e) / math.sqrt(dim),
            DECAYED=decay is not None,
            DIM=dim,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            STAGES=tile.stages,
            num_warps=tile.warps,
        )
    except triton.TritonError as error:
        raise RuntimeError(f"decayed attention does not compile for {q.device}: {error}") from error
    return out


def best_tile(dim: int, dtype: torch.dtype) -> Tile:
    """A tile that fits the fast memory of a card."""
    if dtype == torch.float32 or dim > 128:
        return Tile(64, 32, 8 if dim > 64 else 4)
    return Tile()


@lru_cache(maxsize=8)
def planned(decay: Decay, length: int, rows: int, columns: int, device: str) -> Plan:
    """The plan for blocks of at most `rows` rows and tiles of `columns`."""
    lambdas = Lambdas(decay, length, rows)
    kept = length - decay.padded_keys_end
    blocks: list[list[int]] = []
    parts: list[list[int]] = []
    for first, last in lambdas.blocks(rows):
        starts = []
        for loop in _loops(lambdas, first, lambdas.stripes(first, last, kept), columns):
            starts.append(len(parts))
            parts.extend(loop)
        blocks.append([first, last, *starts, len(parts)])
    numbers = (torch.tensor(table, dtype=torch.int32, device=device) for table in (blocks, parts))
    return Plan(*numbers, lambdas.by_distance.float().to(device))


def _loops(lambdas: Lambdas, row: int, stripes: list[Stripe], columns: int) -> tuple[list, list, list]:
    """The parts of the three loops for a block that begins at `row`; edges fill their last tile where they can."""
    alone: list[list[int]] = []
    shrunk: list[list[int]] = []
    edges: list[list[int]] = []
    runs = {run.factor: run.first for run in lambdas.runs}
    for start, end, factor in ((stripe.start, stripe.end, stripe.factor) for stripe in stripes):
        if factor == HIDDEN:
            continue
        # Distances beyond the reach count as the reach: text looks, and is looked at, as if from next door.
        video = lambdas.begin <= row < lambdas.end and lambdas.begin <= start < lambdas.end
        reach = len(lambdas.by_distance) - 1 if video else 0
        if edges and edges[-1][1:] == [start, reach]:
            start = min(end, start + (edges[-1][0] - start) % columns)
            edges[-1][1] = start
        if factor is not None and factor >= 0:
            whole = start + (end - start) // columns * columns
            if start < whole:
                (alone if factor == 1 else shrunk).append([start, whole, runs.get(factor, 0)])
            start = whole
        if start < end:
            if edges and edges[-1][1:] == [start, reach]:
                edges[-1][1] = end
            else:
                edges.append([start, end, reach])
    return alone, shrunk, edges
