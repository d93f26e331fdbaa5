"""What is thrown away and when: old unshared jobs, old uploads, bytes nobody refers to, leftovers of crashes.

Knows the tables of results and the folders under home; decides nothing about jobs that have not ended.
"""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from studio.clocks import JumpWatch
from studio.db import Database
from studio.errors import StoreUnavailable

if TYPE_CHECKING:
    from studio.artifacts import Artifacts

log = logging.getLogger(__name__)

DAY_S = 86_400.0
HOUR_S = 3_600.0
# Bytes are written before anything refers to them, so what is fresh is never garbage.
FRESH_S = DAY_S
RESUMABLE_S = 7 * DAY_S  # how long a job that failed or was cancelled can go on where it stopped

_SHA = re.compile(r"[0-9a-f]{64}")

_OLD_JOBS = """
SELECT id FROM job
WHERE state IN ('succeeded', 'failed', 'cancelled') AND ended < ?
AND NOT EXISTS (SELECT 1 FROM share WHERE share.job = job.id AND share.revoked IS NULL)
"""


def sweep(artifacts: Artifacts, db: Database, now: float, retention_days: float) -> dict[str, int]:
    """Remove what is older than `retention_days` (0: keep) and all garbage; returns how many of each.

    `now` is in seconds of the store's clock, which must be the wall clock, as ages of files are compared with it.
    """
    removed = {"jobs": 0, "uploads": 0, "files": 0, "leftovers": 0}
    if retention_days > 0:
        horizon = now - retention_days * DAY_S
        removed["jobs"] = _drop_jobs(artifacts, db, horizon)
        removed["uploads"] = _drop_uploads(db, horizon)
    removed["files"] = _drop_blobs(artifacts, db, now - FRESH_S)
    removed["leftovers"] = _drop_leftovers(artifacts.home, db, now - FRESH_S)
    removed["leftovers"] += _drop_folders(artifacts.home, db, now)
    return removed


class Sweeper:
    """Sweeps when it is started and every `pause_s` seconds after, in a thread that ends with the server.

    After a clock that jumped by more than a day it waits a day: what seems old then may be young.
    """

    def __init__(
        self,
        sweep_once: Callable[[], dict[str, int]],
        pause_s: float = HOUR_S,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweep_once, self._pause_s = sweep_once, pause_s
        self._watch = JumpWatch(clock, steady, tolerance_s=DAY_S, settle_s=DAY_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when no sweep is under way."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                removed = self._sweep_once() if self._watch.settled() else {}
                if any(removed.values()):
                    log.info("swept: %s", ", ".join(f"{count} {what}" for what, count in removed.items() if count))
            except (StoreUnavailable, OSError) as error:
                log.error("sweeping failed, the next try comes later: %s", error)
            self._ended.wait(self._pause_s)


def _drop_jobs(artifacts: Artifacts, db: Database, horizon: float) -> int:
    with db.transaction() as connection:
        old = [row["id"] for row in connection.execute(_OLD_JOBS, (horizon,))]
        connection.executemany("DELETE FROM job WHERE id = ?", [(job_id,) for job_id in old])
    for job_id in old:
        artifacts.drop_files(job_id)
    return len(old)


def _drop_uploads(db: Database, horizon: float) -> int:
    with db.transaction() as connection:
        used = _inputs(connection)
        old = connection.execute("SELECT sha, owner FROM upload WHERE created < ?", (horizon,)).fetchall()
        gone = [(row["sha"], row["owner"]) for row in old if row["sha"] not in used]
        connection.executemany("DELETE FROM upload WHERE sha = ? AND owner = ?", gone)
    return len(gone)


def _inputs(connection: sqlite3.Connection) -> set[str]:
    """Every hash that the parameters of some job mention."""
    rows = connection.execute("SELECT params FROM job")
    return {sha for row in rows for sha in _SHA.findall(row["params"])}


def _drop_blobs(artifacts: Artifacts, db: Database, before: float) -> int:
    """Remove bytes that are neither upload, result nor input. The file goes first: a row without one does no harm."""
    with db.transaction() as connection:
        used = _inputs(connection)
        rows = connection.execute(
            "SELECT sha FROM blob WHERE touched < ? AND sha NOT IN (SELECT sha FROM upload) "
            "AND sha NOT IN (SELECT sha FROM output)",
            (before,),
        ).fetchall()
        gone = [row["sha"] for row in rows if row["sha"] not in used]
        for sha in gone:
            (artifacts.home / "files" / sha[:2] / sha).unlink(missing_ok=True)
            connection.execute("DELETE FROM blob WHERE sha = ?", (sha,))
    return len(gone)


def _drop_folders(home: Path, db: Database, now: float) -> int:
    """Remove what a job kept while it ran and needs no more: its worker died between the last row and the tidying up.

    What did not succeed may be tried again and go on from its checkpoint, for a while.
    """
    before = {"previews": now - FRESH_S, "checkpoints": now - RESUMABLE_S}
    with db.read() as connection:
        rows = connection.execute("SELECT id, state, ended FROM job").fetchall()
    states = {row["id"]: (row["state"], row["ended"] or now) for row in rows}
    removed = 0
    for kind in ("results", "previews", "checkpoints"):
        for folder in home.glob(f"{kind}/*"):
            state, ended = states.get(folder.name, ("gone", folder.stat().st_mtime))
            over = state == "succeeded" and kind != "results"
            over |= state in ("failed", "cancelled") and ended < before.get(kind, 0.0)
            over |= state == "gone" and ended < now - FRESH_S
            if over:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def _drop_leftovers(home: Path, db: Database, before: float) -> int:
    """Remove what crashes left: temporary files, and files without a row."""
    with db.read() as connection:
        known = {row["sha"] for row in connection.execute("SELECT sha FROM blob")}
    files = [path for path in home.glob("files/??/*") if path.name not in known]
    files += list(home.glob("tmp/*.part")) + list(home.glob("*/*/.*.part"))
    removed = 0
    for path in files:
        if path.is_file() and path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
            removed += 1
    return removed
