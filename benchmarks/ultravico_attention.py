"""What decayed attention costs beside plain attention: time and peak memory of every way, at growing lengths.

    python -m benchmarks.ultravico_attention                              # 2 heads of 64, float32, on the CPU
    python -m benchmarks.ultravico_attention --device cuda --heads 12 --dim 128 --dtype bfloat16 --tokens 98280 \\
        --repeats 5 --ways "sdpa,flex plain,flex,triton plain,triton" --first-frame

Each cell runs in a process of its own, so that its peak memory is its own. Times are the best of several: on the CPU
of the process's own seconds, so that other work on the machine counts less; on a GPU of the device's. The dense mask
is what an implementation by hand costs: all logits, a table of lambda, softmax. A length at which it would need more
than `--most` is left out. "flex plain" and "triton plain" are the same two ways with the decay left out of what is
compiled, so that the last ratio of the table is what the decay itself costs; what it costs includes the mean key.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.ultravico.attention import WAYS
from engines.ultravico.decay import Decay
from engines.ultravico.kernel import best_tile, tiled_attention
from studio.devices import PeakMemory

MIB = 2**20
RATIO = 3  # target over training length
FRAMES = 63  # latent frames of the target


def decay_at(tokens: int, first_frame: bool = False) -> Decay:
    """The standard strength at three times the training length: with bands, or with Wan's first frame."""
    per_frame = max(1, tokens // FRAMES)
    if first_frame:
        return Decay(per_frame, FRAMES / RATIO, 0.9, first_frame_mask=True)
    return Decay(per_frame, FRAMES / RATIO, 0.9, 0.6, 30, 2)


def dense_mask(q: Tensor, k: Tensor, v: Tensor, decay: Decay) -> Tensor:
    """By hand: the whole table of lambda and all logits."""
    index = torch.arange(q.shape[-2], device=q.device)
    table = decay.factor(index[:, None], index[None], q.shape[-2]).to(q.dtype)
    logits = q @ (k - k.mean(-2, keepdim=True)).transpose(-1, -2) / math.sqrt(q.shape[-1])
    return torch.softmax(torch.where(logits > 0, logits * table, logits), -1) @ v


def flex_plain(q: Tensor, k: Tensor, v: Tensor, _decay: Decay) -> Tensor:
    """FlexAttention without a change of logits."""
    from torch.nn.attention.flex_attention import flex_attention as plain

    return torch.compile(plain, dynamic=False)(q, k, v)


def triton_plain(q: Tensor, k: Tensor, v: Tensor, _decay: Decay) -> Tensor:
    """Our kernel without a decay."""
    return tiled_attention(q, k, v, None, best_tile(q))


def ways() -> dict[str, Callable[..., Tensor]]:
    """Plain attention first, then the dense mask, then ours."""
    plain = {
        "sdpa": lambda q, k, v, _decay: F.scaled_dot_product_attention(q, k, v),
        "flex plain": flex_plain,
        "triton plain": triton_plain,
        "dense mask": dense_mask,
    }
    return {**plain, **WAYS}


def measure(given: argparse.Namespace) -> dict[str, float | str | int]:
    """One cell: seconds and bytes beyond the inputs."""
    torch.set_num_threads(given.threads)
    cuda = given.device.startswith("cuda")
    generator = torch.Generator(given.device).manual_seed(0)
    shape = (1, given.heads, given.tokens[0], given.dim)
    q, k, v = (
        torch.randn(shape, generator=generator, device=given.device).to(getattr(torch, given.dtype)) for _ in range(3)
    )
    decay, run = decay_at(given.tokens[0], given.first_frame), ways()[given.way]

    def seconds() -> float:
        if not cuda:
            begun = time.process_time()
            run(q, k, v, decay)
            return (time.process_time() - begun) / given.threads
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(q, k, v, decay)
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000

    with torch.no_grad():
        if cuda or given.way.startswith(("flex", "triton")):
            seconds()  # compiled for this length; a shorter one would be compiled for nothing
        else:
            run(q[..., :256, :], k[..., :256, :], v[..., :256, :], decay)  # threads, libraries
        memory = PeakMemory(given.device)
        before = memory.bytes()
        best = min(seconds() for _ in range(given.repeats))
        peak = memory.bytes() - before
    return {"way": given.way, "tokens": given.tokens[0], "seconds": best, "mib": peak / MIB}


def cell(given: argparse.Namespace, way: str, tokens: int) -> dict[str, float | str | int] | None:
    """The measurement of one way at one length, in a process of its own; None where it fails, and why is printed."""
    flags = [f"--{name}={getattr(given, name)}" for name in ("device", "heads", "dim", "dtype", "threads", "repeats")]
    flags += ["--first-frame"] if given.first_frame else []
    command = [sys.executable, "-m", "benchmarks.ultravico_attention", *flags, f"--tokens={tokens}", f"--way={way}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{way} at {tokens}: {done.stderr.strip().splitlines()[-1][:160]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Markdown: seconds, as a multiple of plain attention and of the same way without decay, and peak memory."""
    lines = ["| tokens | way | seconds | times SDPA | times plain | peak memory |", "|---|---|---|---|---|---|"]
    plain = {(row["tokens"], row["way"]): row["seconds"] for row in rows}

    def times(row: dict, way: str) -> str:
        return f"{row['seconds'] / plain[row['tokens'], way]:.3f}" if (row["tokens"], way) in plain else "-"

    for row in rows:
        cells = (f"{row['seconds']:.4f}", times(row, "sdpa"), times(row, f"{row['way']} plain"))
        lines.append(f"| {row['tokens']:,} | {row['way']} | {' | '.join(cells)} | {row['mib']:,.0f} MiB |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--ways", default="sdpa,dense mask,chunked,stripes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first-frame", action="store_true", help="Wan's rule instead of bands")
    parser.add_argument("--most", type=float, default=1.5, help="GB of one table that the dense mask may take")
    parser.add_argument("--out", help="append the rows to this file, one JSON object a line")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given)))
        return
    rows = []
    for tokens in given.tokens:
        for way in given.ways.split(","):
            if way == "dense mask" and given.heads * tokens**2 * 4 > given.most * 1e9:
                print(f"dense mask at {tokens}: one table of logits alone is {given.heads * tokens**2 * 4e-9:.1f} GB")
                continue
            row = cell(given, way, tokens)
            if row is not None:
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(
        f"\n{given.heads} heads of {given.dim}, {given.dtype}, {given.device}, {given.threads} threads\n{table(rows)}"
    )
    if given.out:
        with open(given.out, "a", encoding="utf-8") as file:
            file.writelines(
                json.dumps({**row, **{n: getattr(given, n) for n in ("heads", "dim", "dtype", "device")}}) + "\n"
                for row in rows
            )


if __name__ == "__main__":
    main()
