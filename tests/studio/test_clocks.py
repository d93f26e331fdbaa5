"""Jumps of the wall clock: noticed, waited out, and told apart from time that passes."""

from __future__ import annotations

import pytest

from studio.clocks import JumpWatch
from tests.studio.conftest import FakeClock


@pytest.fixture
def steady() -> FakeClock:
    return FakeClock(50.0)


def watch(clock: FakeClock, steady: FakeClock) -> JumpWatch:
    return JumpWatch(clock, steady, tolerance_s=5.0, settle_s=30.0)


def test_time_that_passes_is_no_jump(clock: FakeClock, steady: FakeClock):
    watched = watch(clock, steady)
    for seconds in (1.0, 1000.0, 1e6):
        clock.advance(seconds)
        steady.advance(seconds)
        assert watched.settled()
    clock.advance(4.0)  # a clock that is a little off
    assert watched.settled()


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_is_waited_out(clock: FakeClock, steady: FakeClock, jump: float):
    watched = watch(clock, steady)
    clock.advance(jump)
    assert not watched.settled()
    for seconds, settled in ((29.0, False), (2.0, True)):
        clock.advance(seconds)
        steady.advance(seconds)
        assert watched.settled() is settled


def test_a_machine_that_slept_has_jumped(clock: FakeClock, steady: FakeClock):
    watched = watch(clock, steady)
    clock.advance(8 * 3600.0)
    steady.advance(1.0)
    assert not watched.settled()
