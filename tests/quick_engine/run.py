"""The quick engine's run: steps of integer arithmetic on noise, checkpointed, resumable, and faulty if asked."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
from PIL import Image

from studio.contract import Context, ModelKey
from studio.errors import Cancelled, InvalidInput
from tests.quick_engine.spec import QuickParams

FOREVER_S = 100_000.0


def run(ctx: Context, params: QuickParams) -> None:
    """Every step adds one roll of the picture to itself; the weights are borrowed like any engine's."""
    key = ModelKey("pocket", "tests/quick", f"revision-{params.model}", "noise", device=ctx.device)
    for number, method in enumerate(params.methods):
        name = f"{method}-{params.seed}.png"
        if ctx.done(name):
            continue
        with ctx.models.borrow(key, lambda: np.arange(256, dtype=np.uint8)) as weights:
            picture = _steps(ctx, params, weights, number)
        ctx.save(name, "image", picture, role="method" if method == "method" else "baseline", method=method)
        ctx.metrics(name, mean=float(picture.mean()))
    ctx.metrics("", pictures=len(params.methods))


def _steps(ctx: Context, params: QuickParams, weights: np.ndarray, number: int) -> np.ndarray:
    rng = np.random.default_rng([params.seed, number])
    state = weights[rng.integers(0, 256, (params.size, params.size, 3))]  # uint8 [H, W, 3]
    first, kept = 0, ctx.resume()
    if kept is not None and kept[1]["number"] == number:
        first, state = kept[0], kept[1]["state"]
    if params.picture:
        state = state + np.frombuffer(ctx.input(params.picture)[:1], np.uint8)
    total = params.steps * len(params.methods)
    for step in range(first, params.steps):
        ctx.check()
        if step == params.hold_at and params.barrier:
            _wait(ctx, Path(params.barrier), params.deaf)
        if step == params.fault_at:
            _break(ctx, params)
        time.sleep(params.pause)
        state = state + np.roll(state, step + 1, axis=step % 2) + np.uint8(1 if number else 3)
        if params.trace:
            with open(params.trace, "a") as file:
                file.write(f"{params.seed} {number} {step}\n")
        done = number * params.steps + step + 1
        ctx.progress(done, total, f"Step {step + 1}", Image.fromarray(state))
        if params.keep:
            ctx.checkpoint(step + 1, {"number": number, "state": state})
    return state


def _wait(ctx: Context, barrier: Path, deaf: bool) -> None:
    while not barrier.exists():
        if not deaf:
            ctx.check()
        time.sleep(0.01)


def _break(ctx: Context, params: QuickParams) -> None:
    match params.fault:
        case "raise":
            raise ZeroDivisionError("a secret of the engine")
        case "refuse":
            raise InvalidInput("Nobody can draw that.", "Ask for something else.", field="prompt")
        case "memory" if ctx.plan == "fast":
            raise MemoryError
        case "memory_always":
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")
        case "hang":
            time.sleep(FOREVER_S)
        case "seize":  # holds the interpreter, so that even the heartbeat stops
            re.match(r"(a+)+$", "a" * 64 + "b")
        case "die":
            os._exit(9)
        case "poison":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        case "unasked":
            raise Cancelled("The engine gave up by itself.")
