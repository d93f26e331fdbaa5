"""A thousand random sequences of operations on the queue, each step compared with a simple model of it in memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from studio.claims import AGE_S
from studio.db import Database
from studio.errors import Conflict, LimitReached
from studio.jobs import Jobs
from studio.placement import LOOK_AHEAD, MAX_SKIPS
from studio.rows import STOPS
from studio.settings import Settings

OWNERS, WORKERS, KEYS = ("ann", "bob", "cy"), ("w1", "w2"), ("m1", "m2", "m3")
SETTINGS = Settings(lease=30.0, max_attempts=2, waiting_cap=5, running_cap=2)
TABLES = ("event", "job", "owner")


@dataclass
class Shadow:
    """What the model remembers of a job."""

    number: int  # order of submission
    owner: str
    key: str
    priority: int
    queued: float
    state: str = "queued"
    wish: str = ""
    attempts: int = 0
    worker: str | None = None
    lease: float = 0.0
    skipped: int = 0
    events: list[str] = field(default_factory=lambda: ["submitted"])

    @property
    def order(self) -> tuple[float, int]:
        return (self.queued - AGE_S * self.priority, self.number)

    def end(self, state: str, event: str) -> None:
        self.state, self.wish, self.worker = state, "", None
        self.events.append(event)


class Model:
    """The queue in the plainest words: lists, loops and no index."""

    def __init__(self) -> None:
        self.jobs: dict[str, Shadow] = {}
        self.served: dict[str, int] = {}  # owner -> number of the turn, in order of first submission
        self.turn = 0
        self.paused = False

    def claim(self, worker: str, warm: set[str], now: float) -> str | None:
        for job in self.jobs.values():
            if job.state == "running" and job.lease <= now:
                self.lose(job)
        job_id = None if self.paused else self._choose(warm)
        if job_id is not None:
            job = self.jobs[job_id]
            self.turn += 1
            self.served[job.owner] = self.turn
            job.state, job.worker, job.lease, job.skipped = "running", worker, now + SETTINGS.lease, 0
            job.attempts += 1
            job.events.append("claimed")
        return job_id

    def lose(self, job: Shadow) -> None:
        if job.wish in STOPS:
            job.end("cancelled", "cancelled")
        elif job.wish == "pause":
            job.attempts -= 1
            job.end("paused", "paused")
        elif job.attempts >= SETTINGS.max_attempts:
            job.end("failed", "failed")
        else:
            job.end("queued", "retry")

    def open(self, owner: str, *states: str) -> list[tuple[str, Shadow]]:
        found = [(i, job) for i, job in self.jobs.items() if job.owner == owner and job.state in states]
        return sorted(found, key=lambda item: item[1].order)

    def _choose(self, warm: set[str]) -> str | None:
        for owner in sorted(self.served, key=lambda name: self.served[name]):  # a stable sort
            waiting = self.open(owner, "queued")
            if not waiting or len(self.open(owner, "running")) >= SETTINGS.running_cap:
                continue
            alike = [item for item in waiting if item[1].priority == waiting[0][1].priority][:LOOK_AHEAD]
            full = [place for place, (_, job) in enumerate(alike) if job.skipped >= MAX_SKIPS]
            alike = alike[: full[0] + 1] if full else alike
            used = {job.key for job in self.jobs.values() if job.state == "running"}
            here = [place for place, (_, job) in enumerate(alike) if job.key in warm]
            nowhere = [place for place, (_, job) in enumerate(alike) if job.key not in used]
            place = (here or nowhere or [0])[0]
            for _, passed in alike[:place]:
                passed.skipped += 1
            return alike[place][0]
        return None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class QueueMachine(RuleBasedStateMachine):
    """Every rule does one thing to the queue and to the model, and expects the same of both."""

    folder = tempfile.TemporaryDirectory(prefix="atelier-queue-", ignore_cleanup_errors=True)
    clock = Clock()
    db = Database(Path(folder.name) / "atelier.db", clock=clock, durable=False)

    def __init__(self) -> None:
        super().__init__()
        with self.db.transaction() as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")
            connection.execute("UPDATE queue SET paused = 0")
        self.clock.now = 1000.0
        self.jobs = Jobs(self.db, clock=self.clock, settings=SETTINGS)
        self.model = Model()
        self.tokens: dict[tuple[str, str], str] = {}

    def agree(self, legal: bool, call: Any, *arguments: Any) -> bool:
        """Call the queue; it must refuse exactly when the model says so."""
        if legal:
            call(*arguments)
        else:
            with pytest.raises(Conflict):
                call(*arguments)
        return legal

    def pick(self, data: st.DataObject, *states: str) -> tuple[str, Shadow]:
        """Mostly a job in one of `states`, where the rule does something; sometimes any job."""
        fitting = [(i, job) for i, job in self.model.jobs.items() if job.state in states]
        anything = list(self.model.jobs.items())
        likely = fitting if fitting and data.draw(st.sampled_from([True, True, True, False])) else anything
        return data.draw(st.sampled_from(likely), label="job")

    def pick_worker(self, data: st.DataObject, job: Shadow) -> str:
        """Mostly the holder, sometimes a worker that has lost the job or never had it."""
        return data.draw(st.sampled_from([job.worker or "w1", job.worker or "w1", *WORKERS]), label="worker")

    @initialize(waiting=st.lists(st.tuples(st.sampled_from(OWNERS), st.sampled_from(KEYS)), max_size=8))
    def begin_with(self, waiting: list[tuple[str, str]]) -> None:
        for owner, key in waiting:
            self.submit(owner, key, 0, None)

    @rule(
        owner=st.sampled_from(OWNERS),
        key=st.sampled_from(KEYS),
        priority=st.integers(-1, 1),
        token=st.sampled_from([None, None, "t1", "t2"]),
    )
    def submit(self, owner: str, key: str, priority: int, token: str | None) -> None:
        known = self.tokens.get((owner, token or ""))
        full = len(self.model.open(owner, "queued", "paused")) >= SETTINGS.waiting_cap
        if full and known is None:
            with pytest.raises(LimitReached):
                self.jobs.submit("e", {}, owner=owner, token=token)
            return
        job = self.jobs.submit("e", {"n": 1}, owner=owner, model_key=key, priority=priority, token=token)
        assert known in (None, job.id)
        if known is None:
            shadow = Shadow(len(self.model.jobs), owner, key, priority, self.clock.now)
            self.model.jobs[job.id] = shadow
            self.model.served.setdefault(owner, 0)
            if token:
                self.tokens[owner, token] = job.id

    @rule(worker=st.sampled_from(WORKERS), warm=st.sets(st.sampled_from(KEYS), max_size=2))
    def claim(self, worker: str, warm: set[str]) -> None:
        job = self.jobs.claim(worker, "cpu", warm)
        assert (job.id if job else None) == self.model.claim(worker, warm, self.clock.now)

    @rule(seconds=st.sampled_from([31.0, SETTINGS.lease, AGE_S]), worker=st.sampled_from(WORKERS))
    def wait_and_claim(self, seconds: float, worker: str) -> None:
        self.clock.now += seconds
        self.claim(worker, set())

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0, AGE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(pause=st.booleans())
    def pause_queue(self, pause: bool) -> None:
        self.jobs.pause_queue() if pause else self.jobs.resume_queue()
        self.model.paused = pause

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "running")
        worker = self.pick_worker(data, job)
        if self.agree(job.worker == worker, self.jobs.heartbeat, job_id, worker):
            job.lease = self.clock.now + SETTINGS.lease

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "finish_cancelled", "finish_paused", "release"]))
    def finish(self, data: st.DataObject, end: str) -> None:
        job_id, job = self.pick(data, "running")
        worker = self.pick_worker(data, job)
        wished = {"finish_cancelled": STOPS, "finish_paused": {*STOPS, "pause"}}
        legal = job.worker == worker and job.wish in wished.get(end, {"", *STOPS, "pause"})
        arguments = ({"code": "x"},) if end == "fail" else ()
        if not self.agree(legal, getattr(self.jobs, end), job_id, worker, *arguments):
            return
        if end in ("succeed", "fail"):
            state = "succeeded" if end == "succeed" else "failed"
            job.end(state, state)
        elif job.wish in STOPS:
            job.end("cancelled", "cancelled")
        else:
            job.attempts -= 1
            job.end(*(("paused", "paused") if job.wish == "pause" else ("queued", "retry")))

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "queued", "running", "paused")
        if not self.agree(job.state in ("queued", "paused", "running"), self.jobs.cancel, job_id):
            return
        if job.state == "running":
            job.events += ["wish"] if job.wish != "cancel" else []
            job.wish = "cancel"
        else:
            job.end("cancelled", "cancelled")

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "running")
        if self.agree(job.state == "running" and job.wish != "cancel", self.jobs.stop, job_id):
            job.events += ["wish"] if job.wish != "keep" else []
            job.wish = "keep"

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "queued", "running")
        legal = job.state == "queued" or (job.state == "running" and job.wish not in STOPS)
        if not self.agree(legal, self.jobs.pause, job_id):
            return
        if job.state == "running":
            job.events += ["wish"] if job.wish != "pause" else []
            job.wish = "pause"
        else:
            job.end("paused", "paused")

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "paused")
        legal = job.state == "paused" or (job.state == "running" and job.wish == "pause")
        if not self.agree(legal, self.jobs.resume, job_id):
            return
        if job.state == "running":
            job.wish = ""
            job.events.append("wish")
        else:
            job.end("queued", "resumed")
            job.queued, job.skipped = self.clock.now, 0

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id, job = self.pick(data, "failed", "cancelled")
        full = len(self.model.open(job.owner, "queued", "paused")) >= SETTINGS.waiting_cap
        if job.state in ("failed", "cancelled") and full:
            with pytest.raises(LimitReached):
                self.jobs.retry(job_id)
        elif self.agree(job.state in ("failed", "cancelled"), self.jobs.retry, job_id):
            job.end("queued", "retry")
            job.queued, job.attempts, job.skipped = self.clock.now, 0, 0

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def set_priority(self, data: st.DataObject, priority: int) -> None:
        job_id, job = self.pick(data, "queued", "paused")
        if self.agree(job.state in ("queued", "paused", "running"), self.jobs.set_priority, job_id, priority):
            job.priority = priority
            job.events.append("priority")

    @rule(worker=st.sampled_from(WORKERS))
    def worker_dies(self, worker: str) -> None:
        lost = [job_id for job_id, job in self.model.jobs.items() if job.worker == worker]
        assert [job.id for job in self.jobs.reclaim(worker)] == lost
        for job_id in lost:
            self.model.lose(self.model.jobs[job_id])

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        rows = self.jobs.list(limit=1000)
        assert len(rows) == len(self.model.jobs)
        for row in rows:
            job = self.model.jobs[row.id]
            assert (row.state, row.wish, row.attempts, row.worker, row.priority) == (
                job.state,
                job.wish,
                job.attempts,
                job.worker,
                job.priority,
            )

    @invariant()
    def the_counters_of_every_owner_are_true(self) -> None:
        with self.db.read() as connection:
            for row in connection.execute("SELECT * FROM owner"):
                counted = [len(self.model.open(row["owner"], state)) for state in ("queued", "paused", "running")]
                assert [row["waiting"], row["paused"], row["running"]] == counted

    def teardown(self) -> None:
        for job_id, job in self.model.jobs.items():
            events = self.jobs.events(job_id)
            assert [event.seq for event in events] == list(range(1, len(job.events) + 1))
            assert [event.kind for event in events] == job.events


QueueMachine.TestCase.settings = hypothesis_settings(
    max_examples=1000,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,  # the same thousand sequences everywhere: a red test stays red until it is mended
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestQueue = QueueMachine.TestCase
