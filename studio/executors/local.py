"""Workers as processes of this machine, one per device, kept alive by a thread of the server.

A worker that dies is replaced at once, and after repeated deaths with growing pauses. Its standard input is its line
to the server: a byte wakes it, the end of the line tells it that the server has gone. This module runs no job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio import devices
from studio.db import Database
from studio.errors import StoreUnavailable
from studio.executors.base import WorkerFacts
from studio.jobs import Jobs
from studio.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "local-"  # of the workers an executor of this kind keeps; others may share the store
YOUNG_S = 5.0  # a worker that dies before this age died of its start
LONGEST_PAUSE_S = 30.0  # between restarts
START_S = 120.0  # a worker may take to show itself for the first time: a busy machine loads slowly
MORE_TIME = 8  # times that at most, twice as long at every start that was given up
TERM_S = 0.5  # between the polite and the certain signal to a worker whose job must stop
LOOK_S = 1.0  # longest pause between two looks at the store
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Seat:
    """One device and the process that serves it."""

    device: str
    worker: str = ""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # monotonic seconds
    since: float = 0.0  # seconds of the store's clock
    deaths: int = 0
    young_deaths: int = 0  # in a row
    slow: int = 0  # starts in a row that were given up
    due: float = 0.0  # monotonic seconds of the next start
    sign: float | None = None  # its newest sign of life, as the store has it
    signed: float = 0.0  # monotonic seconds at which that was new here
    ended: threading.Event = field(default_factory=threading.Event)  # the process is dead


class LocalExecutor:
    """Supervises the workers of one store. `clock` is the store's.

    What it waits for is counted on the monotonic clock: a wall clock that is set, or a machine that slept, kills
    nobody and spares nobody.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        program: Sequence[str] = (sys.executable, "-m", "studio"),
    ) -> None:
        self._settings, self._clock, self._program = settings, clock, tuple(program)
        self._db: Database | None = None
        self._seats: list[Seat] = []
        self._asked: dict[str, float] = {}  # job -> monotonic seconds at which its cancel was asked for
        self._lock = threading.Lock()  # guards seats' processes
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self) -> None:
        """See Executor. Only the holder of the store's lock may call it: it takes what earlier workers held."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """See Executor."""
        self._stopping.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join()
        living = [seat for seat in self._seats if seat.process is not None]
        self._end(living, grace_s)
        try:
            for seat in living:
                self._tell_store(seat)
        except StoreUnavailable as error:
            log.error("the store was not told that the workers have ended: %s", error)
        if self._db is not None:
            self._db.close()

    def alive(self) -> list[WorkerFacts]:
        """See Executor."""
        with self._lock:
            return [
                WorkerFacts(seat.worker, seat.device, seat.process.pid, seat.since, seat.deaths)
                for seat in self._seats
                if seat.process is not None and not seat.ended.is_set()
            ]

    def wake(self) -> None:
        """See Executor."""
        with self._lock:
            for seat in self._seats:
                _ring(seat)

    def interrupt(self, job_id: str) -> None:
        """See Executor. Every worker looks at its own job; which one has this one need not be known."""
        self.wake()
        self._bell.set()

    @property
    def _jobs(self) -> Jobs:
        if self._db is None:
            self._db = Database(self._settings.home / "atelier.db", clock=self._clock)
        return Jobs(self._db, clock=self._clock, settings=self._settings)

    def _supervise(self) -> None:
        self._seats = [Seat(device) for device in devices.expand(self._settings.devices)]
        settled = False
        while not self._stopping.is_set():
            try:
                settled = settled or self._take_over()
                self._turn()
            except (StoreUnavailable, OSError) as error:
                log.error("the supervisor cannot go on for now: %s", error)
            self._bell.wait(self._tick())
            self._bell.clear()

    def _tick(self) -> float:
        """Seconds to the next look: soon enough for cancels that become overdue and restarts that become due."""
        now = time.monotonic()
        starts = [seat.due for seat in self._seats if seat.process is None]
        kills = [asked + self._settings.grace for asked in self._asked.values()]
        return max(0.01, min([LOOK_S, *(moment - now for moment in (*starts, *kills))]))

    def _turn(self) -> None:
        for seat in self._seats:
            if seat.process is not None and seat.ended.is_set():
                self._bury(seat)
        overdue = self._overdue() | self._silent()
        late = [seat for seat in self._seats if seat.process is not None and seat.worker in overdue]
        if late:
            log.warning("killing %s: its job does not stop or it is silent", ", ".join(s.worker for s in late))
            self._end(late, min(TERM_S, self._settings.grace))
            for seat in late:
                self._bury(seat, of_age=True)
        for seat in self._seats:
            if seat.process is None and time.monotonic() >= seat.due and not self._stopping.is_set():
                self._launch(seat)

    def _overdue(self) -> set[str | None]:
        """Workers of jobs that had their grace to stop and did not."""
        now, wall = time.monotonic(), self._clock()
        stopping = {job.id: job for job in self._jobs.cancelling()}
        # The time of the wish counts only as far as a look may have been late: the wall clock may have been set.
        late = {job_id: min(max(0.0, wall - (job.wish_time or wall)), LOOK_S) for job_id, job in stopping.items()}
        self._asked = {job_id: self._asked.get(job_id, now - late[job_id]) for job_id in stopping}
        grace = self._settings.grace
        return {stopping[job_id].worker for job_id, asked in self._asked.items() if now - asked >= grace}

    def _silent(self) -> set[str | None]:
        """Workers that gave no sign of life for two leases: native code holds their interpreter."""
        now, seen = time.monotonic(), {row.id: row.seen for row in self._jobs.workers()}
        silent: set[str | None] = set()
        for seat in self._seats:
            sign = seen.get(seat.worker)
            if sign != seat.sign:
                seat.sign, seat.signed = sign, now
            patience = 2 * self._settings.lease
            if sign is None:
                patience = max(patience, START_S * min(2**seat.slow, MORE_TIME))
            if seat.process is not None and now - max(seat.started, seat.signed) > patience:
                silent.add(seat.worker)
        return silent

    def _take_over(self) -> bool:
        """End what is left of an earlier server's workers and take their jobs back. We hold the store's lock."""
        for row in self._jobs.workers():
            if row.id.startswith(PREFIX):
                _kill_leftover(row.pid, row.id)
                self._jobs.reclaim(row.id)
                self._jobs.worker_gone(row.id)
        return True

    def _launch(self, seat: Seat) -> None:
        share = devices.worker_threads(self._settings.threads, len(self._seats))
        settings = self._settings.replace(threads=share)
        seat.worker = f"{PREFIX}{seat.device.replace(':', '-')}-{secrets.token_hex(8)}"
        seat.ended = threading.Event()
        process = subprocess.Popen(
            [*self._program, "worker", "--device", seat.device, "--id", seat.worker, "--supervised"],
            stdin=subprocess.PIPE,
            env=settings.child_environ(),
            cwd=ROOT,
            start_new_session=True,  # a Ctrl-C in the terminal is the server's to pass on
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        with self._lock:
            seat.process, seat.started, seat.since = process, time.monotonic(), self._clock()
            seat.sign, seat.signed = None, seat.started
        watcher = threading.Thread(target=self._watch, args=(process, seat.ended), name="watcher", daemon=True)
        watcher.start()

    def _watch(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        process.wait()
        ended.set()
        self._bell.set()

    def _bury(self, seat: Seat, *, of_age: bool = False) -> None:
        """The process is dead: give its jobs back and let another start, later each time it dies young."""
        young = time.monotonic() - seat.started < YOUNG_S and not of_age
        self._tell_store(seat)
        seat.deaths += 1
        seat.slow = seat.slow + 1 if of_age and seat.sign is None else 0
        seat.young_deaths = seat.young_deaths + 1 if young else 0
        pause = min(LONGEST_PAUSE_S, 0.25 * 2**seat.young_deaths) if seat.young_deaths > 1 else 0.0
        seat.due = time.monotonic() + pause

    def _tell_store(self, seat: Seat) -> None:
        """The worker is certainly dead. A failing store leaves the seat as it is, to be told at the next turn."""
        assert seat.process is not None
        returned = self._jobs.reclaim(seat.worker)
        self._jobs.worker_gone(seat.worker)
        level = logging.INFO if self._stopping.is_set() else logging.WARNING
        log.log(level, "%s ended with %s, %d jobs returned", seat.worker, seat.process.returncode, len(returned))
        with self._lock:
            _hang_up(seat.process)
            seat.process = None

    def _end(self, seats: Iterable[Seat], grace_s: float) -> None:
        """Ask the processes to end, then make them; returns when all are dead."""
        processes = [(seat.process, seat.ended) for seat in seats if seat.process is not None]
        for process, _ in processes:
            process.terminate()
        deadline = time.monotonic() + grace_s
        for process, ended in processes:
            if not ended.wait(max(0.0, deadline - time.monotonic())):
                process.kill()
                ended.wait()


def _ring(seat: Seat) -> None:
    if seat.process is not None and seat.process.stdin is not None:
        # A full line means that it has not looked yet, a broken one that it is dead: both are known already.
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ValueError):
            os.write(seat.process.stdin.fileno(), b".")


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _kill_leftover(pid: int, worker: str) -> None:
    """End the process that still calls itself `worker`; its name is random, so no other process can be meant."""
    try:
        process = psutil.Process(pid)
        if worker in process.cmdline():
            process.kill()
            process.wait(timeout=10)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.TimeoutExpired):
        return
