"""The durable queue: submit, watch, cancel, pause, prioritise, retry. One row a job, one table of legal transitions.

`Jobs` is the one public class. This file holds the owners' side; the workers' side is studio/claims.py, the table of
workers studio/fleet.py, rows and transitions studio/rows.py. The queue knows no engine, no file and no process.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Any

from studio.canonical import dumps
from studio.claims import Claims, rank
from studio.clocks import JumpWatch
from studio.db import Database
from studio.errors import Conflict, InvalidInput, LimitReached
from studio.fleet import Fleet, WorkerRow
from studio.rows import (
    FINAL,
    LEGAL,
    STOPS,
    Event,
    Job,
    State,
    Wish,
    append,
    encodable,
    find,
    load_event,
    load_job,
    move,
    refusal,
)
from studio.settings import Settings

__all__ = ["FINAL", "LEGAL", "Event", "Job", "Jobs", "State", "Wish", "WorkerRow"]

MAX_TOKEN = 200  # characters of a client's token
MAX_PRIORITY = 100  # either way; an hour of waiting outweighs six steps


def new_id() -> str:
    """128 random bits, url-safe, beginning with a letter so that no tool takes it for an option."""
    return "j" + secrets.token_urlsafe(16)


class Jobs(Claims, Fleet):
    """The queue in `db`. `clock` gives seconds, `steady` those of a clock nobody can set; `token` makes job ids.

    Every call that takes `owner` raises NotFound for a job of somebody else; owner None is a trusted caller.
    """

    def __init__(
        self,
        db: Database,
        *,
        clock: Callable[[], float],
        settings: Settings,
        token: Callable[[], str] = new_id,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._token = token
        lease = settings.lease
        self._watch = JumpWatch(clock, steady or clock, tolerance_s=lease / 4, settle_s=lease)

    def submit(
        self,
        engine: str,
        params: Mapping[str, Any],
        *,
        owner: str,
        model_key: str = "",
        priority: int = 0,
        token: str | None = None,
    ) -> Job:
        """Queue a job. The same owner and `token` again give the job that is already there, whatever else is passed.

        Raises LimitReached when the owner has too many waiting jobs, InvalidInput for parameters JSON cannot hold.
        """
        text = _params_text(params)
        _check_priority(priority)
        _check_token(token)
        with self._db.transaction() as connection:
            known = connection.execute("SELECT * FROM job WHERE owner = ? AND token = ?", (owner, token)).fetchone()
            if known is not None:
                return load_job(known)
            self._check_room(connection, owner)
            now, job_id = self._clock(), self._token()
            connection.execute(
                "INSERT INTO job (id, owner, token, engine, params, model_key, priority, state, created, rank) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (job_id, owner, token, engine, text, model_key, priority, now, rank(now, priority)),
            )
            append(connection, job_id, now, "submitted", {"engine": engine, "priority": priority})
            return find(connection, job_id)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """The job as it is now. Raises NotFound."""
        with self._db.read() as connection:
            return find(connection, job_id, owner)

    def events(self, job_id: str, after: int = 0, owner: str | None = None, limit: int = 1000) -> list[Event]:
        """What happened to the job after event number `after`, in order. Raises NotFound."""
        with self._db.read() as connection:
            find(connection, job_id, owner)
            rows = connection.execute(
                "SELECT * FROM event WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?", (job_id, after, max(0, limit))
            )
            return [load_event(row) for row in rows]

    def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Stop the job: at once if it waits, else by a wish its worker obeys. NotFound; Conflict if it has ended."""
        with self._db.transaction() as connection:
            job = find(connection, job_id, owner)
            if job.state == "running":
                return self._set_wish(connection, job, "cancel")
            return move(connection, job, "cancelled", self._clock(), "cancelled")

    def stop(self, job_id: str, owner: str | None = None) -> Job:
        """End a running job at its next step with the best result it has by then. NotFound; Conflict if not running.

        It succeeds with what there is, and is cancelled if there is nothing.
        """
        with self._db.transaction() as connection:
            job = find(connection, job_id, owner)
            if job.state != "running":
                raise Conflict(
                    f"Job {job.id} is not running, so there is nothing to keep yet.",
                    "" if job.state in FINAL else "Cancel it, or wait until it has begun.",
                )
            if job.wish == "cancel":
                raise Conflict(f"Job {job.id} is being cancelled.", "Wait until it has stopped.")
            return self._set_wish(connection, job, "keep")

    def pause(self, job_id: str, owner: str | None = None) -> Job:
        """Hold the job: at once if it waits, else at its next step. NotFound; Conflict if ended or paused."""
        with self._db.transaction() as connection:
            job = find(connection, job_id, owner)
            if job.state != "running":
                return move(connection, job, "paused", self._clock(), "paused")
            if job.wish in STOPS:
                raise Conflict(f"Job {job.id} is being stopped and cannot be paused.", "Wait until it has stopped.")
            return self._set_wish(connection, job, "pause")

    def resume(self, job_id: str, owner: str | None = None) -> Job:
        """Let a paused job wait for its turn again, or take back a pause that has not happened yet.

        Raises NotFound, or Conflict when the job is neither.
        """
        with self._db.transaction() as connection:
            job, now = find(connection, job_id, owner), self._clock()
            if job.state == "running" and job.wish == "pause":
                return self._set_wish(connection, job, "")
            if job.state != "paused":
                raise refusal(job, "queued")
            return move(connection, job, "queued", now, "resumed", rank=rank(now, job.priority), skipped=0)

    def retry(self, job_id: str, owner: str | None = None) -> Job:
        """Queue a failed or cancelled job again, with all its attempts. Raises NotFound, Conflict or LimitReached."""
        with self._db.transaction() as connection:
            job, now = find(connection, job_id, owner), self._clock()
            if job.state not in ("failed", "cancelled"):
                raise refusal(job, "queued")
            self._check_room(connection, job.owner)
            fresh = {"attempts": 0, "error": None, "progress": None, "started": None, "skipped": 0, "plan": None}
            told = {"reason": "asked by the owner"}
            return move(connection, job, "queued", now, "retry", told, rank=rank(now, job.priority), **fresh)

    def set_priority(self, job_id: str, priority: int, owner: str | None = None) -> Job:
        """Move a job that has not ended within its owner's jobs; larger is sooner. What it has waited still counts.

        Raises NotFound, Conflict if it has ended, InvalidInput beyond +-100.
        """
        _check_priority(priority)
        with self._db.transaction() as connection:
            job = find(connection, job_id, owner)
            if job.state in FINAL:
                raise Conflict(f"Job {job.id} has ended; its priority has no meaning any more.")
            # The rank holds the time of queueing; shifting it by the difference keeps that.
            shift = rank(0.0, priority) - rank(0.0, job.priority)
            connection.execute("UPDATE job SET priority = ?, rank = rank + ? WHERE id = ?", (priority, shift, job_id))
            append(connection, job_id, self._clock(), "priority", {"priority": priority})
            return find(connection, job_id)

    def pause_queue(self) -> None:
        """Hand out no more jobs; running ones go on."""
        self._set_queue_paused(True)

    def resume_queue(self) -> None:
        """Hand out jobs again."""
        self._set_queue_paused(False)

    @property
    def queue_paused(self) -> bool:
        """Whether jobs are held back."""
        with self._db.read() as connection:
            return bool(connection.execute("SELECT paused FROM queue").fetchone()["paused"])

    def position(self, job_id: str, owner: str | None = None) -> int:
        """How many waiting jobs are served before this one; 0 if it does not wait. Raises NotFound.

        Owners take turns, so of each other owner as many come first as this owner has jobs before this one, and one
        more of those whose turn is earlier. Caps on running jobs and warm models may change the order a little.
        """
        with self._db.read() as connection:
            job = find(connection, job_id, owner)
            if job.state != "queued":
                return 0
            row = connection.execute(_POSITION, {"seq": job.seq, "owner": job.owner}).fetchone()
            return int(row["ahead"])

    def list(
        self,
        owner: str | None = None,
        *,
        states: Collection[str] | None = None,
        engine: str | None = None,
        search: str = "",
        since: float | None = None,
        until: float | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        """Jobs, newest first. `before` is the seq of the last one seen, for paging; `search` are words that must
        all occur in the parameters' values; `since` and `until` bound the time of submission in seconds."""
        conditions, values = ["TRUE"], []
        for condition, value in (
            ("owner = ?", owner),
            ("engine = ?", engine),
            ("created >= ?", since),
            ("created < ?", until),
            ("seq < ?", before),
            ("state IN (SELECT value FROM json_each(?))", None if states is None else dumps(sorted(states))),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        for word in encodable(search).split():
            conditions.append("EXISTS (SELECT 1 FROM json_tree(job.params) WHERE atom LIKE ? ESCAPE '\\')")
            values.append("%" + _escaped(word) + "%")
        query = f"SELECT * FROM job WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"
        with self._db.read() as connection:
            return [load_job(row) for row in connection.execute(query, (*values, max(0, limit)))]

    def _set_wish(self, connection: sqlite3.Connection, job: Job, wish: Wish) -> Job:
        """Ask the worker of a running job; asking twice changes nothing, not even the time it was first asked."""
        if job.wish == wish:
            return job
        now = self._clock()
        connection.execute(
            "UPDATE job SET wish = ?, keep = ?, wish_time = ? WHERE id = ? AND state = 'running'",
            ("cancel" if wish == "keep" else wish, wish == "keep", now if wish else None, job.id),
        )
        append(connection, job.id, now, "wish", {"wish": wish})
        return find(connection, job.id)

    def _check_room(self, connection: sqlite3.Connection, owner: str) -> None:
        row = connection.execute("SELECT waiting + paused AS jobs FROM owner WHERE owner = ?", (owner,)).fetchone()
        cap = self._settings.waiting_cap
        if row is not None and row["jobs"] >= cap:
            raise LimitReached(
                f"You have {row['jobs']} waiting or paused jobs, and {cap} are allowed.",
                "Wait until some have run, or cancel those you no longer need.",
            )

    def _set_queue_paused(self, paused: bool) -> None:
        with self._db.transaction() as connection:
            connection.execute("UPDATE queue SET paused = ?", (int(paused),))


_POSITION = """
WITH me AS (SELECT rank, seq FROM job WHERE seq = :seq),
     turn AS (SELECT last_served, number FROM owner WHERE owner = :owner),
     before AS (SELECT COUNT(*) AS jobs FROM job, me WHERE job.state = 'queued' AND job.owner = :owner
                AND (job.rank, job.seq) < (me.rank, me.seq))
SELECT before.jobs + COALESCE((
    SELECT SUM(MIN(waiting, before.jobs + ((owner.last_served, owner.number) < (turn.last_served, turn.number))))
    FROM owner, turn WHERE waiting > 0 AND owner.owner <> :owner), 0) AS ahead
FROM before
"""


def _params_text(params: Mapping[str, Any]) -> str:
    try:
        return dumps(params)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"These parameters cannot be stored: {error}", "Use plain numbers and text.") from error


def _check_token(token: str | None) -> None:
    if token is not None and not (1 <= len(token) <= MAX_TOKEN and encodable(token) == token):
        raise InvalidInput(
            f"A client token of {len(token)} characters cannot be used.",
            f"Send 1 to {MAX_TOKEN} characters, e.g. a random UUID.",
            field="token",
        )


def _check_priority(priority: int) -> None:
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise InvalidInput(
            f"The priority {priority} is out of range.",
            f"Choose a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}.",
            field="priority",
        )


def _escaped(word: str) -> str:
    """`word` for LIKE: its wildcards stand for themselves. Stored text is ASCII JSON; json_tree decodes it."""
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
