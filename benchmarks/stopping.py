"""How soon a cancelled job stops: one that looks at every step, one that hangs, and one that holds the interpreter.

    python -m benchmarks.stopping [--trials 20] [--grace 1.0] [--seed 1]

Real workers of a local executor and the quick engine. Goals: a job that looks computes at most one more step after
the answer to the cancel; one that does not is dead within 2 s of its grace time, and the device takes the next job.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from studio.executors.local import LocalExecutor
from studio.requests import submit
from studio.services import Services, open_services
from studio.settings import Settings

STEP_S = 0.1
KINDS: dict[str, dict[str, Any]] = {
    "looks at every step": {"steps": 1000, "pause": STEP_S, "keep": False},
    "hangs in native code": {"steps": 5, "fault": "hang", "fault_at": 1},
    "holds the interpreter": {"steps": 5, "fault": "seize", "fault_at": 1},
}


@dataclass(frozen=True)
class Stop:
    """One cancelled job; seconds are counted from the answer to the cancel."""

    kind: str
    steps: int  # computed after it
    dead: float  # until the job counted as cancelled, which is after its process died if it had to
    free: float  # until the device began another job


class Place:
    """A store, an executor with one device, and a way to wait."""

    def __init__(self, home: Path, grace: float) -> None:
        settings = Settings(home=home, devices=("cpu",), engines=("tests.quick_engine",), grace=grace, threads=1)
        self.executor = LocalExecutor(settings)
        self.services: Services = open_services(settings, executor=self.executor)
        self.trace = home / "trace"
        self._never = threading.Event()

    def until(self, condition: Callable[[], Any]) -> float:
        """The monotonic second at which `condition` was seen to be true."""
        while not condition():
            self._never.wait(0.005)
        return time.monotonic()

    def submit(self, **values: Any) -> str:
        """A job of somebody."""
        return submit(self.services, "quick_engine", values, owner="anna").id

    def state(self, job_id: str) -> str:
        """Of the job now."""
        return self.services.jobs.get(job_id).state

    def holder(self, job_id: str) -> int | None:
        """The process that runs the job."""
        worker = self.services.jobs.get(job_id).worker
        return next((facts.pid for facts in self.executor.alive() if facts.worker == worker), None)

    def computed(self) -> int:
        """Steps in the trace; that a job hangs from now on is one line more."""
        return len(self.trace.read_text().splitlines()) if self.trace.exists() else 0

    def stop(self, kind: str, chance: random.Random) -> Stop:
        """Run a job of the kind, cancel it at a random moment after its first step, and wait for the next job.

        One that hangs is cancelled once it does: before, it would still stop by itself.
        """
        self.trace.unlink(missing_ok=True)
        job_id, after = self.submit(trace=str(self.trace), **KINDS[kind]), self.submit(steps=1)
        self.until(lambda: self.computed() >= (2 if "fault" in KINDS[kind] else 1))
        self._never.wait(chance.uniform(0, 3 * STEP_S))
        pid = self.holder(job_id)
        if self.services.jobs.cancel(job_id).state == "cancelled" or pid is None:
            # Its worker was lost, and it waited for another: on a crowded machine one may start too slowly.
            self.until(lambda: self.state(after) == "succeeded")
            return self.stop(kind, chance)
        self.executor.interrupt(job_id)
        asked, before = time.monotonic(), self.computed()
        dead = self.until(lambda: self.state(job_id) == "cancelled")
        assert "fault" not in KINDS[kind] or not _lives(pid), "cancelled only once its process is dead"
        free = self.until(lambda: self.state(after) in ("running", "succeeded"))
        self.until(lambda: self.state(after) == "succeeded")
        return Stop(kind, self.computed() - before, dead - asked, free - asked)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def measure(trials: int, grace: float, seed: int) -> list[Stop]:
    """`trials` of each kind."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="atelier-stop-") as folder:
        place = Place(Path(folder) / "home", grace)
        place.executor.start()
        try:
            return [place.stop(kind, chance) for _ in range(trials) for kind in KINDS]
        finally:
            place.executor.stop(5.0)
            place.services.close()


def table(stops: list[Stop], grace: float) -> str:
    """One line a kind."""
    lines = [
        "job                     trials  most steps after  cancelled after s, median  worst  beyond grace, worst  "
        "next job after s, median"
    ]
    for kind in KINDS:
        mine = [stop for stop in stops if stop.kind == kind]
        dead = sorted(stop.dead for stop in mine)
        beyond = dead[-1] - (grace if "fault" in KINDS[kind] else 0.0)
        lines.append(
            f"{kind:22s} {len(mine):7d} {max(stop.steps for stop in mine):17d} {statistics.median(dead):26.2f} "
            f"{dead[-1]:6.2f} {beyond:20.2f} {statistics.median(stop.free for stop in mine):25.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(table(measure(options.trials, options.grace, options.seed), options.grace))


if __name__ == "__main__":
    main()
