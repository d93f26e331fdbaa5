"""Which workers there are, what they have warm, and how fast their devices have been.

Rows that workers write at their heartbeat and that pages, estimates and the supervisor read. Knows no job.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.canonical import dumps
from studio.db import Database

TIMINGS = 20  # newest runs whose median is the speed


@dataclass(frozen=True)
class WorkerRow:
    """The last sign of life of one worker."""

    id: str
    device: str  # "cpu", "cuda:0", ...
    facts: dict[str, Any]  # fields of contract.DeviceFacts
    warm: tuple[str, ...]  # model keys it has loaded
    pid: int
    seen: float  # seconds of the store's clock


class Fleet:
    """The workers' table and the stored timings."""

    _db: Database
    _clock: Callable[[], float]

    def worker_seen(self, worker: str, device: str, facts: Mapping[str, Any], warm: Sequence[str], pid: int) -> None:
        """A sign of life, with what the worker knows of its device and has loaded."""
        with self._db.transaction(lasting=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO worker (id, device, facts, warm, pid, seen) VALUES (?, ?, ?, ?, ?, ?)",
                (worker, device, dumps(facts), dumps(list(warm)), pid, self._clock()),
            )

    def worker_gone(self, worker: str) -> None:
        """The worker has ended; unknown ones are ignored."""
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM worker WHERE id = ?", (worker,))

    def workers(self) -> list[WorkerRow]:
        """Every worker not known to be gone, by name; whoever reads it judges by `seen`."""
        with self._db.read() as connection:
            rows = connection.execute("SELECT * FROM worker ORDER BY id").fetchall()
        return [
            WorkerRow(
                row["id"],
                row["device"],
                json.loads(row["facts"]),
                tuple(json.loads(row["warm"])),
                row["pid"],
                row["seen"],
            )
            for row in rows
        ]

    def record_timing(self, engine: str, device_kind: str, work: float, seconds: float) -> None:
        """A finished run did `work` (the engine's unit) in `seconds`; runs without either are not recorded."""
        if work <= 0 or seconds <= 0:
            return
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT INTO timing (engine, device_kind, work, seconds, time) VALUES (?, ?, ?, ?, ?)",
                (engine, device_kind, work, seconds, self._clock()),
            )
            connection.execute(
                "DELETE FROM timing WHERE engine = ?1 AND device_kind = ?2 AND number NOT IN (SELECT number "
                "FROM timing WHERE engine = ?1 AND device_kind = ?2 ORDER BY number DESC LIMIT ?3)",
                (engine, device_kind, TIMINGS),
            )

    def speed(self, engine: str, device_kind: str) -> float | None:
        """Work units a second: the median of the newest runs, or None before the first."""
        with self._db.read() as connection:
            rows = connection.execute(
                "SELECT work / seconds AS speed FROM timing WHERE engine = ? AND device_kind = ?",
                (engine, device_kind),
            ).fetchall()
        return statistics.median(row["speed"] for row in rows) if rows else None
