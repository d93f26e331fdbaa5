"""A worker: the loop that runs one job at a time on one device, and the only error boundary for engines.

Whatever an engine raises becomes a row with a sentence and a remedy; the traceback goes to the log. A worker is told
to look, to stop, or that its server is gone through its standard input. It knows no method and no page.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

from studio import devices, logs
from studio.attempt import Bench, attempt_within_memory, clear_up, whole
from studio.db import translated
from studio.errors import (
    AtelierError,
    Cancelled,
    Conflict,
    EngineFailed,
    NotFound,
    Paused,
    StoreUnavailable,
)
from studio.jobs import Job
from studio.measure import broke_device
from studio.models import ModelCache
from studio.pulse import Pulse
from studio.requests import disk_short
from studio.rows import STOPS
from studio.run_context import LeaseLost, Stopping
from studio.services import Services, open_services
from studio.settings import Settings

log = logging.getLogger(__name__)

Outcome = Literal["succeeded", "failed", "cancelled", "paused", "released", "postponed", "lost"]

FIRST_PAUSE_S = 0.02  # of an idle worker; grows to `settings.poll`
TROUBLE_S = 1.0  # between two looks at a disk that failed
ORPHANED = 70  # exit code of a worker whose server has gone


def run_job(job: Job, services: Services, bench: Bench) -> Outcome:
    """Run one claimed job to its end and say in the store how it ended. Raises only StoreUnavailable."""
    bench.pulse.attach(job.id)
    try:
        with logs.working_on(job.id):
            log.info("begins %s, attempt %d", job.engine, job.attempts)
            outcome = _ended(job, services, bench)
            log.info("ends: %s", outcome)
            return outcome
    finally:
        bench.pulse.detach()


def _ended(job: Job, services: Services, bench: Bench) -> Outcome:
    """The error boundary."""
    jobs = services.jobs
    try:
        if (manifest := whole(job, services)) is not None:
            jobs.succeed(job.id, bench.worker, kept=manifest.get("stopped_at") is not None)
        else:
            attempt_within_memory(job, services, bench)
    except LeaseLost:
        return "lost"
    except Stopping:
        return _settled(jobs.release, job, bench)
    except (Cancelled, Paused) as error:
        return _stopped(job, services, bench, error)
    except StoreUnavailable as error:
        log.warning("put off: %s", error)
        return _postponed(job, services, bench, error)
    except AtelierError as error:
        log.warning("%s: %s", error.code, error)
        return _failed(job, services, bench, error)
    except Exception as error:
        log.exception("the engine failed")
        if broke_device(error):
            log.error("the device is unusable for this process; it ends and another takes its place")
            bench.pulse.stopping.set()
        return _failed(job, services, bench, _unforeseen(job, services, error))
    clear_up(job, services)
    return "succeeded"


def _stopped(job: Job, services: Services, bench: Bench, error: AtelierError) -> Outcome:
    """The engine stopped as the owner wished; one that stops without a wish has failed."""
    if bench.pulse.heard in STOPS:
        outcome = _settled(services.jobs.finish_cancelled, job, bench)
        if outcome == "cancelled":
            services.artifacts.clear_previews(job.id)
        return outcome
    if bench.pulse.heard == "pause":
        return _settled(services.jobs.finish_paused, job, bench)
    log.error("the engine stopped though nobody had asked for it")
    return _failed(job, services, bench, _unforeseen(job, services, error))


def _settled(finish: Callable[[str, str], Job], job: Job, bench: Bench) -> Outcome:
    """How the job stands after `finish`; a wish taken back at the last moment gives it back to the queue."""
    try:
        return _OUTCOMES[finish(job.id, bench.worker).state]
    except Conflict:
        log.info("the wish was taken back or the lease is lost")
    try:
        return _OUTCOMES[bench.jobs.release(job.id, bench.worker).state]
    except Conflict:
        return "lost"


_OUTCOMES: dict[str, Outcome] = {"cancelled": "cancelled", "paused": "paused", "queued": "released"}


def _failed(job: Job, services: Services, bench: Bench, error: AtelierError) -> Outcome:
    try:
        services.jobs.fail(job.id, bench.worker, error.as_dict())
    except (Conflict, NotFound):
        return "lost"
    services.artifacts.clear_previews(job.id)
    return "failed"


def _postponed(job: Job, services: Services, bench: Bench, error: StoreUnavailable) -> Outcome:
    """No fault of the job: it goes on from its checkpoint when the disk is well again."""
    try:
        state = services.jobs.postpone(job.id, bench.worker, error.as_dict()).state
    except (Conflict, NotFound):
        return "lost"
    if state == "failed":
        services.artifacts.clear_previews(job.id)
        return "failed"
    return "postponed" if state == "queued" else _OUTCOMES[state]


def _unforeseen(job: Job, services: Services, error: BaseException) -> EngineFailed:
    return EngineFailed(
        f"{_title(job, services)} stopped on a fault of its own ({type(error).__name__}).",
        f"Try other settings. The log has the details under job {job.id}.",
    )


def _title(job: Job, services: Services) -> str:
    return services.catalog.spec(job.engine).title if job.engine in services.catalog.names else job.engine


class Worker:
    """Claims and runs jobs until it is asked to stop."""

    def __init__(self, services: Services, *, worker: str, device: str, cache: ModelCache | None = None) -> None:
        settings = services.settings
        self._services, self._worker = services, worker
        self._cache = cache or make_cache(settings, device)
        self._bell = threading.Event()
        self._troubled = False  # the disk failed the last job; none is taken until it takes a file again
        self.pulse = Pulse(
            services.jobs,
            worker,
            heartbeat=settings.heartbeat,
            look=settings.poll,
            lease=settings.lease,
            clock=time.monotonic,
            publish=self._publish,
        )
        threads = devices.worker_threads(settings.threads, 1)
        self.bench = Bench(worker, device, self._cache, self.pulse, services.jobs, threads)

    def ring(self) -> None:
        """Look at the queue and at wishes now."""
        self._bell.set()
        self.pulse.ring()

    def stop(self) -> None:
        """End after the job at hand, or after giving it back at its next checkpoint or when half the grace is over.

        Asked a second time, at its next step.
        """
        self.pulse.stop(self._services.settings.grace / 2)
        self.ring()

    def run(self, *, until_empty: bool = False, on_end: Callable[[Job], None] | None = None) -> None:
        """Work until `stop`, or with `until_empty` until no job can be claimed; `on_end` hears of every job after."""
        self.pulse.start()
        try:
            while not self.pulse.stopping.is_set():
                version = self._store_version()
                job = self._claim()
                if job is not None:
                    self._run_one(job)
                    if on_end is not None:
                        on_end(self._services.jobs.get(job.id))
                elif until_empty:
                    return
                else:
                    self._wait(version)
        finally:
            self.pulse.end()
            self._services.jobs.worker_gone(self._worker)

    def _run_one(self, job: Job) -> None:
        try:
            self._troubled = run_job(job, self._services, self.bench) == "postponed"
        except StoreUnavailable as error:
            # The job's end could not be written: its lease will run out, and it is tried again.
            log.error("the store failed under a job: %s", error, extra={"job": job.id})
            self._troubled = True

    def _claim(self) -> Job | None:
        if disk_short(self._services) is not None:
            self._troubled = True
            return None
        jobs = self._services.jobs
        try:
            if self._troubled:
                self._services.artifacts.probe()
                # It runs nothing now: what it still seems to hold is a job whose end could not be written.
                jobs.reclaim(self._worker)
                self._troubled = False
            return jobs.claim(self._worker, self.bench.device, self._cache.warm_keys())
        except StoreUnavailable as error:
            if not self._troubled:
                log.error("no job can be claimed: %s", error)
            self._troubled = True
            return None

    def _wait(self, version: int) -> None:
        """Until the bell rings, the store changes, a lease may have expired, or the disk may be well again."""
        settings, pause, waited = self._services.settings, FIRST_PAUSE_S, 0.0
        while waited < (TROUBLE_S if self._troubled else settings.lease / 2):
            if self._bell.wait(pause):
                break
            if self._store_version() != version:
                break
            waited += pause
            pause = min(pause * 1.5, settings.poll)
        self._bell.clear()

    def _store_version(self) -> int:
        """A number that changes when another connection has written: a look costs microseconds and locks nothing."""
        try:
            with translated():
                return int(self._services.db.connect().execute("PRAGMA data_version").fetchone()[0])
        except StoreUnavailable:
            return -1

    def _publish(self) -> None:
        device = self.bench.device
        facts: dict[str, Any] = asdict(devices.facts(device, self._cache.evictable(device)))
        facts["models"] = self._cache.stats().as_dict()
        self._services.jobs.worker_seen(self._worker, device, facts, self._cache.warm_keys(), os.getpid())


def make_cache(settings: Settings, device: str) -> ModelCache:
    """A model cache with the budgets of the settings, or half the RAM and 80 % of the GPU."""
    ram = settings.ram_budget or devices.facts("cpu").memory_total // 2
    on_gpu = devices.device_kind(device) != "cpu"
    vram = settings.vram_budget or (devices.facts(device).memory_total * 8 // 10 if on_gpu else 0)
    return ModelCache(ram, vram, devices.free_bytes)


def main(settings: Settings, device: str, worker_id: str, *, supervised: bool = False) -> None:
    """The life of a worker process. `supervised`: standard input is the line to the server that keeps it."""
    logs.configure(settings.home, f"worker-{device.replace(':', '-')}")
    worker = Worker(open_services(settings), worker=worker_id, device=device)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if supervised:
        threading.Thread(target=_listen, args=(worker,), name="lifeline", daemon=True).start()
    worker.run()


def _listen(worker: Worker) -> None:
    """A byte from the server means: look now. The end of the line means that the server is gone."""
    while os.read(0, 64):
        worker.ring()
    log.warning("the server is gone; this worker ends, and its job will be taken over")
    # At once, also out of native code: a new server must find the device free. Files are written atomically, and the
    # job's lease is the new server's to take.
    os._exit(ORPHANED)
