"""Seen from outside: /healthz and /metrics, who may read them, and log lines that carry their job."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from studio import health
from studio.logs import JsonLines
from tests.studio.conftest import FakeClock
from tests.studio.site import ENGINE, Site

LOCAL = {"client": ("127.0.0.1", 5)}


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Site:
    return Site(tmp_path / "home", clock, metrics_token="the-token")


def figures(visitor: TestClient, **headers: str) -> dict[tuple[str, ...], float]:
    """(name, *label values) -> value."""
    answer = visitor.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_queue_is_told(site: Site, clock: FakeClock):
    ada = site.visitor(**LOCAL)
    done, waiting = site.submit(ada)["id"], site.submit(ada)
    site.work(done)
    clock.advance(7)
    site.submit(ada)
    paused = site.submit(ada)["id"]
    ada.post(f"/api/jobs/{paused}/pause")
    told = figures(ada)
    assert told["atelier_jobs", "queued"] == 2
    assert told["atelier_jobs", "paused"] == 1
    assert told["atelier_jobs", "running"] == 0
    assert told["atelier_queue_oldest_wait_seconds",] == 7
    assert told["atelier_jobs_ended_total", ENGINE, "succeeded"] == 1
    body = ada.get("/healthz").json()
    assert body["queue"] == {
        "waiting": 2, "running": 0, "paused": 1, "oldest_wait_seconds": 7.0, "held_back": False
    }  # fmt: skip
    assert body["status"] == "degraded"
    assert body["problems"] == ["No worker is at work."]
    assert waiting["id"] not in json.dumps(body)


def test_a_higher_priority_does_not_look_like_a_longer_wait(site: Site, clock: FakeClock):
    ada = site.visitor(**LOCAL)
    ada.post("/api/jobs", json={"engine": ENGINE, "priority": 9})
    clock.advance(3)
    assert health.look(site.services).oldest_wait == pytest.approx(3)


def test_workers_and_their_models_are_told(site: Site, clock: FakeClock):
    facts = {"models": {"ram_bytes": 11, "vram_bytes": 22}}
    site.services.jobs.worker_seen("w1", "cuda:0", facts, ["a", "b"], 1)
    ada = site.visitor(**LOCAL)
    told = figures(ada)
    assert told["atelier_workers",] == 1
    assert told["atelier_models_warm", "cuda:0"] == 2
    assert told["atelier_models_bytes", "cuda:0", "vram"] == 22
    assert ada.get("/healthz").json()["status"] == "ok"
    clock.advance(61)
    assert figures(ada)["atelier_workers_missing",] == 1
    assert "not been seen" in " ".join(ada.get("/healthz").json()["problems"])


def test_counts_of_ended_jobs_outlive_the_jobs(site: Site, clock: FakeClock):
    ada = site.visitor(**LOCAL)
    job_id, _ = site.finished(ada)
    cancelled = site.submit(ada)["id"]
    ada.post(f"/api/jobs/{cancelled}/cancel")
    clock.advance(1e9)
    assert site.services.artifacts.sweep(clock(), 1.0)["jobs"] == 2
    told = figures(ada)
    assert told["atelier_jobs_ended_total", ENGINE, "succeeded"] == 1
    assert told["atelier_jobs_ended_total", ENGINE, "cancelled"] == 1


def test_requests_are_counted_under_few_names(site: Site):
    ada = site.visitor(**LOCAL)
    for path in ("/api/jobs", "/api/nothing", "/x/y/z", "/" + "a" * 300):
        ada.get(path)
    ada.request("BREW", "/api/jobs")
    told = figures(ada)
    assert told["atelier_http_requests_total", "api", "GET", "200"] == 1
    assert told["atelier_http_requests_total", "api", "GET", "404"] == 1
    assert told["atelier_http_requests_total", "page", "GET", "404"] == 2
    assert told["atelier_http_requests_total", "api", "other", "405"] == 1


def test_two_applications_count_apart(tmp_path: Path, clock: FakeClock):
    first, second = (Site(tmp_path / name, clock).visitor(**LOCAL) for name in ("a", "b"))
    first.get("/api/jobs")
    assert ("atelier_http_requests_total", "api", "GET", "200") not in figures(second)


def test_only_those_who_may_read_the_figures(site: Site):
    far, near = site.visitor(client=("10.1.2.3", 9)), site.visitor(**LOCAL)
    assert near.get("/metrics").status_code == 200
    assert near.get("/metrics", headers={"x-forwarded-for": "10.0.0.1"}).status_code == 404, "behind a proxy"
    assert far.get("/metrics").status_code == 404
    assert far.get("/healthz").json() == {"status": "degraded"}
    for token in ("", "the-toke", "the-token2", "ü"):
        assert far.get("/metrics", headers={"authorization": f"Bearer {token}".encode()}).status_code == 404
    assert far.get("/metrics", headers={"authorization": "Bearer the-token"}).status_code == 200


@pytest.mark.parametrize(("setting", "code"), [("public", 200), ("off", 404), ("local", 404)])
def test_the_setting_says_who(tmp_path: Path, clock: FakeClock, setting: str, code: int):
    visitor = Site(tmp_path, clock, metrics=setting).visitor(client=("10.1.2.3", 9))
    assert visitor.get("/metrics").status_code == code


def test_a_job_can_be_followed_through_the_log(site: Site, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    handler = logging.Handler()
    told: list[dict[str, Any]] = []
    handler.emit = lambda record: told.append(json.loads(JsonLines().format(record)))  # type: ignore[method-assign]
    logging.getLogger("atelier").addHandler(handler)
    try:
        ada = site.visitor()
        job = site.submit(ada, prompt="a secret wish")["id"]
        ada.post(f"/api/jobs/{job}/cancel")
        ada.get("/api/jobs")
    finally:
        logging.getLogger("atelier").removeHandler(handler)
    (submitted,) = [line for line in told if line["message"] == "submitted"]
    assert (submitted["job"], submitted["engine"]) == (job, ENGINE)
    answered = [line for line in told if line["message"] == "answered"]
    assert [(line["method"], line["status"], line["job"]) for line in answered] == [
        ("POST", 201, None),
        ("POST", 200, job),
    ]
    assert "secret" not in json.dumps(told)
