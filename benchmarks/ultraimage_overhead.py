"""What UltraImage costs beside direct sampling: seconds a step of each, and of the calibration, on this machine.

    python -m benchmarks.ultraimage_overhead --scale 2 --steps 8 --rounds 5

Methods take turns within a round, so that a machine that slows down slows both. The overhead is the median over
rounds of the ratio of their times; the calibration is timed apart and given in steps. Times are seconds of the
processor that this process used, so that other processes disturb them less. Goals: at most 3 %, and at most one step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.ultraimage_effect import Sampler, located
from engines.ultraimage.spec import UltraImageParams

SEED = 10_000


def timed(sampler: Sampler, method: str, params: UltraImageParams) -> float:
    """Seconds of one picture, summed over the cores."""
    begun = time.process_time()
    sampler.pictures(method, params, [SEED])
    return time.process_time() - begun


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="another folder of the pocket model's layout")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sampler = Sampler(located(given.weights))
    params = UltraImageParams(scale=given.scale, steps=given.steps)
    timed(sampler, "direct", params)  # warms caches and the allocator
    times: dict[str, list[float]] = {"direct": [], "ultraimage": [], "with calibration": []}
    for _ in range(given.rounds):
        sampler.entropies.clear()
        times["with calibration"].append(timed(sampler, "ultraimage", params))
        for method in ("direct", "ultraimage"):
            times[method].append(timed(sampler, method, params))
    step = statistics.median(times["direct"]) / given.steps
    ratios = [a / b - 1 for a, b in zip(times["ultraimage"], times["direct"], strict=True)]
    calibration = [a - b for a, b in zip(times["with calibration"], times["ultraimage"], strict=True)]
    print("| measured | value | goal |\n|---|---|---|")
    print(f"| direct sampling, {given.scale:g}x, a step | {step:.3f} s | |")
    print(f"| overhead of UltraImage, median of {given.rounds} | {statistics.median(ratios):+.1%} | <= 3 % |")
    print(f"| calibration | {statistics.median(calibration) / step:.2f} steps | <= 1 step |")


if __name__ == "__main__":
    main()
