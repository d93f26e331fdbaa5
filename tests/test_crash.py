"""kill -9 of a worker in mid-job, and of server and worker together: the job ends with the bytes of a quiet run.

Real processes throughout: the server as a user starts it, its workers, and the quick engine or the pocket model.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.jobs import Job
from studio.requests import submit
from studio.services import Services, open_services
from studio.settings import Settings
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[1]
POCKET = {"prompt": "a red ring under a pale sky", "scale": 1.25, "steps": 6, "methods": ["ultraimage"], "seed": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {"quick": ("quick_engine", {"steps": 8, "seed": 3, "hold_at": 4})}
if (ROOT / "assets" / "pocket" / "ultraimage").is_dir():
    CASES["pocket"] = ("ultraimage", POCKET)


# As a user starts it, and one that keeps workers but has no pages, which starts in a fifth of the time.
SERVERS = {
    "pages": (("app.py", "--port", "0"), "Atelier is at"),
    "plain": (("-m", "benchmarks.crash_house", "0"), "Serving"),
}
KINDS = {"quick": "plain", "pocket": "pages"}


@dataclass
class House:
    """One store and the servers that serve it, one after the other."""

    settings: Settings
    services: Services

    @contextmanager
    def server(self, kind: str = "pages") -> Iterator[subprocess.Popen[str]]:
        """A server, once it serves."""
        command, sign = SERVERS[kind]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.settings.child_environ(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert sign in process.stdout.readline()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def submit(self, engine: str, values: dict[str, Any]) -> str:
        return submit(self.services, engine, values, owner="anna").id

    def at_checkpoint(self, job_id: str) -> Job:
        until(lambda: [e for e in self.services.jobs.events(job_id) if e.kind == "checkpoint"], 300)
        return self.services.jobs.get(job_id)

    def worker_pid(self, job: Job) -> int:
        return next(row.pid for row in self.services.jobs.workers() if row.id == job.worker)

    def ended(self, job_id: str) -> Job:
        return until(lambda: (job := self.services.jobs.get(job_id)).state in ("succeeded", "failed") and job, 300)

    def results(self, job_id: str) -> dict[str, bytes]:
        artifacts = self.services.artifacts
        return {output.name: artifacts.path(output.sha).read_bytes() for output in artifacts.outputs(job_id)}


Build = Callable[[str], House]
Quiet = Callable[[str], dict[str, bytes]]


def open_house(home: Path) -> House:
    settings = Settings(home=home, devices=("cpu",), engines=("tests.quick_engine",), heartbeat=0.5, threads=1)
    return House(settings, open_services(settings))


@pytest.fixture
def house(tmp_path: Path) -> Build:
    return lambda name: open_house(tmp_path / name)


@pytest.fixture(scope="module")
def path_of_barrier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests: it is a parameter, and so part of the results."""
    return tmp_path_factory.mktemp("barrier") / "barrier"


@pytest.fixture
def barrier(path_of_barrier: Path) -> Path:
    """A file that is not there yet; the quick engine waits for it in its middle."""
    path_of_barrier.unlink(missing_ok=True)
    return path_of_barrier


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, path_of_barrier: Path) -> Quiet:
    """The results of an undisturbed run of a case; each case is run once."""
    known: dict[str, dict[str, bytes]] = {}

    def results(case: str) -> dict[str, bytes]:
        if case not in known:
            path_of_barrier.touch()
            calm = open_house(tmp_path_factory.mktemp(case) / "quiet")
            with calm.server("plain"):
                job_id = calm.submit(*held_back(case, path_of_barrier))
                assert calm.ended(job_id).state == "succeeded"
            known[case] = calm.results(job_id)
        return known[case]

    return results


def held_back(case: str, barrier: Path) -> tuple[str, dict[str, Any]]:
    """Engine and parameters of a case; the quick engine waits for `barrier`."""
    engine, values = CASES[case]
    return engine, values | ({"barrier": str(barrier)} if case == "quick" else {})


@pytest.mark.parametrize("case", CASES)
def test_a_killed_worker(case: str, house: Build, barrier: Path, quiet: Quiet):
    shaken = house("shaken")
    with shaken.server(KINDS[case]):
        job_id = shaken.submit(*held_back(case, barrier))
        job = shaken.at_checkpoint(job_id)
        os.kill(shaken.worker_pid(job), signal.SIGKILL)
        barrier.touch()
        job = shaken.ended(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert shaken.services.artifacts.manifest(job_id)["resumed_from_step"] >= 1
    assert shaken.results(job_id) == quiet(case)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_server_with_its_worker(case: str, house: Build, barrier: Path, quiet: Quiet):
    shaken = house("shaken")
    with shaken.server(KINDS[case]) as server:
        job_id = shaken.submit(*held_back(case, barrier))
        job = shaken.at_checkpoint(job_id)
        pid = shaken.worker_pid(job)
        server.kill()
        os.kill(pid, signal.SIGKILL)
    assert shaken.services.jobs.get(job_id).state == "running", "nothing but the store remembers the job"
    barrier.touch()
    with shaken.server(KINDS[case]):
        job = shaken.ended(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert shaken.results(job_id) == quiet(case)


def test_a_killed_server_alone_leaves_no_worker_behind(house: Build, barrier: Path):
    shaken = house("shaken")
    with shaken.server("plain") as server:
        job_id = shaken.submit(*held_back("quick", barrier))
        pid = shaken.worker_pid(shaken.at_checkpoint(job_id))
        server.kill()
        until(lambda: not psutil.pid_exists(pid))
    barrier.touch()
    with shaken.server("plain"):
        assert shaken.ended(job_id).state == "succeeded"


def test_an_orderly_stop_costs_no_attempt(house: Build, barrier: Path):
    calm = house("calm")
    with calm.server():
        job_id = calm.submit(*held_back("quick", barrier))
        calm.at_checkpoint(job_id)
    job = calm.services.jobs.get(job_id)
    assert (job.state, job.attempts) == ("queued", 0)
    barrier.touch()
    with calm.server():
        assert calm.ended(job_id).attempts == 1


def test_a_second_server_is_refused_with_a_sentence(house: Build):
    first = house("one")
    with first.server():
        second = subprocess.run(
            [sys.executable, "app.py", "--port", "0", "--home", str(first.settings.home)],
            cwd=ROOT,
            env=first.settings.child_environ(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert second.returncode == 1
    assert "Another Atelier is using" in second.stderr
    assert "Traceback" not in second.stderr
