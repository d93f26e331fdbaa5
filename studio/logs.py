"""The logs: one JSON object a line in a rotating file under `logs/`, warnings on standard error as well.

Every line carries the job at hand, so that a person can follow one job through all of them, from the request that
submits it to its end. Nothing a user typed is logged by the studio itself.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_BYTES = 5 * 2**20
_FILES = 3


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, job and message, what else is told as fields, and the traceback if there is one."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "job": getattr(record, "job", None) or _request.get() or _current.job,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Current:
    job: str | None = None


_current = _Current()
_request: ContextVar[str | None] = ContextVar("job of the request", default=None)  # a server answers many at once


@contextmanager
def working_on(job_id: str) -> Iterator[None]:
    """Mark every line of this process with the job; a worker runs one at a time."""
    _current.job = job_id
    try:
        yield
    finally:
        _current.job = None


@contextmanager
def about(job_id: str | None) -> Iterator[None]:
    """Mark the lines of one request, wherever it is carried on, with the job it is about."""
    before = _request.set(job_id)
    try:
        yield
    finally:
        _request.reset(before)


def configure(home: Path, name: str, *, errors_shown: bool = True) -> None:
    """Write to `logs/<name>.log` under `home`, and with `errors_shown` warnings to standard error."""
    folder = home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(folder / f"{name}.log", maxBytes=_BYTES, backupCount=_FILES)
    ]
    if errors_shown:
        handlers.append(logging.StreamHandler())
        handlers[-1].setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
