"""Progress: throttled but never losing the last word, an honest time to go, stages by their words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.progress import EVENT_S, PREVIEW_S, Progress
from tests.studio.conftest import FakeClock


def test_events_are_throttled_and_the_last_step_always_passes(clock: FakeClock):
    progress, written = Progress(clock), []
    for step in range(101):
        payload = progress.report(step, 100, f"Step {step}")
        if progress.event_due():
            written.append(payload["step"])
            progress.written()
        clock.advance(0.05)
    assert written[0] == 0
    assert written[-1] == 100
    assert len(written) <= 5.0 / EVENT_S + 2
    assert progress.pending() is None


def test_what_was_held_back_can_still_be_written(clock: FakeClock):
    progress = Progress(clock)
    progress.report(1, 10, "a")
    progress.written()
    progress.report(2, 10, "b")
    assert not progress.event_due()
    assert progress.pending()["message"] == "b"


def test_the_time_to_go_follows_the_pace(clock: FakeClock):
    progress = Progress(clock)
    assert progress.report(0, 10, "x")["eta"] is None
    clock.advance(3.0)
    assert progress.report(2, 10, "x")["eta"] == 12.0
    assert progress.report(10, 10, "x")["eta"] == 0.0
    assert progress.report(0, 5, "another count")["eta"] is None


def test_previews_are_numbered_on_and_rare(clock: FakeClock):
    progress = Progress(clock, first_preview=5)
    progress.report(1, 10, "x")
    assert progress.preview_due()
    assert progress.next_preview() == 5
    assert progress.pending()["preview"] == 5
    clock.advance(PREVIEW_S / 2)
    assert not progress.preview_due()
    clock.advance(PREVIEW_S)
    assert progress.next_preview() == 6
    assert progress.report(2, 10, "y")["preview"] == 6


def test_a_clock_set_back_does_not_silence(clock: FakeClock):
    progress = Progress(clock)
    progress.report(1, 10, "x")
    progress.written()
    clock.advance(-1000.0)
    progress.report(2, 10, "x")
    assert progress.event_due()


def test_stages_are_runs_of_the_same_words(clock: FakeClock):
    progress = Progress(clock)
    for step, words in enumerate(["Load", "Step 1", "Step 2", "Decode"]):
        progress.report(step, 4, words)
        clock.advance(2.0)
    assert progress.stages() == [
        {"stage": "Load", "seconds": 2.0},
        {"stage": "Step #", "seconds": 4.0},
        {"stage": "Decode", "seconds": 2.0},
    ]


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), max_size=40))
def test_the_time_to_go_is_never_negative(reports: list[tuple[int, float]]):
    clock = FakeClock()
    progress = Progress(clock)
    for step, pause in reports:
        eta = progress.report(step, 50, "x")["eta"]
        assert eta is None or eta >= 0
        clock.advance(pause)
