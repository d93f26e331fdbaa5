"""How long a claim takes with a long queue: 10,000 waiting jobs of 50 owners over 8 models, every submission synced.

    python -m benchmarks.claim_latency [--jobs 10000] [--claims 2000] [--job-ms 100] [--folder DIR]

Each row fills a fresh store and lets 1 or 8 claimers (threads of one process, or processes) take and finish jobs: as
fast as they can, or as workers do whose jobs take `--job-ms`. Goal: 99 of 100 claims within 10 ms, no job handed out
twice. On a busy machine the waiting for a core is in these times; processor time of one claim is not touched by it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.db import Database
from studio.jobs import Jobs
from studio.settings import Settings

OWNERS, MODELS = 50, 8


def fill(path: Path, settings: Settings, count: int) -> float:
    """Queue `count` jobs, one transaction each; jobs a second."""
    db = Database(path)
    jobs = Jobs(db, clock=time.time, settings=settings)
    begun = time.perf_counter()
    for number in range(count):
        params = {"prompt": f"a red ring under a pale sky, number {number}", "seed": number}
        jobs.submit(
            "e", params, owner=f"owner{number * 7 % OWNERS}", model_key=f"m{number % MODELS}", priority=number % 3
        )
    rate = count / (time.perf_counter() - begun)
    db.close()
    return rate


@dataclass
class Part:
    """What one claimer did."""

    taken: list[str] = field(default_factory=list)  # ids
    seconds: list[float] = field(default_factory=list)  # of each claim
    computing: list[float] = field(default_factory=list)  # processor seconds of each claim


def claim_some(jobs: Jobs, worker: str, count: int, job_s: float) -> Part:
    """Claim and finish `count` jobs of `job_s` seconds."""
    part, working = Part(), threading.Event()
    warm: tuple[str, ...] = ()
    for _ in range(count):
        begun, computed = time.perf_counter(), time.thread_time()
        job = jobs.claim(worker, "cpu", warm)
        part.seconds.append(time.perf_counter() - begun)
        part.computing.append(time.thread_time() - computed)
        if job is None:
            break
        part.taken.append(job.id)
        warm = (job.model_key,)
        working.wait(job_s)
        jobs.succeed(job.id, worker)
    return part


def _in_process(results: Any, path: Path, settings: Settings, worker: str, count: int, job_s: float) -> None:
    results.put(claim_some(Jobs(Database(path), clock=time.time, settings=settings), worker, count, job_s))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    claimers: int
    job_s: float
    inserts: float  # a second
    wall: float  # seconds
    parts: list[Part]

    @property
    def taken(self) -> list[str]:
        """The ids of all jobs that were handed out."""
        return [job_id for part in self.parts for job_id in part.taken]

    @property
    def duplicates(self) -> int:
        """How many were handed out more than once."""
        return len(self.taken) - len(set(self.taken))

    def __str__(self) -> str:
        median, p99, most = _spread(second for part in self.parts for second in part.seconds)
        usual, rare, _ = _spread(second for part in self.parts for second in part.computing)
        return (
            f"{self.claimers} {self.kind:<10} {self.job_s * 1e3:6.0f} {self.inserts:9.0f} {len(self.taken):8d} "
            f"{len(self.taken) / self.wall:9.0f} {median:10.2f} {p99:8.2f} {most:8.1f} {self.duplicates:11d} "
            f"{usual:11.2f} {rare:8.2f}"
        )


HEAD = "claimers   job ms inserts/s   claims  claims/s  median ms   p99 ms   max ms  duplicates  CPU median  CPU p99"


def measure(
    settings: Settings, folder: Path, jobs: int, claims: int, claimers: int, kind: str, job_s: float = 0.0
) -> Row:
    """Fill a store and empty a part of it."""
    path = folder / f"{kind}-{claimers}-{job_s}.db"
    rate = fill(path, settings, jobs)
    share = claims // claimers
    begun = time.perf_counter()
    crew: list[Any]
    if kind == "threads":
        parts: list[Part] = []
        shared = Jobs(Database(path), clock=time.time, settings=settings)
        crew = [
            threading.Thread(target=lambda n=n: parts.append(claim_some(shared, f"w{n}", share, job_s)))
            for n in range(claimers)
        ]
        for member in crew:
            member.start()
    else:
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        crew = [
            context.Process(target=_in_process, args=(results, path, settings, f"w{n}", share, job_s))
            for n in range(claimers)
        ]
        for member in crew:
            member.start()
        parts = [results.get() for _ in crew]
    for member in crew:
        member.join()
    return Row(kind, claimers, job_s, rate, time.perf_counter() - begun, parts)


def _spread(seconds: Iterable[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and maximum in milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3, ordered[-1] * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=2_000)
    parser.add_argument("--job-ms", type=float, default=100.0, help="length of a job of the workers in the last rows")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores lie; the disk to be measured")
    options = parser.parse_args()
    settings = Settings(waiting_cap=options.jobs, running_cap=1_000)
    paced = options.job_ms / 1e3
    print(HEAD)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for claimers, kind, job_s in (
            (1, "threads", 0.0),
            (8, "threads", 0.0),
            (8, "processes", 0.0),
            (8, "threads", paced),
            (8, "processes", paced),
        ):
            print(measure(settings, Path(folder), options.jobs, options.claims, claimers, kind, job_s), flush=True)


if __name__ == "__main__":
    main()
