"""A store, a worker and the quick engine in one process, for tests of everything between a request and its result."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.attempt import Bench
from studio.jobs import Job
from studio.requests import submit
from studio.services import Services, open_services
from studio.settings import Settings
from studio.worker import Outcome, Worker, run_job

WORKER = "tester"


@dataclass
class Shop:
    """Jobs of the quick engine, run here."""

    services: Services
    worker: Worker
    folder: Path

    @property
    def bench(self) -> Bench:
        return self.worker.bench

    def submit(self, owner: str = "anna", **values: Any) -> str:
        return submit(self.services, "quick_engine", values, owner=owner).id

    def claim(self) -> Job:
        job = self.services.jobs.claim(WORKER, "cpu")
        assert job is not None
        return job

    def work(self, **values: Any) -> tuple[Outcome, Job]:
        """Submit, claim, run; how it ended and the row afterwards."""
        job_id = self.submit(**values)
        outcome = run_job(self.claim(), self.services, self.bench)
        return outcome, self.services.jobs.get(job_id)

    def begin(self, job: Job) -> tuple[threading.Thread, list[Outcome]]:
        """Run a claimed job in a thread."""
        outcomes: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(run_job(job, self.services, self.bench)))
        thread.start()
        return thread, outcomes

    def kinds(self, job_id: str) -> list[str]:
        return [event.kind for event in self.services.jobs.events(job_id)]

    def trace(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []


def open_shop(folder: Path, **changes: Any) -> Shop:
    settings = Settings(home=folder / "home", engines=("tests.quick_engine",), heartbeat=0.1, poll=0.02)
    services = open_services(settings.replace(**changes))
    return Shop(services, Worker(services, worker=WORKER, device="cpu"), folder)
