"""Decayed attention as one Triton kernel: flash attention in which lambda costs next to nothing.

For some rows nearly all columns lie in stripes of one lambda (`stripes.Lambdas`). So each block of rows walks its
columns in loops of their own: those that are left alone, those of one factor, edges with one factor on either side,
and what is left, where lambda of a pair is read from a table by distance: narrow bands, and profiles other than the
constant one. Only the last two test anything column by column. Which columns belong to which loop is worked out once
for a length and a decay. For one factor f of at least 0 the decay keeps the order of logits, so that the search for
the largest needs none; and the decay itself, plus (f - 1) max(logit, 0), hides behind the exponential, which takes
longer. Triton is imported when the kernel is first wanted; without a GPU it runs in Triton's own interpreter, which
the tests use. Knows no model.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from engines.ultravico.decay import Decay, smoothed
from engines.ultravico.stripes import HIDDEN, Lambdas, Stripe

ALONE, SHRUNK, EDGE, PAIRS = range(4)  # loops; as in `loops.decayed`
EVEN, MIXED, TEXT = range(3)  # pieces of columns
UNDECAYED = Decay(1, 0, 1.0, smooth_k=False)


@dataclass(frozen=True)
class Tile:
    """How the work is cut up."""

    rows: int = 128
    columns: int = 128
    warps: int = 8
    stages: int = 2  # tiles of keys and values on their way at a time
    bulk: bool = True  # whether the card has an engine that copies tiles; by pointers where it has not


@dataclass(frozen=True)
class Plan:
    """Which columns each block of rows meets in which loop, for one length and decay."""

    blocks: Tensor  # int32 [n, 7]: rows [first, last), where the parts of each loop start, and where the last ends
    parts: Tensor  # int32 [m, 5]: columns [start, end), last distance of the nearer lambda, a near and a far distance
    lambdas: Tensor  # float32 [V], by distance in tokens
    pairs: bool  # whether any block needs the last loop


def triton_attention(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:
    """See `decay.dense_attention`; q, k, v [B, h, N, d], d a power of two of at least 16, on one device.

    Raises ImportError without Triton, NotImplementedError for another d, RuntimeError where it does not compile.
    """
    return tiled_attention(q, smoothed(k, decay), v, decay, best_tile(q))


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
    keys, values = (
        TensorDescriptor.from_tensor(x.view(-1, dim), [tile.columns, dim]) if tile.bulk else x for x in (k, v)
    )
    try:
        with torch.cuda.device(q.device) if q.is_cuda else nullcontext():  # Triton launches on the current one
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
                PAIRED=plan.pairs,
                BULK=tile.bulk,
                DIM=dim,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                STAGES=min(tile.stages, 2) if plan.pairs else tile.stages,  # the last loop may want memory of its own
                num_warps=tile.warps,
            )
    except triton.TritonError as error:
        raise RuntimeError(f"decayed attention does not compile for {q.device}: {error}") from error
    return out


def best_tile(q: Tensor) -> Tile:
    """A tile that fits the fast memory and the registers of the card that holds q [B, h, N, d]."""
    dim = q.shape[-1]
    bulk = not q.is_cuda or torch.cuda.get_device_capability(q.device) >= (9, 0)
    if q.dtype == torch.float32 or dim > 128:
        return Tile(64, 32, 8 if dim > 64 else 4, bulk=bulk)
    hopper = not q.is_cuda or torch.cuda.get_device_capability(q.device)[0] in (9, 10)
    return Tile(stages=3, bulk=bulk) if hopper else Tile(columns=64, bulk=bulk)


@lru_cache(maxsize=8)
def planned(decay: Decay, length: int, rows: int, columns: int, device: str) -> Plan:
    """The plan for blocks of at most `rows` rows and tiles of `columns`."""
    lambdas = Lambdas(decay, length, rows)
    kept, table = length - decay.padded_keys_end, lambdas.by_distance
    borders = (table[1:] != table[:-1]).nonzero().flatten().tolist()  # last distances before lambda changes
    blocks: list[list[int]] = []
    parts: list[list[int]] = []
    for first, last in lambdas.blocks(rows):
        loops: tuple[list[list[int]], ...] = ([], [], [], [])
        for start, end, kind in _pieces(lambdas, first, lambdas.stripes(first, last, kept), columns):
            if kind == TEXT:
                whole = start + (end - start) // columns * columns
                loops[ALONE].append([start, whole, 0, 0, 0])
                loops[EDGE].append([whole, end, 0, 0, 0])
                continue
            near = max(0, start - (last - 1), first - (end - 1))
            far = max(last - 1 - start, end - 1 - first)
            crossed = borders[bisect_left(borders, near) : bisect_left(borders, far)]
            if kind == EVEN:
                loops[ALONE if table[near] == 1 else SHRUNK].append([start, end, 0, near, near])
            elif len(crossed) < 2:
                loops[EDGE].append([start, end, *(crossed or [far]), near, far])
            else:
                loops[PAIRS].append([start, end, 0, 0, len(table) - 1])
        filled = [[part for part in loop if part[0] < part[1]] for loop in loops]
        starts = list(accumulate(map(len, filled), initial=len(parts)))
        parts += [part for loop in filled for part in loop]
        blocks.append([first, last, *starts])
    numbers = (torch.tensor(table, dtype=torch.int32, device=device) for table in (blocks, parts))
    return Plan(*numbers, table.float().to(device), any(block[5] < block[6] for block in blocks))


def _pieces(lambdas: Lambdas, row: int, stripes: list[Stripe], columns: int) -> Iterator[tuple[int, int, int]]:
    """Columns [start, end) and their kind, for a block that begins at `row`: EVEN ones are whole tiles."""
    begun: int | None = None  # where a mixed piece began that is not done yet
    for start, end, factor in ((stripe.start, stripe.end, stripe.factor) for stripe in stripes):
        text = not lambdas.begin <= row < lambdas.end or not lambdas.begin <= start < lambdas.end
        if begun is not None and (text or factor == HIDDEN):
            yield begun, start, MIXED
            begun = None
        if text and factor != HIDDEN:
            yield start, end, TEXT
        if text or factor == HIDDEN:
            continue
        if factor is None or factor < 0:
            begun = start if begun is None else begun
            continue
        if begun is not None:
            filled = start + (begun - start) % columns
            start = filled if filled <= end else start
            yield begun, start, MIXED
        whole = start + (end - start) // columns * columns
        if start < whole:
            yield start, whole, EVEN
        begun = whole if whole < end else None
    if begun is not None:
        yield begun, stripes[-1].end, MIXED
