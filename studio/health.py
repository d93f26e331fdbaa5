"""How the house is: queue, workers, warm models and disk in one look at the store, and what is wrong with them.

For /healthz and /metrics. Counts only; no owner, no parameter and no name of a file is in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.fleet import WorkerRow
from studio.services import Services

SILENT_S = 60.0  # a worker not seen for so long counts as missing


@dataclass(frozen=True)
class Health:
    """One look. Times are seconds, sizes bytes."""

    waiting: int
    running: int
    paused: int
    oldest_wait: float  # of the job that has waited longest for its turn; 0 if none waits
    queue_paused: bool
    workers: tuple[WorkerRow, ...]  # those that live
    missing: int  # workers that have fallen silent without saying that they end
    disk_free: int
    disk_reserve: int  # below it no job is taken
    store: int  # the database with its log

    @property
    def warm(self) -> dict[str, int]:
        """Models ready for the next job, by device."""
        return {row.device: len(row.warm) for row in self.workers}

    @property
    def problems(self) -> list[str]:
        """What an operator should look at, each a sentence."""
        found = []
        if not self.workers:
            found.append("No worker is at work.")
        if self.missing:
            found.append(f"{self.missing} of the workers have not been seen for {SILENT_S:.0f} s.")
        if self.disk_free < self.disk_reserve:
            found.append(f"Only {self.disk_free} bytes of disk are free; no job is taken below {self.disk_reserve}.")
        if self.queue_paused:
            found.append("The queue is paused.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "status": "degraded" if self.problems else "ok",
            "problems": self.problems,
            "queue": {
                "waiting": self.waiting,
                "running": self.running,
                "paused": self.paused,
                "oldest_wait_seconds": round(self.oldest_wait, 3),
                "held_back": self.queue_paused,
            },
            "workers": [_worker(row) for row in self.workers],
            "disk": {"free_bytes": self.disk_free, "reserve_bytes": self.disk_reserve, "store_bytes": self.store},
        }


def look(services: Services) -> Health:
    """The house as it is now. Raises StoreUnavailable."""
    now, home = services.clock(), services.settings.home
    with services.db.read() as connection:
        counted = connection.execute(
            "SELECT COALESCE(SUM(waiting), 0) AS waiting, COALESCE(SUM(paused), 0) AS paused, "
            "COALESCE(SUM(running), 0) AS running FROM owner"
        ).fetchone()
        # `rank` holds the time of queueing, moved by the priority; see studio.claims.
        since = connection.execute(
            "SELECT MIN(rank + 600.0 * priority) AS since FROM job WHERE state = 'queued'"
        ).fetchone()["since"]
    rows = services.jobs.workers()
    living = tuple(row for row in rows if now - row.seen < SILENT_S)
    return Health(
        waiting=counted["waiting"],
        running=counted["running"],
        paused=counted["paused"],
        oldest_wait=0.0 if since is None else max(0.0, now - since),
        queue_paused=services.jobs.queue_paused,
        workers=living,
        missing=len(rows) - len(living),
        disk_free=shutil.disk_usage(home).free,
        disk_reserve=services.settings.disk_reserve,
        store=sum(path.stat().st_size for path in home.glob("atelier.db*") if path.is_file()),
    )


def tallies(services: Services) -> list[Mapping[str, Any]]:
    """(engine, state, jobs, seconds) of all jobs that have ever ended here."""
    with services.db.read() as connection:
        return [dict(row) for row in connection.execute("SELECT * FROM tally ORDER BY engine, state")]


def models_of(row: WorkerRow) -> Mapping[str, Any]:
    """What a worker told of its model cache; empty before it has said anything."""
    told: Mapping[str, Any] = row.facts.get("models") or {}
    return told


def _worker(row: WorkerRow) -> dict[str, Any]:
    told = models_of(row)
    return {
        "device": row.device,
        "warm_models": len(row.warm),
        "models_ram_bytes": int(told.get("ram_bytes", 0)),
        "models_vram_bytes": int(told.get("vram_bytes", 0)),
    }
