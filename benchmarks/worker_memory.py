"""Whether a worker's memory stays flat: its resident bytes while it runs job after job, models coming and going.

    python -m benchmarks.worker_memory [--jobs 500]

One worker process, jobs of the quick engine over more models than the budget holds, among them some that fail or run
out of memory. Goal: from the first fifth on, no growth beyond the noise: under 2 MB for 100 jobs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from studio.executors.local import LocalExecutor
from studio.requests import submit
from studio.services import open_services
from studio.settings import Settings

MIB = 2**20
WINDOW = 20  # jobs waiting at a time
SHAPES: tuple[dict[str, Any], ...] = (
    {"steps": 4, "size": 64},
    {"steps": 2, "size": 128, "methods": ("method", "plain")},
    {"steps": 3, "fault": "raise", "fault_at": 1},
    {"steps": 3, "fault": "memory", "fault_at": 1},
    {"steps": 3, "fault": "memory_always", "fault_at": 1},
)


def measure(jobs: int, folder: Path) -> list[int]:
    """Resident bytes of the worker after every job."""
    settings = Settings(
        home=folder / "home", devices=("cpu",), engines=("tests.quick_engine",), ram_budget=1024, threads=1
    )
    executor = LocalExecutor(settings)
    services = open_services(settings, executor=executor)
    executor.start()
    never, resident = threading.Event(), []
    try:
        for number in range(0, jobs, WINDOW):
            batch = range(number, min(jobs, number + WINDOW))
            ids = [_submit(services, index) for index in batch]
            for job_id in ids:
                while services.jobs.get(job_id).state not in ("succeeded", "failed", "cancelled"):
                    never.wait(0.01)
                (worker,) = executor.alive()
                resident.append(psutil.Process(worker.pid).memory_info().rss)
            assert worker.deaths == 0, "the same process throughout"
    finally:
        executor.stop(10.0)
        services.close()
    return resident


def _submit(services: Any, index: int) -> str:
    # Every eighth job has another fault; the models rotate through nine, of which the budget holds four.
    shape = SHAPES[2 + index // 8 % 3] if index % 8 == 7 else SHAPES[index % 2]
    values = {**shape, "seed": index, "model": f"model {index % 9}"}
    return submit(services, "quick_engine", values, owner=f"owner {index % 5}").id


def growth(resident: list[int]) -> float:
    """Bytes a job by which the memory grows after the first fifth: the median of all slopes (Theil and Sen)."""
    settled = resident[len(resident) // 5 :]
    step = max(1, len(settled) // 100)
    points = list(enumerate(settled))[::step]
    slopes = [(b - a) / (j - i) for place, (i, a) in enumerate(points) for j, b in points[place + 1 :]]
    return statistics.median(slopes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atelier-memory-") as folder:
        resident = measure(options.jobs, Path(folder))
    print("jobs       resident MB")
    for number in range(0, len(resident), max(1, len(resident) // 10)):
        print(f"{number + 1:4d} {resident[number] / MIB:16.1f}")
    print(f"{len(resident):4d} {resident[-1] / MIB:16.1f}")
    print(f"growth after the first fifth: {growth(resident) * 100 / MIB:+.3f} MB for 100 jobs (goal: under 2)")


if __name__ == "__main__":
    main()
