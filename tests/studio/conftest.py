"""A store of its own for every test, with a clock that only moves when told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.artifacts import Artifacts
from studio.db import Database
from studio.jobs import Jobs
from studio.settings import Settings

CHEAP = {"n": 2, "r": 8, "p": 1}  # a scrypt that costs nothing


class FakeClock:
    """Seconds that pass only by `advance`."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", lease=30.0, max_attempts=3, waiting_cap=100, running_cap=4)


@pytest.fixture
def db(settings: Settings, clock: FakeClock) -> Iterator[Database]:
    database = Database(settings.home / "atelier.db", clock=clock, durable=False)
    yield database
    database.close()


@pytest.fixture
def jobs(db: Database, clock: FakeClock, settings: Settings) -> Jobs:
    return Jobs(db, clock=clock, settings=settings)


@pytest.fixture
def artifacts(db: Database, clock: FakeClock, settings: Settings) -> Artifacts:
    return Artifacts(settings.home, db, clock)
