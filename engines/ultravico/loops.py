"""The loops of decayed attention, in Triton; `kernel` says what they walk and why. Imported when first wanted."""

import triton
import triton.language as tl


@triton.jit
def loaded(tokens, head, at, end, BULK: tl.constexpr, DIM: tl.constexpr, COLUMNS: tl.constexpr):  # [COLUMNS, DIM]
    """Keys or values of one tile, by the card's copy engine or by pointers; beyond `end` anything that is there."""
    if BULK:
        tile = tokens.load([head + at, 0])
    else:
        token = (head + tl.minimum(at + tl.arange(0, COLUMNS), end - 1)).to(tl.int64)
        tile = tl.load(tokens + token[:, None] * DIM + tl.arange(0, DIM)[None, :])
    return tile


@triton.jit
def attend(
    query,  # [ROWS, DIM]
    keys,
    values,
    lambdas_at,
    head,  # row of `keys` at which this head begins
    row,  # [ROWS]
    part_at,
    scale,
    largest,  # [ROWS], of the logits so far
    total,  # [ROWS]
    mixed,  # [ROWS, DIM]
    LOOP: tl.constexpr,
    DECAYED: tl.constexpr,
    BULK: tl.constexpr,
    DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One part of the columns; every one of its tiles lies before `end`, but for the last of the last two loops."""
    end = tl.load(part_at + 1)
    border = tl.load(part_at + 2)
    reach = tl.load(part_at + 4)
    near = tl.load(lambdas_at + tl.load(part_at + 3)) - 1
    far = tl.load(lambdas_at + reach) - 1
    bend = near * scale
    for at in tl.range(tl.load(part_at), end, COLUMNS, num_stages=STAGES):
        key = loaded(keys, head, at, end, BULK, DIM, COLUMNS)
        logit = tl.dot(query, key.T, input_precision="ieee")
        if LOOP >= 2:
            column = at + tl.arange(0, COLUMNS)
            if DECAYED:
                distance = tl.abs(row[:, None] - column[None, :])
                if LOOP == 2:
                    less = tl.where(distance <= border, near, far)
                else:
                    less = tl.load(lambdas_at + tl.minimum(distance, reach)) - 1
                logit += tl.maximum(logit, 0.0) * less
            logit = tl.where(column[None, :] < end, logit, -float("inf"))
        top = tl.max(logit, 1)
        new = top * scale
        if LOOP == 1:
            new += tl.maximum(top, 0.0) * bend
        new = tl.maximum(largest, new)
        exponent = logit * scale - new[:, None]
        if LOOP == 1:
            exponent += tl.maximum(logit, 0.0) * bend
        weight = tl.exp2(exponent)
        fade = tl.exp2(largest - new)
        total = total * fade + tl.sum(weight, 1)
        value = loaded(values, head, at, end, BULK, DIM, COLUMNS)
        mixed = mixed * fade[:, None]
        mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision="ieee")
        largest = new
    return largest, total, mixed


@triton.jit(do_not_specialize=["length"])
def decayed(
    q_at,
    keys,  # descriptors of [B h N, DIM], or where they begin
    values,
    out_at,
    blocks_at,
    parts_at,
    lambdas_at,
    length,
    scale,  # of a logit, to base 2
    DECAYED: tl.constexpr,
    PAIRED: tl.constexpr,
    BULK: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One block of rows of one head."""
    block_at = blocks_at + tl.program_id(0) * 7
    head = tl.program_id(1) * length
    row = tl.load(block_at) + tl.arange(0, ROWS)
    known = (row < tl.load(block_at + 1))[:, None]
    place = (head + row).to(tl.int64)[:, None] * DIM + tl.arange(0, DIM)[None, :]
    query = tl.load(q_at + place, mask=known, other=0.0)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    for loop in tl.static_range(4):
        if (DECAYED or loop != 1) and (PAIRED or loop != 3):
            for part in range(tl.load(block_at + 2 + loop), tl.load(block_at + 3 + loop)):
                largest, total, mixed = attend(
                    query,
                    keys,
                    values,
                    lambdas_at,
                    head,
                    row,
                    parts_at + part * 5,
                    scale,
                    largest,
                    total,
                    mixed,
                    LOOP=loop,
                    DECAYED=DECAYED,
                    BULK=BULK,
                    DIM=DIM,
                    COLUMNS=COLUMNS,
                    STAGES=1 if loop == 3 else STAGES,
                )
    result = mixed / total[:, None]
    tl.store(out_at + place, result.to(out_at.dtype.element_ty), mask=known)
