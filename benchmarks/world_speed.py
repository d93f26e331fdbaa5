"""How fast the world of toys is drawn, and how equal its pictures are across threads and number types.

    python -m benchmarks.world_speed --pictures 480 --side 64

Speed: two processes of one thread draw different seeds at the same time, by the clock on the wall; so run it on a
machine that has nothing else to do. Equality: the share of pixels that differ by at most a thousandth between float32
and float64, between one thread and two, and between two drawings of the same seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

from pocket.world import render, sample_scene

WARM_UP = 24
GOAL = 150.0  # pictures a second at 64 px on two cores
CLOSE, EQUAL = 1e-3, 0.999


def rate(first_seed: int, pictures: int, side: int, processes: int) -> float:
    """Pictures in a second, drawn by processes of one thread each."""
    context = mp.get_context("spawn")
    gate, spent = context.Barrier(processes), context.Queue()
    share = pictures // processes
    workers = [
        context.Process(target=_draw, args=(first_seed + index * share, share, side, gate, spent))
        for index in range(processes)
    ]
    for worker in workers:
        worker.start()
    begun, ended = zip(*(spent.get() for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    return processes * share / (max(ended) - min(begun))


def _draw(first_seed: int, pictures: int, side: int, gate: Barrier, spent: Queue[tuple[float, float]]) -> None:
    """Draw when all are warm; say when it began and ended."""
    torch.set_num_threads(1)
    scenes = [sample_scene(seed) for seed in range(first_seed, first_seed + pictures)]
    render(scenes[:WARM_UP], side)
    gate.wait()
    begun = time.monotonic()
    render(scenes, side)
    spent.put((begun, time.monotonic()))


def drawn(first_seed: int, pictures: int, side: int, threads: int, dtype: torch.dtype) -> torch.Tensor:
    """Pictures [B, 3, S, S] as float64."""
    torch.set_num_threads(threads)
    scenes = [sample_scene(seed) for seed in range(first_seed, first_seed + pictures)]
    return render(scenes, side, dtype).rgb.double()


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """The share of pixels whose channels all differ by at most a thousandth."""
    return float(((one - other).abs().amax(1) <= CLOSE).double().mean())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--compared", type=int, default=96, help="pictures that are compared")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    one, two = (rate(given.seed, given.pictures, given.side, processes) for processes in (1, 2))
    print(f"{given.pictures} pictures of {given.side} px: {one:.0f} a second by one process, {two:.0f} by two")
    print(f"goal {GOAL:.0f} at 64 px on two cores: {'reached' if two >= GOAL else 'not reached'}\n")
    settings = {
        "again": (1, torch.float32),
        "two threads": (2, torch.float32),
        "float64": (1, torch.float64),
    }
    base = drawn(given.seed, given.compared, given.side, 1, torch.float32)
    print("| against one thread, float32 | bit-equal | pixels within 1e-3 | largest difference |\n|---|---|---|---|")
    for name, (threads, dtype) in settings.items():
        other = drawn(given.seed, given.compared, given.side, threads, dtype)
        share, worst = alike(base, other), float((base - other).abs().max())
        print(f"| {name} | {'yes' if torch.equal(base, other) else 'no'} | {share:.4%} | {worst:.2g} |")
        assert share >= EQUAL, f"{name}: only {share:.4%} of pixels are alike"


if __name__ == "__main__":
    main()
