"""What every executor must do, written once: `test_contract` runs it over all of them.

Each test gets a `place`: a store of its own, and an executor of the kind under test with fast heartbeats.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from studio.executors.base import Executor
from studio.jobs import Event, Job
from studio.requests import submit
from studio.services import Services, open_services
from studio.settings import Settings
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Place:
    """A store with an executor of one kind; `make` builds one."""

    settings: Settings
    make: Callable[[Settings], Executor]
    folder: Path
    executor: Executor = field(init=False)
    services: Services = field(init=False)
    started: bool = False

    def __post_init__(self) -> None:
        self.executor = self.make(self.settings)
        self.services = open_services(self.settings, executor=self.executor)

    def start(self) -> Place:
        self.executor.start()
        self.started = True
        return self

    def submit(self, owner: str = "anna", token: str | None = None, priority: int = 0, **values: Any) -> str:
        return submit(self.services, "quick_engine", values, owner=owner, token=token, priority=priority).id

    def job(self, job_id: str) -> Job:
        return self.services.jobs.get(job_id)

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.events(job_id)]

    def events(self, job_id: str) -> list[Event]:
        return self.services.jobs.events(job_id)

    def ended(self, job_id: str) -> Job:
        return until(lambda: (job := self.job(job_id)).state in ENDED and job)

    def running(self, job_id: str) -> Job:
        return until(lambda: (job := self.job(job_id)).state == "running" and job)

    def at_step(self, job_id: str, step: int) -> Job:
        """The running job once it has kept a checkpoint of `step`."""
        until(lambda: [e for e in self.events(job_id) if e.kind == "checkpoint" and e.payload["step"] >= step])
        return self.job(job_id)

    def bytes_of(self, job_id: str) -> list[bytes]:
        return [self.services.artifacts.path(o.sha).read_bytes() for o in self.services.artifacts.outputs(job_id)]

    def barrier(self, name: str = "go") -> Path:
        return self.folder / name

    def trace(self, name: str = "trace") -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        if self.started:
            self.executor.stop(5.0)
        self.services.close()


def test_a_job_runs_to_its_result(place: Place):
    job = place.start().ended(place.submit(steps=3, seed=5))
    assert (job.state, job.attempts, job.plan, job.error) == ("succeeded", 1, "fast", None)
    assert [o.name for o in place.services.artifacts.outputs(job.id)] == ["method-5.png"]
    assert place.services.artifacts.manifest(job.id)["files"][0]["name"] == "method-5.png"


def test_jobs_of_one_owner_run_by_priority_then_age(place: Place):
    for seed, priority in ((1, 0), (2, 0), (3, 5)):
        place.submit(seed=seed, steps=1, priority=priority, trace=str(place.folder / "trace"))
    place.start()
    until(lambda: len(place.trace()) == 3)
    assert [line.split()[0] for line in place.trace()] == ["3", "1", "2"]


def test_owners_take_turns(place: Place):
    trace = str(place.folder / "trace")
    for seed in range(10, 14):
        place.submit(owner="greedy", seed=seed, steps=1, trace=trace)
    place.submit(owner="modest", seed=99, steps=1, trace=trace)
    place.start()
    until(lambda: len(place.trace()) == 5)
    assert [line.split()[0] for line in place.trace()].index("99") <= 1


def test_a_job_whose_models_are_warm_goes_first(place: Place):
    trace = str(place.folder / "trace")
    warm = place.submit(seed=1, steps=1, model="red", trace=trace, barrier=str(place.barrier()))
    place.start().running(warm)
    for seed, model in ((2, "blue"), (3, "red")):
        place.submit(seed=seed, steps=1, model=model, trace=trace)
    place.barrier().touch()
    until(lambda: len(place.trace()) == 3)
    assert [line.split()[0] for line in place.trace()] == ["1", "3", "2"]


def test_the_same_token_is_the_same_job(place: Place):
    first, second = (place.submit(seed=seed, token="once", steps=1) for seed in (1, 2))
    assert first == second
    assert place.start().ended(first).params["seed"] == 1
    assert len(place.services.jobs.list()) == 1


def test_a_waiting_job_is_cancelled_without_running(place: Place):
    job_id = place.submit(trace=str(place.folder / "trace"))
    place.services.jobs.cancel(job_id)
    last = place.start().submit(steps=1)
    place.ended(last)
    assert place.job(job_id).state == "cancelled"
    assert place.trace() == []


def test_a_running_job_stops_at_its_next_step(place: Place):
    job_id = place.start().submit(barrier=str(place.barrier()), hold_at=2)
    before = place.at_step(job_id, 2)
    place.services.jobs.cancel(job_id)
    place.executor.interrupt(job_id)
    assert place.ended(job_id).state == "cancelled"
    assert place.ended(place.submit(steps=1)).state == "succeeded"
    assert place.executor.alive()[0].worker == before.worker, "a job that stops by itself costs no worker"


def test_a_hanging_job_is_killed_after_the_grace_time(place: Place):
    job_id = place.start().submit(fault="hang", fault_at=1)
    place.at_step(job_id, 1)
    pid = place.executor.alive()[0].pid
    place.services.jobs.cancel(job_id)
    assert place.ended(job_id).state == "cancelled"
    assert not _lives(pid), "cancelled only once the process is dead"
    assert place.ended(place.submit(steps=1)).state == "succeeded"


def test_a_worker_whose_interpreter_is_seized_is_replaced(place: Place):
    job_id = place.start().submit(fault="seize", fault_at=1)
    place.at_step(job_id, 1)
    pid = place.executor.alive()[0].pid
    job = place.ended(job_id)
    assert job.error["code"] == "worker_died"
    assert job.attempts == place.settings.max_attempts
    assert not _lives(pid)


def test_a_pause_keeps_the_checkpoint_and_costs_no_attempt(place: Place):
    trace = str(place.folder / "trace")
    job_id = place.start().submit(steps=4, barrier=str(place.barrier()), hold_at=2, trace=trace)
    place.at_step(job_id, 2)
    place.services.jobs.pause(job_id)
    until(lambda: place.job(job_id).state == "paused")
    place.barrier().touch()
    place.services.jobs.resume(job_id)
    assert place.ended(job_id).attempts == 1
    assert [line.split()[2] for line in place.trace()] == ["0", "1", "2", "3"]


def test_a_paused_queue_hands_out_nothing(place: Place):
    place.services.jobs.pause_queue()
    job_id = place.start().submit(steps=1)
    until(place.services.jobs.workers)
    assert place.job(job_id).state == "queued"
    place.services.jobs.resume_queue()
    assert place.ended(job_id).state == "succeeded"


def test_progress_comes_in_order_and_ends_at_the_end(place: Place):
    job_id = place.start().submit(steps=30, seed=3, size=64)
    place.ended(job_id)
    events = place.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    steps = [event.payload["step"] for event in events if event.kind == "progress"]
    assert steps == sorted(steps)
    assert steps[-1] == 30
    assert place.kinds(job_id)[0] == "submitted"
    assert place.kinds(job_id)[-1] == "succeeded"


def test_a_killed_worker_is_replaced_and_the_job_goes_on(place: Place):
    undisturbed = place.start().submit(steps=6, seed=8)
    place.ended(undisturbed)
    trace = str(place.folder / "trace")
    job_id = place.submit(steps=6, seed=8, barrier=str(place.barrier()), hold_at=3, trace=trace)
    place.at_step(job_id, 3)
    os.kill(place.executor.alive()[0].pid, signal.SIGKILL)
    place.barrier().touch()
    job = place.ended(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert [line.split()[2] for line in place.trace()] == ["0", "1", "2", "3", "4", "5"]
    assert _pixels(place, job_id) == _pixels(place, undisturbed)


def test_a_job_that_kills_its_workers_fails_in_the_end(place: Place):
    job = place.start().ended(place.submit(fault="die"))
    assert (job.state, job.attempts) == ("failed", place.settings.max_attempts)
    assert f"{place.settings.max_attempts} times" in job.error["message"]
    assert place.ended(place.submit(steps=1)).state == "succeeded"


def test_a_frozen_worker_loses_its_job_and_cannot_write(place: Place):
    job_id = place.start().submit(steps=6, barrier=str(place.barrier()), hold_at=3)
    place.at_step(job_id, 3)
    frozen = place.executor.alive()[0].pid
    os.kill(frozen, signal.SIGSTOP)
    # Somebody else's claim takes the job over as soon as its lease has run out.
    until(lambda: place.services.jobs.claim("rescuer", "cpu"))
    os.kill(frozen, signal.SIGCONT)
    place.barrier().touch()
    until(lambda: place.services.jobs.heartbeat(job_id, "rescuer") == "" and _idle(place))
    assert place.job(job_id).worker == "rescuer"
    assert place.services.artifacts.outputs(job_id) == []
    place.services.jobs.release(job_id, "rescuer")
    assert place.ended(job_id).state == "succeeded"


def test_a_stop_gives_the_job_back_without_counting_the_attempt(place: Place):
    job_id = place.start().submit(steps=6, barrier=str(place.barrier()), hold_at=3)
    place.at_step(job_id, 3)
    pids = [worker.pid for worker in place.executor.alive()]
    place.executor.stop(20.0)
    place.started = False
    job = place.job(job_id)
    assert (job.state, job.attempts) == ("queued", 0)
    assert not any(_lives(pid) for pid in pids)
    assert place.services.jobs.workers() == []


def test_a_killed_server_takes_its_workers_along_and_its_jobs_go_on(place: Place):
    server = _server(place)
    job_id = place.submit(steps=6, seed=8, barrier=str(place.barrier()), hold_at=3)
    place.at_step(job_id, 3)
    pid = place.services.jobs.workers()[0].pid
    server.kill()
    server.wait()
    until(lambda: not _lives(pid))
    place.barrier().touch()
    place.start()
    job = place.ended(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)


def test_errors_become_sentences(place: Place):
    place.start()
    failed = place.ended(place.submit(fault="raise")).error
    assert failed["code"] == "engine_failed"
    assert "secret" not in str(failed)
    assert place.ended(place.submit(fault="refuse")).error["field"] == "prompt"


def _server(place: Place) -> subprocess.Popen[bytes]:
    """A server of the house without pages, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "studio", "worker", "--all"],
        cwd=ROOT,
        env=place.settings.child_environ(),
        stdout=subprocess.DEVNULL,
    )


def _idle(place: Place) -> bool:
    """Whether the workers have nothing at hand: a job of their own runs through."""
    probe = place.submit(owner="probe", steps=1)
    return place.ended(probe).state == "succeeded"


def _pixels(place: Place, job_id: str) -> list[bytes]:
    from io import BytesIO

    from PIL import Image

    return [Image.open(BytesIO(data)).tobytes() for data in place.bytes_of(job_id)]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
