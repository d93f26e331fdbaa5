"""The workers' side of the queue: a job is claimed, held by a lease, reported about, and ended or given back.

Which job a claim gets is decided in studio/placement.py. This module knows neither engines nor processes: a worker is
a name that must renew its lease.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from studio.canonical import dumps
from studio.clocks import JumpWatch
from studio.db import Database
from studio.errors import Conflict
from studio.placement import next_job
from studio.rows import STOPS, WORKER_KINDS, Job, Wish, append, find, load_job, move
from studio.settings import Settings

# Ageing: a job gains one step of priority for each 600 s it waits, so that no stream of urgent jobs starves it. As
# all waiting jobs gain at the same pace, their order is fixed at queueing: by `time of queueing - 600 s * priority`.
AGE_S = 600.0


def rank(queued: float, priority: int) -> float:
    """The moment at which a job of priority 0 would have been queued to be equal to this one, in seconds."""
    return queued - AGE_S * priority


_SHORTEN = "UPDATE job SET lease_until = MIN(lease_until, ?) WHERE state = 'running'"


class Claims:
    """What workers and their supervisor ask of the queue. Every call is one transaction."""

    _db: Database
    _clock: Callable[[], float]
    _settings: Settings
    _watch: JumpWatch

    def claim(self, worker: str, device: str, warm: Collection[str] = ()) -> Job | None:
        """The next job for `worker`, now running and leased to it, or None. Takes over expired leases first."""
        with self._db.transaction(lasting=False) as connection:
            now = self._clock()
            if self._watch.settled():
                for lost in _running(connection, "lease_until <= ?", now):
                    self._take_back(connection, lost, now)
            else:
                # The living renew their leases by the new time; those of the dead must not last until the old one.
                connection.execute(_SHORTEN, (now + self._settings.lease,))
            if connection.execute("SELECT paused FROM queue").fetchone()["paused"]:
                return None
            job = next_job(connection, self._settings.running_cap, warm)
            if job is None:
                return None
            connection.execute(
                "UPDATE owner SET last_served = (SELECT MAX(last_served) + 1 FROM owner) WHERE owner = ?",
                (job.owner,),
            )
            return move(
                connection,
                job,
                "running",
                now,
                "claimed",
                {"worker": worker, "device": device, "attempt": job.attempts + 1},
                worker=worker,
                device=device,
                lease_until=now + self._settings.lease,
                attempts=job.attempts + 1,
                started=now,
                skipped=0,
            )

    def heartbeat(self, job_id: str, worker: str) -> Wish:
        """Renew the lease; returns what the owner wishes. Raises Conflict if the job is no longer this worker's."""
        with self._db.transaction(lasting=False) as connection:
            job = _held(connection, job_id, worker)
            until = self._clock() + self._settings.lease
            connection.execute("UPDATE job SET lease_until = ? WHERE seq = ?", (until, job.seq))
        self._db.tidy()
        return job.wish

    def wish(self, job_id: str, worker: str) -> Wish:
        """What the owner wishes, without renewing anything: cheap enough for every step. Raises Conflict if lost."""
        with self._db.read() as connection:
            return _held(connection, job_id, worker).wish

    def event(self, job_id: str, worker: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Report something about the held job. Raises Conflict if lost, ValueError for a kind not of workers."""
        with self.telling(job_id, worker, kind, payload):
            pass

    @contextmanager
    def telling(
        self, job_id: str, worker: str, kind: str, payload: Mapping[str, Any]
    ) -> Iterator[sqlite3.Connection]:
        """The transaction of an event, for writing what it is about along with it. Raises as `event` does."""
        if kind not in WORKER_KINDS:
            raise ValueError(f"event kind {kind!r}: a worker reports one of {', '.join(sorted(WORKER_KINDS))}")
        with self._db.transaction(lasting=False) as connection:
            _held(connection, job_id, worker)
            yield connection
            append(connection, job_id, self._clock(), kind, payload)

    def progress(self, job_id: str, worker: str, payload: Mapping[str, Any]) -> None:
        """Report step, total, message, eta (seconds or None) and preview (its number or None). Conflict if lost."""
        with self._db.transaction(lasting=False) as connection:
            _held(connection, job_id, worker)
            connection.execute("UPDATE job SET progress = ? WHERE id = ?", (dumps(payload), job_id))
            append(connection, job_id, self._clock(), "progress", payload)

    def set_plan(self, job_id: str, worker: str, plan: str) -> None:
        """Note the memory plan the held job runs with. Raises Conflict if lost."""
        with self._db.transaction(lasting=False) as connection:
            _held(connection, job_id, worker)
            connection.execute("UPDATE job SET plan = ? WHERE id = ?", (plan, job_id))
            append(connection, job_id, self._clock(), "plan", {"plan": plan})

    def succeed(self, job_id: str, worker: str, *, kept: bool = False) -> Job:
        """The held job is done; wins over a cancel or pause that came too late. Raises Conflict if lost.

        `kept`: it was stopped, and what it had is its result.
        """
        with self._db.transaction(lasting=False) as connection:
            held = _held(connection, job_id, worker)
            told = {"kept": True} if kept else None
            done = move(connection, held, "succeeded", self._clock(), "succeeded", told, keep=int(kept))
        self._db.tidy()
        return done

    def fail(self, job_id: str, worker: str, error: Mapping[str, Any]) -> Job:
        """The held job ended with `error` (AtelierError.as_dict()). Raises Conflict if lost."""
        with self._db.transaction(lasting=False) as connection:
            held = _held(connection, job_id, worker)
            return move(connection, held, "failed", self._clock(), "failed", error, error=dumps(error))

    def finish_cancelled(self, job_id: str, worker: str) -> Job:
        """The held job stopped as its owner wished. Raises Conflict if lost or if nobody wished it."""
        with self._db.transaction(lasting=False) as connection:
            held = _wished(_held(connection, job_id, worker), *STOPS)
            return move(connection, held, "cancelled", self._clock(), "cancelled")

    def finish_paused(self, job_id: str, worker: str) -> Job:
        """The held job stopped to go on later; the attempt does not count. A cancel that came meanwhile wins.

        Raises Conflict if lost, or if the owner took the wish back.
        """
        with self._db.transaction(lasting=False) as connection:
            held = _held(connection, job_id, worker)
            if held.wish in STOPS:
                return move(connection, held, "cancelled", self._clock(), "cancelled")
            _wished(held, "pause")
            return move(connection, held, "paused", self._clock(), "paused", attempts=held.attempts - 1)

    def release(self, job_id: str, worker: str) -> Job:
        """Give the held job back without counting the attempt, e.g. at an orderly stop. Raises Conflict if lost."""
        with self._db.transaction(lasting=False) as connection:
            held = _held(connection, job_id, worker)
            return self._end_attempt(connection, held, self._clock(), "released", held.attempts - 1)

    def postpone(self, job_id: str, worker: str, error: Mapping[str, Any]) -> Job:
        """The store or the disk failed the held job: try it again, or, after its last attempt, fail it with `error`.

        Raises Conflict if lost.
        """
        with self._db.transaction(lasting=False) as connection:
            held, now = _held(connection, job_id, worker), self._clock()
            if not held.wish and held.attempts >= self._settings.max_attempts:
                return move(connection, held, "failed", now, "failed", error, error=dumps(error))
            return self._end_attempt(connection, held, now, str(error["message"]), held.attempts)

    def reclaim(self, worker: str) -> list[Job]:
        """The worker's process is known to be dead: take all its jobs back at once; returns them as they are now."""
        with self._db.transaction(lasting=False) as connection:
            now = self._clock()
            lost = _running(connection, "worker = ?", worker)
            return [self._take_back(connection, job, now) for job in lost]

    def cancelling(self) -> list[Job]:
        """Running jobs that their owners want stopped, with or without what they have."""
        with self._db.read() as connection:
            return _running(connection, "wish = ?", "cancel")

    def _take_back(self, connection: sqlite3.Connection, job: Job, now: float) -> Job:
        """End an attempt whose worker fell silent: wish first, then another attempt, then failure."""
        if not job.wish and job.attempts >= self._settings.max_attempts:
            times = "once" if job.attempts == 1 else f"{job.attempts} times"
            error = {
                "code": "worker_died",
                "message": f"The worker died {times} while it ran this job.",
                "remedy": "Try a smaller size or another device; the log tells how the worker ended.",
                "field": None,
            }
            return move(connection, job, "failed", now, "failed", error, error=dumps(error))
        return self._end_attempt(connection, job, now, "worker lost", job.attempts)

    def _end_attempt(self, connection: sqlite3.Connection, job: Job, now: float, why: str, attempts: int) -> Job:
        """Stop running without a result: as the owner wished, else back into the queue at the old place."""
        told = {"reason": why, "attempt": job.attempts, "worker": job.worker}
        if job.wish in STOPS:
            return move(connection, job, "cancelled", now, "cancelled", told)
        if job.wish == "pause":
            return move(connection, job, "paused", now, "paused", told, attempts=max(0, job.attempts - 1))
        return move(connection, job, "queued", now, "retry", told, attempts=attempts)


def _running(connection: sqlite3.Connection, condition: str, value: Any) -> list[Job]:
    """Running jobs by a further condition, in order. Told nothing, the planner reads every job there ever was."""
    rows = connection.execute(
        f"SELECT * FROM job INDEXED BY job_leases WHERE state = 'running' AND {condition} ORDER BY +seq", (value,)
    ).fetchall()
    return [load_job(row) for row in rows]


def _held(connection: sqlite3.Connection, job_id: str, worker: str) -> Job:
    job = find(connection, job_id)
    if job.state != "running" or job.worker != worker:
        raise Conflict(f"Job {job_id} is no longer held by worker {worker}.", "Drop it and claim another one.")
    return job


def _wished(job: Job, *wishes: Wish) -> Job:
    if job.wish not in wishes:
        raise Conflict(f"Nobody asked to {' or '.join(sorted(wishes))} job {job.id} (any more).", "Go on with it.")
    return job
