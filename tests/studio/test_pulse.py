"""The pulse: who has lost the lease, what the owner wishes, and how long a broken store is forgiven."""

from __future__ import annotations

import pytest

from studio.errors import Conflict, NotFound, StoreUnavailable
from studio.pulse import Pulse
from tests.studio.conftest import FakeClock
from tests.waiting import until


class Line:
    """A store that answers what it is told to."""

    def __init__(self) -> None:
        self.answer: str | Exception = ""
        self.beats = 0

    def heartbeat(self, job: str, worker: str) -> str:
        self.beats += 1
        return self.wish(job, worker)

    def wish(self, job: str, worker: str) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def pulse(line: Line, clock: FakeClock) -> Pulse:
    return Pulse(
        line,  # type: ignore[arg-type]
        "w",
        heartbeat=0.02,
        look=0.01,
        lease=30.0,
        clock=clock,
        publish=lambda: None,
    )


def test_without_a_job_nothing_beats(clock: FakeClock):
    line = Line()
    pulse(line, clock).beat()
    assert line.beats == 0


def test_a_wish_is_heard_and_remembered(clock: FakeClock):
    line = Line()
    heart = pulse(line, clock)
    heart.attach("j")
    line.answer = "pause"
    heart.beat()
    line.answer = ""
    heart.beat()
    assert (heart.wish, heart.heard, heart.lost) == ("", "pause", False)
    heart.attach("k")
    assert heart.heard == ""


@pytest.mark.parametrize("refusal", [Conflict("gone"), NotFound("gone")])
def test_a_refused_beat_is_a_lost_lease(clock: FakeClock, refusal: Exception):
    line = Line()
    heart = pulse(line, clock)
    heart.attach("j")
    line.answer = refusal
    heart.beat()
    assert heart.lost
    line.answer = ""
    heart.beat()
    assert (heart.lost, line.beats) == (True, 1), "what is lost stays lost"


def test_a_broken_store_is_forgiven_for_one_lease(clock: FakeClock):
    line = Line()
    heart = pulse(line, clock)
    heart.attach("j")
    line.answer = StoreUnavailable("full")
    clock.advance(29.0)
    heart.beat()
    assert not heart.lost
    clock.advance(1.0)
    heart.beat()
    assert heart.lost


def test_the_thread_hears_by_itself(clock: FakeClock):
    line = Line()
    heart = pulse(line, clock)
    heart.start()
    heart.attach("j")
    line.answer = "cancel"
    until(lambda: heart.wish == "cancel")
    heart.detach()
    heart.end()


def test_a_stop_leaves_time_and_a_second_one_none(clock: FakeClock):
    heart = pulse(Line(), clock)
    assert heart.grace_left <= 0
    heart.stop(10.0)
    assert heart.stopping.is_set()
    assert heart.grace_left == 10.0
    heart.stop(10.0)
    assert heart.grace_left == 0.0
