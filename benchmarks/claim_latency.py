"""How long a claim takes with a long queue: 10,000 waiting jobs of 50 owners over 8 models, every submission synced.

    python -m benchmarks.claim_latency [--jobs 10000] [--claims 2000] [--job-ms 50] [--store FILE]

Each row lets 1 or 8 claimers (threads of one process, or processes) take and finish jobs of a copy of one filled
store: as fast as they can, or as workers do whose jobs take about `--job-ms`. Goal: 99 of 100 claims within 10 ms, no
job handed out twice. Claimers that never pause wait for each other most of the time. On a busy machine the waiting
for a core is in these times: the last column is what a chore of half a millisecond of computing, without store and
turns, took beside the claims. `--store` keeps the filled store.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.db import Database, copy_store
from studio.jobs import Jobs
from studio.settings import Settings

OWNERS, MODELS = 50, 8
CHORE_S = 0.0005  # processor time, about that of a claim


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


def claim_some(jobs: Jobs, worker: str, count: int, job_s: float, start: Any = None) -> Part:
    """Claim and finish `count` jobs of half to one and a half of `job_s` seconds, once all are at the `start`."""
    part, working, chance = Part(), threading.Event(), random.Random(worker)
    warm: tuple[str, ...] = ()
    if start is not None:
        start.wait()
    for _ in range(count):
        begun, computed = time.perf_counter(), time.thread_time()
        job = jobs.claim(worker, "cpu", warm)
        part.seconds.append(time.perf_counter() - begun)
        part.computing.append(time.thread_time() - computed)
        if job is None:
            break
        part.taken.append(job.id)
        warm = (job.model_key,)
        working.wait(job_s * chance.uniform(0.5, 1.5))
        jobs.succeed(job.id, worker)
    return part


def _in_process(
    results: Any, path: Path, settings: Settings, worker: str, count: int, job_s: float, start: Any
) -> None:
    results.put(claim_some(Jobs(Database(path), clock=time.time, settings=settings), worker, count, job_s, start))


def _chores(results: Any, start: Any, over: Any) -> None:
    """Compute for a moment, every now and then, until it is `over`: how long that takes by the clock on the wall."""
    start.wait()
    seconds = []
    while not seconds or not over.wait(0.01):
        begun, computed = time.perf_counter(), time.thread_time()
        while time.thread_time() - computed < CHORE_S:
            pass
        seconds.append(time.perf_counter() - begun)
    results.put(seconds)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    claimers: int
    job_s: float
    wall: float  # seconds
    parts: list[Part]
    chores: list[float]  # seconds that each took

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
            f"{self.claimers} {self.kind:<10} {self.job_s * 1e3:6.0f} {len(self.taken):8d} "
            f"{len(self.taken) / self.wall:9.0f} {median:10.2f} {p99:8.2f} {most:8.1f} {self.duplicates:11d} "
            f"{usual:11.2f} {rare:8.2f} {_spread(self.chores)[1]:10.2f}"
        )


HEAD = "claimers   job ms   claims  claims/s  median ms   p99 ms   max ms  duplicates  CPU median  CPU p99  chore p99"


def measure(settings: Settings, filled: Path, claims: int, claimers: int, kind: str, job_s: float = 0.0) -> Row:
    """Empty a part of a copy of the filled store."""
    path = filled.with_name(f"{kind}-{claimers}-{job_s}.db")
    copy_store(filled, path)
    share = claims // claimers
    names = [f"w{number}" for number in range(claimers)]
    context = multiprocessing.get_context("spawn")
    start: Any = context.Barrier(claimers + 2)
    results, over, chores = context.Queue(), context.Event(), context.Queue()
    crew: list[Any] = []
    parts: list[Part] = []
    beside = context.Process(target=_chores, args=(chores, start, over))
    beside.start()
    if kind == "threads":
        shared = Jobs(Database(path), clock=time.time, settings=settings)
        crew = [
            threading.Thread(target=lambda name=name: parts.append(claim_some(shared, name, share, job_s, start)))
            for name in names
        ]
    else:
        crew = [
            context.Process(target=_in_process, args=(results, path, settings, name, share, job_s, start))
            for name in names
        ]
    for member in crew:
        member.start()
    start.wait()
    begun = time.perf_counter()
    if kind == "processes":
        parts = [results.get() for _ in crew]
    for member in crew:
        member.join()
    wall = time.perf_counter() - begun
    over.set()
    late = chores.get()
    beside.join()
    return Row(kind, claimers, job_s, wall, parts, late)


def _spread(seconds: Iterable[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and maximum in milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3, ordered[-1] * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--claims", type=int, default=2_000)
    parser.add_argument("--job-ms", type=float, default=50.0, help="length of a job of the workers in the last rows")
    parser.add_argument("--store", type=Path, default=None, help="the filled store, made if it is not there")
    options = parser.parse_args()
    settings = Settings(waiting_cap=options.jobs, running_cap=1_000)
    with tempfile.TemporaryDirectory(dir=options.store and options.store.parent) as folder:
        filled = Path(folder) / "filled.db"
        if options.store is None or not options.store.exists():
            print(f"{fill(filled, settings, options.jobs):.0f} submissions a second, each synced", flush=True)
            if options.store is not None:
                copy_store(filled, options.store)
        else:
            copy_store(options.store, filled)
        print(HEAD, flush=True)
        paced = options.job_ms / 1e3
        for claimers, kind, job_s in (
            (1, "threads", 0.0),
            (8, "threads", 0.0),
            (8, "processes", 0.0),
            (8, "threads", paced),
            (8, "processes", paced),
        ):
            print(measure(settings, filled, options.claims, claimers, kind, job_s), flush=True)


if __name__ == "__main__":
    main()
