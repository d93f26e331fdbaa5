"""A short run of the stopping harness: every kind of job is stopped, and the device goes on."""

from __future__ import annotations

from benchmarks.stopping import KINDS, measure, table


def test_every_kind_of_job_is_stopped():
    stops = measure(trials=1, grace=0.3, seed=1)
    assert [stop.kind for stop in stops] == list(KINDS)
    assert all(stop.free >= stop.dead for stop in stops)
    assert all(stop.dead >= 0.25 for stop in stops if "fault" in KINDS[stop.kind]), "not before the grace is over"
    assert len(table(stops, 0.3).splitlines()) == 1 + len(KINDS)
