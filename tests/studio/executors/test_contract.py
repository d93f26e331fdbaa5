"""The executors' contract over every executor there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.studio.executors.contract")

from studio.executors.base import Executor  # noqa: E402
from studio.executors.local import LocalExecutor  # noqa: E402
from studio.settings import Settings  # noqa: E402
from tests.studio.executors.contract import *  # noqa: E402, F403
from tests.studio.executors.contract import Place  # noqa: E402

EXECUTORS: dict[str, Callable[[Settings], Executor]] = {"local": LocalExecutor}


@pytest.fixture(params=list(EXECUTORS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    settings = Settings(
        home=tmp_path / "home",
        devices=("cpu",),
        engines=("tests.quick_engine",),
        lease=1.5,
        heartbeat=0.2,
        grace=0.5,
        max_attempts=2,
        poll=0.05,
    )
    place = Place(settings, EXECUTORS[request.param], tmp_path)
    yield place
    place.close()
