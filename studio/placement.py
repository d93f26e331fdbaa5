"""Which waiting job is served next: the rules between owners, between an owner's jobs, and for loaded models.

The least recently served owner comes first; within the owner the smallest rank, which is priority with ageing
(studio.claims); and within the first jobs of equal priority one whose models this worker has warm, or else one whose
models no other worker has. Knows no worker by name and changes no state.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from studio.rows import Job, load_job

# How many jobs of an owner a claim looks at for the sake of models, and how often one may be passed over for them.
LOOK_AHEAD = 32
MAX_SKIPS = 32


def next_job(connection: sqlite3.Connection, running_cap: int, warm: Collection[str]) -> Job | None:
    """The waiting job to serve now. Reads one row of each index it needs, however long the queue is."""
    owner = connection.execute(
        "SELECT owner FROM owner WHERE waiting > 0 AND running < ? ORDER BY last_served, number LIMIT 1",
        (running_cap,),
    ).fetchone()
    if owner is None:
        return None
    first = connection.execute(
        "SELECT seq, priority, model_key FROM job WHERE state = 'queued' AND owner = ? ORDER BY rank, seq LIMIT 1",
        (owner["owner"],),
    ).fetchone()
    chosen = first["seq"]
    if first["model_key"] and first["model_key"] not in warm:
        chosen = _placed(connection, owner["owner"], first, warm)
    return load_job(connection.execute("SELECT * FROM job WHERE seq = ?", (chosen,)).fetchone())


def _placed(connection: sqlite3.Connection, owner: str, first: sqlite3.Row, warm: Collection[str]) -> int:
    """A job close behind `first` and of its priority that suits this worker better, else `first`.

    Best one whose models are warm here, then one whose models no other worker has at hand: for those it would only
    load what is already loaded there. Counts the jobs that are passed over.
    """
    window = connection.execute(
        "SELECT seq, model_key, skipped FROM job WHERE state = 'queued' AND owner = ? AND priority = ? "
        "ORDER BY rank, seq LIMIT ?",
        (owner, first["priority"], LOOK_AHEAD),
    ).fetchall()
    full = next((place for place, row in enumerate(window) if row["skipped"] >= MAX_SKIPS), len(window) - 1)
    keys = [row["model_key"] for row in window[: full + 1]]
    place = next((place for place, key in enumerate(keys) if key in warm), None)
    if place is None:
        used = _used(connection)
        place = next((place for place, key in enumerate(keys) if key not in used), 0)
    passed = [row["seq"] for row in window[:place]]
    if passed:
        skip = "UPDATE job SET skipped = skipped + 1 WHERE seq IN (SELECT value FROM json_each(?))"
        connection.execute(skip, (json.dumps(passed),))
    return int(window[place]["seq"])


def _used(connection: sqlite3.Connection) -> set[str]:
    """The models of the jobs that run now."""
    rows = connection.execute("SELECT model_key FROM job INDEXED BY job_leases WHERE state = 'running'")
    return {row["model_key"] for row in rows}
