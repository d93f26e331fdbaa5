"""The loops of decayed attention, in Triton; `kernel` says what they walk and why. Imported when first wanted."""

import triton
import triton.language as tl


@triton.jit
def attend(
    query,  # [ROWS, DIM]
    keys,
    values,
    lambdas_at,
    head,  # row of `keys` at which this head begins
    row,  # [ROWS]
    start,
    end,
    distance,  # of a pair that has the one factor; of an edge, the reach
    scale,
    largest,  # [ROWS], of the logits so far
    total,  # [ROWS]
    mixed,  # [ROWS, DIM]
    SHRUNK: tl.constexpr,
    EDGE: tl.constexpr,
    DECAYED: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    if SHRUNK:
        bend = (tl.load(lambdas_at + distance) - 1) * scale
    for at in tl.range(start, end, COLUMNS, num_stages=STAGES):
        key = keys.load([head + at, 0])
        logit = tl.dot(query, key.T, input_precision="ieee")
        if EDGE:
            column = at + tl.arange(0, COLUMNS)
            if DECAYED:
                apart = tl.minimum(tl.abs(row[:, None] - column[None, :]), distance)
                logit = tl.where(logit > 0, logit * tl.load(lambdas_at + apart), logit)
            logit = tl.where(column[None, :] < end, logit, -float("inf"))
        top = tl.max(logit, 1)
        new = top * scale
        if SHRUNK:
            new += tl.maximum(top, 0.0) * bend
        new = tl.maximum(largest, new)
        exponent = logit * scale - new[:, None]
        if SHRUNK:
            exponent += tl.maximum(logit, 0.0) * bend
        weight = tl.exp2(exponent)
        fade = tl.exp2(largest - new)
        total = total * fade + tl.sum(weight, 1)
        value = values.load([head + at, 0])
        if EDGE:  # what is beyond the end may be anything, and 0 times infinity is not 0
            value = tl.where((column < end)[:, None], value, 0.0).to(value.dtype)
        mixed = mixed * fade[:, None]
        mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision="ieee")
        largest = new
    return largest, total, mixed


@triton.jit
def decayed(
    q_at,
    keys,
    values,
    out_at,
    blocks_at,
    parts_at,
    lambdas_at,
    length,
    scale,  # of a logit, to base 2
    DECAYED: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    block_at = blocks_at + tl.program_id(0) * 6
    head = tl.program_id(1) * length
    row = tl.load(block_at) + tl.arange(0, ROWS)
    known = (row < tl.load(block_at + 1))[:, None]
    place = (head + row).to(tl.int64)[:, None] * DIM + tl.arange(0, DIM)[None, :]
    query = tl.load(q_at + place, mask=known, other=0.0)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    for loop in tl.static_range(3):
        if DECAYED or loop != 1:
            for part in range(tl.load(block_at + 2 + loop), tl.load(block_at + 3 + loop)):
                part_at = parts_at + part * 3
                largest, total, mixed = attend(
                    query,
                    keys,
                    values,
                    lambdas_at,
                    head,
                    row,
                    tl.load(part_at),
                    tl.load(part_at + 1),
                    tl.load(part_at + 2),
                    scale,
                    largest,
                    total,
                    mixed,
                    SHRUNK=loop == 1,
                    EDGE=loop == 2,
                    DECAYED=DECAYED,
                    COLUMNS=COLUMNS,
                    STAGES=1 if loop == 2 else STAGES,
                )
    result = mixed / total[:, None]
    tl.store(out_at + place, result.to(out_at.dtype.element_ty), mask=known)
