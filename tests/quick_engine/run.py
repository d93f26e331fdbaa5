"""The quick engine's run: steps of integer arithmetic on noise, checkpointed, resumable, and faulty if asked."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.contract import Context, ModelKey
from studio.errors import Cancelled, InvalidInput
from tests.quick_engine import shapes
from tests.quick_engine.spec import QuickParams

FOREVER_S = 100_000.0


def run(ctx: Context, params: QuickParams) -> None:
    """Every step adds one roll of the picture to itself; the weights are borrowed like any engine's."""
    key = ModelKey("pocket", "tests/quick", f"revision-{params.model}", "noise", device=ctx.device)
    seeds = range(params.seed, params.seed + params.seeds)
    turns = [(seed, method) for seed in seeds for method in params.methods]
    for number, (seed, method) in enumerate(turns):
        if all(ctx.done(f"{method}-{seed}{ENDINGS[kind]}") for kind in params.makes):
            continue
        with ctx.models.borrow(key, lambda: np.arange(256, dtype=np.uint8)) as weights:
            picture = _steps(ctx, params, weights, number, len(turns))
        about = {"role": "method" if method == "method" else "baseline", "method": method, "seed": seed}
        for kind in params.makes:
            SAVERS[kind](ctx, params, f"{method}-{seed}{ENDINGS[kind]}", picture, about)
    ctx.metrics("", pictures=len(turns))


def _save_picture(ctx: Context, params: QuickParams, name: str, picture: np.ndarray, about: dict[str, Any]) -> None:
    ctx.save(name, "image", picture, **about)
    ctx.metrics(name, mean=float(picture.mean()))


def _save_clip(ctx: Context, params: QuickParams, name: str, picture: np.ndarray, about: dict[str, Any]) -> None:
    count = params.frames if about["role"] == "method" else (params.frames + 1) // 2
    frames = shapes.clip(params.size, count, int(picture[0, 0, 0]))
    ctx.save(name, "video", frames, fps=FPS, **about)
    ctx.metrics(name, mean=float(frames.mean()))
    stem = name.removesuffix(".mp4")
    ctx.save(f"{stem}-sheet.png", "image", shapes.sheet(frames), **{**about, "role": "sheet"})
    ctx.save(f"{stem}-frames.zip", "archive", shapes.archive(frames), **{**about, "role": ""})


def _save_mesh(ctx: Context, params: QuickParams, name: str, picture: np.ndarray, about: dict[str, Any]) -> None:
    ctx.save(name, "mesh", shapes.mesh(int(picture[0, 0, 0]), about["role"] == "method"), **about)
    ctx.metrics(name, mean=float(picture.mean()))
    if about["role"] == "method":
        ctx.save(name.replace(".glb", "-poster.png"), "image", shapes.poster(), **{**about, "role": "poster"})


FPS = 8.0
ENDINGS = {"picture": ".png", "clip": ".mp4", "mesh": ".glb"}
SAVERS = {"picture": _save_picture, "clip": _save_clip, "mesh": _save_mesh}


def _steps(ctx: Context, params: QuickParams, weights: np.ndarray, number: int, turns: int) -> np.ndarray:
    rng = np.random.default_rng([params.seed, number])
    state = weights[rng.integers(0, 256, (params.size, params.size, 3))]  # uint8 [H, W, 3]
    first, kept = 0, ctx.resume()
    if kept is not None and kept[1]["number"] == number:
        first, state = kept[0], kept[1]["state"]
    if params.picture:
        state = state + np.frombuffer(ctx.input(params.picture)[:1], np.uint8)
    for file in params.files:
        state = state + np.frombuffer(ctx.input(file.sha256)[-1:], np.uint8)
    total = params.steps * turns
    for step in range(first, params.steps):
        if params.early and ctx.enough():
            break
        ctx.check()
        if step == params.hold_at and params.barrier:
            _wait(ctx, Path(params.barrier), params.deaf)
        if step == params.fault_at:
            _break(ctx, params)
        time.sleep(params.pause)
        state = state + np.roll(state, step + 1, axis=step % 2) + np.uint8(1 if number else 3)
        _note(params, f"{params.seed} {number} {step}")
        done = number * params.steps + step + 1
        ctx.progress(done, total, f"Step {step + 1}", Image.fromarray(state))
        if params.keep and (step + 1) % params.keep_every == 0:
            ctx.checkpoint(step + 1, {"number": number, "state": state})
    return state


def _wait(ctx: Context, barrier: Path, deaf: bool) -> None:
    barrier.with_name(f"{barrier.name}.held").touch()  # for tests that act only now
    while not barrier.exists():
        if not deaf:
            ctx.check()
        time.sleep(0.01)


def _note(params: QuickParams, line: str) -> None:
    if params.trace:
        with open(params.trace, "a") as file:
            file.write(f"{line}\n")


def _break(ctx: Context, params: QuickParams) -> None:
    if params.fault in ("hang", "seize"):
        _note(params, f"{params.seed} {params.fault}")
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
