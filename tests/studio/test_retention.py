"""The sweeper: it sweeps at once and again, survives a failing store, and ends when told."""

from __future__ import annotations

import queue
import threading

from studio.errors import StoreUnavailable
from studio.retention import Sweeper
from tests.studio.conftest import FakeClock
from tests.waiting import until


def test_it_sweeps_at_once_and_again_and_a_failure_does_not_end_it():
    turns: queue.Queue[int] = queue.Queue()
    count = iter(range(1_000_000))

    def sweep() -> dict[str, int]:
        turn = next(count)
        turns.put(turn)
        if turn == 0:
            raise StoreUnavailable("The disk is full.", "Free some space.")
        return {"jobs": turn}

    sweeper = Sweeper(sweep, pause_s=0.0)
    sweeper.start()
    assert [turns.get(timeout=30) for _ in range(3)] == [0, 1, 2]
    sweeper.stop()
    assert "sweeper" not in {thread.name for thread in threading.enumerate()}


def test_stopping_does_not_wait_for_the_pause():
    swept = threading.Event()

    def sweep() -> dict[str, int]:
        swept.set()
        return {}

    sweeper = Sweeper(sweep, pause_s=3600.0)
    sweeper.start()
    assert swept.wait(30)
    stopper = threading.Thread(target=sweeper.stop)
    stopper.start()
    stopper.join(30)
    assert not stopper.is_alive()


def test_one_that_never_started_can_be_stopped():
    Sweeper(dict).stop()


def test_a_clock_that_jumped_deletes_nothing():
    turns: queue.Queue[int] = queue.Queue()
    clock = FakeClock()
    sweeper = Sweeper(lambda: turns.put(1) or {}, pause_s=0.0, clock=clock, steady=FakeClock())
    sweeper._watch.settled()
    clock.advance(60 * 86_400.0)
    assert not sweeper._watch.settled()
    sweeper.start()
    until(lambda: sweeper._thread.is_alive())
    sweeper.stop()
    assert turns.empty()
