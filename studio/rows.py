"""What a job and an event are, which transitions a job may make, and how both lie in the store.

Every change of state in the house goes through `move`. The functions work inside a transaction of the caller; they
know nothing of claims, caps or who is allowed what, except that somebody else's job looks like none at all.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from studio.canonical import dumps
from studio.errors import Conflict, NotFound

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Wish = Literal["", "cancel", "keep", "pause"]

LEGAL: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "paused", "queued"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
# Wishes that end a running job; "keep" with what it has by then.
STOPS: frozenset[Wish] = frozenset({"cancel", "keep"})
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

_STATE_WORDS: Mapping[State, str] = {
    "queued": "is waiting",
    "running": "is running",
    "paused": "is paused",
    "succeeded": "has succeeded",
    "failed": "has failed",
    "cancelled": "has been cancelled",
}
# Every kind of event; those a worker may report about its own job are the second line.
KINDS = frozenset(
    {"submitted", "claimed", "retry", "wish", "paused", "resumed", "priority", "succeeded", "failed", "cancelled"}
    | {"progress", "metric", "saved", "checkpoint", "plan", "note"}
)
WORKER_KINDS = frozenset({"progress", "metric", "saved", "checkpoint", "plan", "note"})

_NO_PROGRESS = {"step": 0, "total": 0, "message": "", "eta": None, "preview": None}


@dataclass(frozen=True)
class Job:
    """One row of the queue. Times are seconds of the store's clock."""

    id: str  # 128 random bits, url-safe
    seq: int  # order of submission, never reused
    owner: str
    engine: str
    params: dict[str, Any]
    model_key: str  # equal keys need the same models
    priority: int
    state: State
    wish: Wish  # what a running job has been asked to do
    attempts: int  # how often it has been begun
    worker: str | None  # who holds it while it runs
    lease_until: float | None
    created: float
    started: float | None
    ended: float | None
    error: dict[str, Any] | None  # errors.AtelierError.as_dict()
    progress: dict[str, Any] | None  # step, total, message, eta in seconds, preview (its number) or null
    plan: str | None  # memory plan of the newest attempt
    device: str | None = None  # where the newest attempt ran
    wish_time: float | None = None
    kept: bool = False  # it succeeded with what it had when its owner stopped it


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; `seq` counts 1, 2, 3 ... without a gap."""

    job: str
    seq: int
    time: float
    kind: str  # one of KINDS
    payload: dict[str, Any]


def load_job(row: sqlite3.Row) -> Job:
    """A row as a Job. What an older version did not write has its default."""
    progress = json.loads(row["progress"]) if row["progress"] else None
    keep = bool(row["keep"])
    return Job(
        wish="keep" if keep and row["wish"] == "cancel" else row["wish"],
        kept=keep and row["state"] == "succeeded",
        params=_read(row["params"]),
        error=json.loads(row["error"]) if row["error"] else None,
        progress=None if progress is None else {**_NO_PROGRESS, **progress},
        **{name: row[name] for name in _PLAIN_COLUMNS},
    )


def _read(text: str) -> Any:
    """Stored JSON. Earlier versions took half characters, which no page could show."""
    value = json.loads(text)
    if "\\ud" in text:
        value = json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return value


_MADE = {"wish", "kept", "params", "error", "progress"}
_PLAIN_COLUMNS = [name for name in Job.__dataclass_fields__ if name not in _MADE]


def find(connection: sqlite3.Connection, job_id: str, owner: str | None = None) -> Job:
    """The job, if it exists and is the owner's (None: a trusted caller). Raises NotFound."""
    row = connection.execute("SELECT * FROM job WHERE id = ?", (encodable(job_id),)).fetchone()
    if row is None or (owner is not None and row["owner"] != owner):
        raise NotFound(f"There is no job {job_id[:40]!r} here.", "Open your list of jobs to see those you have.")
    return load_job(row)


def encodable(text: str) -> str:
    """`text` from outside as SQLite takes it: half characters (lone surrogates) become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def append(connection: sqlite3.Connection, job_id: str, now: float, kind: str, payload: Mapping[str, Any]) -> None:
    """Add an event to the job's history, with the next number."""
    if kind not in KINDS:
        raise ValueError(f"event kind {kind!r}: expected one of {', '.join(sorted(KINDS))}")
    connection.execute(
        "INSERT INTO event (job, seq, time, kind, payload) "
        "SELECT ?1, COALESCE(MAX(seq), 0) + 1, ?2, ?3, ?4 FROM event WHERE job = ?1",
        (job_id, now, kind, dumps(payload)),
    )


def move(
    connection: sqlite3.Connection,
    job: Job,
    to: State,
    now: float,
    kind: str,
    payload: Mapping[str, Any] | None = None,
    **columns: Any,
) -> Job:
    """Compare-and-set: from exactly the state and holder in `job` to `to`, with the event that tells of it.

    A job that leaves "running" loses its holder, lease and wish. `columns` are set besides. Raises Conflict when the
    transition is not in `LEGAL` or the row has changed since `job` was read.
    """
    if to not in LEGAL[job.state]:
        raise refusal(job, to)
    unheld = {"worker": None, "lease_until": None, "wish": "", "wish_time": None, "keep": 0}
    columns = {**unheld, **columns, "state": to}
    columns["ended"] = now if to in FINAL else None
    assignments = ", ".join(f"{name} = ?" for name in columns)
    changed = connection.execute(
        f"UPDATE job SET {assignments} WHERE id = ? AND state = ? AND worker IS ? RETURNING *",
        (*columns.values(), job.id, job.state, job.worker),
    ).fetchall()
    if not changed:
        raise Conflict(f"Job {job.id} has changed in the meantime.", "Look at it again and repeat the request.")
    append(connection, job.id, now, kind, payload or {})
    return load_job(changed[0])


def refusal(job: Job, to: State) -> Conflict:
    """Why `job` cannot become `to`."""
    verbs: Mapping[State, str] = {
        "queued": "put back into the queue",
        "running": "started",
        "paused": "paused",
        "succeeded": "finished",
        "failed": "marked as failed",
        "cancelled": "cancelled",
    }
    return Conflict(
        f"Job {job.id} {_STATE_WORDS[job.state]} and cannot be {verbs[to]}.",
        "Submit it again as a new job if you want another run." if job.state in FINAL else "",
    )


def load_event(row: sqlite3.Row) -> Event:
    """A row as an Event."""
    return Event(row["job"], row["seq"], row["time"], row["kind"], cast(dict[str, Any], json.loads(row["payload"])))
