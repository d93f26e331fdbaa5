"""A short run of the access matrix, and that the harness would see a leak and an effect if there were one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.access_matrix import Report, Route, Stage, own_call, routes_of, run, set_up, targets, try_route
from benchmarks.hostile_input import Ground
from studio.artifacts import Artifacts


@pytest.fixture(scope="module")
def stage(place: Ground) -> Stage:
    made = set_up(place.house, place.services)
    made.others = [made.others[number] for number in (0, 1, 4, 7)]  # nobody, another visitor, a forger, an account
    return made


def test_nobody_sees_or_changes_what_is_not_theirs(stage: Stage, tmp_path: Path):
    report = run(stage, stage.house.app, 0, most=2, out=tmp_path / "rows")
    assert report.leaks == []
    assert report.effects == []
    assert report.failures == []
    assert report.blind == [], "Ada herself must see her things, or the others' refusals prove nothing"
    assert report.own >= 12
    assert report.calls > 500
    again = run(stage, stage.house.app, 0, most=2, out=tmp_path / "rows")
    assert again.table() == report.table(), "what is done is not done again"


def test_every_route_is_tried(stage: Stage):
    routes = set(routes_of(stage.house.app))
    chance = random.Random(0)
    assert all(targets(stage, route, chance) for route in routes)
    known = {route.template for route in routes}
    assert {"/api/jobs/{job_id}", "/files/{sha}", "/r/{token}", "/account/login", "/metrics"} <= known
    assert "/gradio_api/file={path_or_url:path}" in known, "the pages' framework is part of it"


def test_a_route_with_unknown_parts_stops_it(stage: Stage):
    with pytest.raises(AssertionError, match="tell benchmarks/access_matrix.py"):
        targets(stage, Route("GET", "/api/secrets/{secret_id}"), random.Random(0))


def test_a_leak_would_be_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Artifacts, "may_read", lambda self, sha, owner: True)
    report = Report()
    try_route(stage, Route("GET", "/files/{sha}"), random.Random(0), report)
    assert report.leaks


def test_an_effect_would_be_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    pause = type(stage.services.jobs).pause
    monkeypatch.setattr(type(stage.services.jobs), "pause", lambda self, job, owner=None: pause(self, job))
    report = Report()
    try_route(stage, Route("POST", "/api/jobs/{job_id}/pause"), random.Random(0), report)
    assert report.effects


def test_a_blind_route_would_be_seen(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Artifacts, "may_read", lambda self, sha, owner: False)
    report = Report()
    own_call(stage, Route("GET", "/files/{sha}"), report)
    assert report.blind == ["GET /files/{sha}"]
