"""What a person at a terminal sees of running jobs: a bar that redraws itself, or lines where there is no terminal.

Reads the store and writes to one stream; decides nothing.
"""

from __future__ import annotations

import threading
from typing import TextIO

from studio.batch import Batch
from studio.jobs import Job

REDRAW_S = 0.25
LINE_SHARE = 0.25  # without a terminal: a line at every quarter of a job
WIDTH = 24


class Console:
    """Follows a batch in a thread of its own while it is entered as a context."""

    def __init__(self, batch: Batch, stream: TextIO) -> None:
        self._batch, self._stream = batch, stream
        self._terminal = stream.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)
        self._told: tuple[str, int] | None = None

    def __enter__(self) -> Console:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def ended(self, job: Job) -> None:
        """Say how a job ended."""
        number = self._batch.ids.index(job.id) + 1 if job.id in self._batch.ids else 0
        words = {"queued": "stopped, to go on later"}.get(job.state, job.state)
        reason = f": {job.error['message']} {job.error['remedy']}".rstrip() if job.error else ""
        self._line(f"[{number}/{len(self._batch.ids)}] seed {job.params.get('seed')} {words}{reason}")
        for notice in self._batch.notices(job):
            self._line(f"  {notice}")

    def _follow(self) -> None:
        while not self._over.wait(REDRAW_S):
            running = self._batch.services.jobs.list(states=["running"], limit=1)
            if running and running[0].progress:
                self._show(running[0])

    def _show(self, job: Job) -> None:
        progress = job.progress or {}
        step, total = progress.get("step", 0), max(1, progress.get("total", 1))
        number = self._batch.ids.index(job.id) + 1 if job.id in self._batch.ids else 0
        head = f"[{number}/{len(self._batch.ids)}] seed {job.params.get('seed')}"
        if self._terminal:
            full = round(WIDTH * step / total)
            left = f"  {_minutes(progress['eta'])} left" if progress.get("eta") else ""
            bar = "#" * full + "-" * (WIDTH - full)
            self._stream.write(f"\r\x1b[K{head} |{bar}| {step}/{total} {progress.get('message', '')}{left}"[:180])
            self._stream.flush()
        elif (mark := (job.id, int(step / total / LINE_SHARE))) != self._told:
            self._told = mark
            self._line(f"{head} {100 * step // total} % {progress.get('message', '')}")

    def _line(self, text: str) -> None:
        self._stream.write(("\r\x1b[K" if self._terminal else "") + text + "\n")
        self._stream.flush()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
