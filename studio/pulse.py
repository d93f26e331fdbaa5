"""A worker's pulse: the thread that says it lives, keeps the lease of its job, and hears what the owner wishes.

It beats on its own, so that an engine deep in one long step keeps its job. What it hears is read by `Context.check`.
This module knows neither engines nor results.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from studio.errors import Conflict, NotFound, StoreUnavailable
from studio.jobs import Jobs, Wish

log = logging.getLogger(__name__)


class Pulse:
    """Beats every `heartbeat` seconds of `clock` and looks for a wish every `look` seconds while a job is attached.

    `clock` is one that nobody can set. `publish` writes the worker's own row. `lost` tells that the lease has gone to
    somebody else, `wish` what the owner asks for, `heard` the last wish even if it was taken back, and `stopping`
    that this worker was asked to end, by `stop_by` at the latest.
    """

    def __init__(
        self,
        jobs: Jobs,
        worker: str,
        *,
        heartbeat: float,
        look: float,
        lease: float,
        clock: Callable[[], float],
        publish: Callable[[], None],
    ) -> None:
        self._jobs, self._worker = jobs, worker
        self._heartbeat, self._look, self._lease = heartbeat, min(look, heartbeat), lease
        self._clock, self._publish = clock, publish
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._job: str | None = None
        self._renewed = 0.0
        self.wish: Wish = ""
        self.heard: Wish = ""
        self.lost = False
        self.stopping = threading.Event()
        self.stop_by = 0.0  # seconds of `clock`

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def end(self) -> None:
        """Stop beating; returns when the thread is done with the store."""
        self._ended.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join()

    def ring(self) -> None:
        """Look now instead of at the next turn."""
        self._bell.set()

    def stop(self, grace_s: float) -> None:
        """End within `grace_s` seconds, after the job at hand or at its next checkpoint; asked again, at once."""
        self.stop_by = self._clock() + (0.0 if self.stopping.is_set() else grace_s)
        self.stopping.set()
        self.ring()

    @property
    def grace_left(self) -> float:
        """Seconds a stopping worker may still compute."""
        return self.stop_by - self._clock()

    def attach(self, job_id: str) -> None:
        """From now on keep the lease of this job."""
        with self._lock:
            self._job, self.wish, self.heard, self.lost = job_id, "", "", False
            self._renewed = self._clock()
        self.ring()

    def detach(self) -> None:
        """The job is over. When this returns, no beat for it is under way."""
        with self._lock:
            self._job = None

    def beat(self) -> None:
        """Renew the lease of the attached job, if there is one, and take its owner's wish."""
        with self._lock:
            if self._job is None or self.lost:
                return
            try:
                self._hear(self._jobs.heartbeat(self._job, self._worker))
                self._renewed = self._clock()
            except (Conflict, NotFound):
                log.info("the job is no longer held", extra={"job": self._job})
                self.lost = True
            except StoreUnavailable as error:
                log.warning("no heartbeat: %s", error, extra={"job": self._job})
                # Nobody heard of us for a whole lease: by now the job may be another's.
                self.lost = self._clock() - self._renewed >= self._lease

    def _hear(self, wish: Wish) -> None:
        self.wish = wish
        self.heard = wish or self.heard

    def _glance(self) -> None:
        """Read the wish without writing anything."""
        with self._lock:
            if self._job is None or self.lost:
                return
            try:
                self._hear(self._jobs.wish(self._job, self._worker))
            except StoreUnavailable:
                return  # the next beat judges
            except (Conflict, NotFound):
                self.lost = True

    def _run(self) -> None:
        last = None
        while not self._ended.is_set():
            now = self._clock()
            if last is None or now - last >= self._heartbeat:
                last = now
                self.beat()
                try:
                    self._publish()
                except StoreUnavailable as error:
                    log.warning("the worker could not be seen: %s", error)
            else:
                self._glance()
            self._bell.wait(self._look if self._job is not None else self._heartbeat)
            self._bell.clear()
