"""What only local processes have: leftovers of a dead server, restarts with growing pauses, two devices."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studio.executors.local import PREFIX, START_S, LocalExecutor, Seat
from studio.requests import submit
from studio.services import open_services
from studio.settings import Settings
from tests.waiting import until

SLEEPER = "import threading; print('here', flush=True); threading.Event().wait()"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", devices=("cpu",), engines=("tests.quick_engine",), grace=0.5, poll=0.05, heartbeat=0.2
    )


def sleeper(*names: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, *names], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def test_what_a_dead_server_left_is_ended_and_its_jobs_are_taken_back(settings: Settings):
    services = open_services(settings)
    names = {"leftover": f"{PREFIX}cpu-1", "reused": f"{PREFIX}cpu-2", "own": "own-cpu-3"}
    leftover, reused, own = sleeper(names["leftover"]), sleeper("another program"), sleeper(names["own"])
    try:
        jobs = {}
        for process, name in ((leftover, names["leftover"]), (reused, names["reused"]), (own, names["own"])):
            services.jobs.worker_seen(name, "cpu", {}, [], process.pid)
            services.jobs.submit("quick_engine", {"steps": 1}, owner=name)
            jobs[name] = services.jobs.claim(name, "cpu").id
        executor = LocalExecutor(settings)
        executor.start()
        for name in (names["leftover"], names["reused"]):
            until(lambda name=name: services.jobs.get(jobs[name]).state == "succeeded")
        executor.stop(5.0)
        assert not psutil.pid_exists(leftover.pid)
        assert reused.poll() is None, "a process that only has the old number is not ours to end"
        assert own.poll() is None
        assert services.jobs.get(jobs[names["own"]]).worker == names["own"]
    finally:
        for process in (leftover, reused, own):
            process.kill()
            process.communicate()


def test_a_worker_that_cannot_start_is_tried_again_after_growing_pauses(settings: Settings):
    executor = LocalExecutor(settings, program=(sys.executable, "-c", "raise SystemExit(3)"))
    executor.start()
    (seat,) = until(lambda: executor._seats)
    until(lambda: seat.young_deaths >= 3)
    pauses = []
    executor.stop(1.0)
    for _ in range(8):
        executor._launch(seat)
        assert seat.ended.wait(60)
        executor._bury(seat)
        pauses.append(seat.due - seat.started)
    assert pauses[0] > 1.0
    assert pauses[-1] >= 30.0
    assert max(pauses) < 120.0
    assert executor.alive() == []


def test_a_worker_that_starts_slowly_has_more_time_at_every_try(settings: Settings):
    executor, seat = LocalExecutor(settings, program=(sys.executable, "-c", SLEEPER)), Seat("cpu")
    executor._seats = [seat]
    times = []
    for _ in range(5):
        executor._launch(seat)
        waited = START_S / 2
        while not executor._silent():
            waited *= 2
            seat.started = seat.signed = time.monotonic() - waited
        times.append(waited / START_S)
        executor._end([seat], 0.0)
        executor._bury(seat, of_age=True)
    assert times == [1, 2, 4, 8, 8], "on a machine so crowded that it takes minutes, it starts in the end"
    executor.stop(1.0)


def test_every_device_has_a_worker_and_a_share_of_the_cores(settings: Settings):
    executor = LocalExecutor(settings.replace(devices=("cpu", "cpu:1")))
    executor.start()
    jobs = open_services(settings).jobs
    until(lambda: len(jobs.workers()) == 2)
    assert sorted(row.device for row in jobs.workers()) == ["cpu", "cpu:1"]
    assert len({worker.pid for worker in executor.alive()}) == 2
    executor.stop(10.0)
    assert executor.alive() == []
    assert jobs.workers() == []


def test_stopping_what_never_started_is_nothing(settings: Settings):
    executor = LocalExecutor(settings)
    executor.stop(1.0)
    executor.wake()
    executor.interrupt("nobody")


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_kills_no_worker_and_spares_none(settings: Settings, tmp_path: Path, jump: float):
    offset = [0.0]
    executor = LocalExecutor(settings.replace(lease=0.5, heartbeat=0.1), clock=lambda: time.time() + offset[0])
    services = open_services(settings, executor=executor)
    calm = submit(services, "quick_engine", {"barrier": str(tmp_path / "go")}, owner="anna")
    executor.start()
    until(lambda: services.jobs.get(calm.id).state == "running")
    worker = services.jobs.get(calm.id).worker
    offset[0] = jump
    turns = executor._turn
    seen = []
    executor._turn = lambda: (turns(), seen.append(1))  # type: ignore[method-assign]
    until(lambda: len(seen) > 2)
    (tmp_path / "go").touch()
    until(lambda: services.jobs.get(calm.id).state == "succeeded")
    assert [row.id for row in services.jobs.workers()] == [worker]
    deaf = submit(services, "quick_engine", {"barrier": str(tmp_path / "never"), "deaf": True}, owner="anna")
    until(lambda: services.jobs.get(deaf.id).state == "running")
    services.jobs.cancel(deaf.id)
    until(lambda: services.jobs.get(deaf.id).state == "cancelled")
    executor.stop(1.0)
