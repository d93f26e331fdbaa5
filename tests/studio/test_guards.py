"""What is refused before any route sees it: floods, other sites' pages, and the framework's doors to elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.errors import LimitReached
from studio.guards import Guard, RateLimiter, foreign_origin
from tests.studio.conftest import FakeClock
from tests.studio.site import Site


def test_the_limit_is_per_key_and_refills(clock: FakeClock):
    limiter = RateLimiter(3, clock)
    for _ in range(3):
        limiter.take("ada")
    with pytest.raises(LimitReached) as refused:
        limiter.take("ada")
    assert "20 s" in refused.value.remedy
    limiter.take("grace")
    clock.advance(20)
    limiter.take("ada")
    with pytest.raises(LimitReached):
        limiter.take("ada")


def test_a_clock_that_goes_back_gives_nothing_away(clock: FakeClock):
    limiter = RateLimiter(1, clock)
    limiter.take("ada")
    clock.advance(-1000)
    with pytest.raises(LimitReached):
        limiter.take("ada")


def test_the_limiter_forgets_the_oldest_keys(clock: FakeClock):
    limiter = RateLimiter(1, clock, keys=2)
    for key in ("a", "b", "c"):
        limiter.take(key)
    limiter.take("a")
    with pytest.raises(LimitReached):
        limiter.take("c")


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "a:1"}, False),
        ({"host": "a:1", "origin": "http://a:1"}, False),
        ({"host": "a:1", "origin": "http://a:2"}, True),
        ({"host": "a:1", "origin": "http://evil"}, True),
        ({"host": "a:1", "origin": "null"}, True),
        ({"host": "inner:1", "x-forwarded-host": "a", "origin": "https://a"}, False),
        ({"host": "a:1", "sec-fetch-site": "cross-site"}, True),
        ({"host": "a:1", "sec-fetch-site": "same-origin", "origin": "http://a:1"}, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[str, str], foreign: bool):
    assert foreign_origin(Headers(headers)) is foreign


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://127.0.0.1/x",
        "/gradio_api/file=HTTPS://example.org/x",
        "/gradio_api/file=%68ttp://example.org/x",
        "/gradio_api/file=//example.org/x",
        "/gradio_api/proxy=https://example.org",
        "/file=http://example.org/x",
        "/gradio_api/vibe-edit/",
    ],
)
def test_doors_to_elsewhere_are_closed(tmp_path: Path, clock: FakeClock, path: str):
    answer = Site(tmp_path, clock).visitor().get(path)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


def test_another_sites_page_changes_nothing(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock)
    ada = site.visitor()
    job = site.submit(ada)
    path = f"/api/jobs/{job['id']}/cancel"
    assert ada.post(path, headers={"origin": "http://evil"}).status_code == 403
    assert ada.get(f"/api/jobs/{job['id']}").json()["state"] == "queued"
    assert ada.post(path, headers={"origin": "http://testserver"}).status_code == 200


def test_a_flood_is_refused_with_the_wait(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, rate_per_minute=2)
    ada = site.visitor()
    ada.get("/api/jobs")
    for _ in range(2):
        assert ada.post("/api/estimate", json={"engine": "quick_engine"}).status_code == 200
    refused = ada.post("/api/estimate", json={"engine": "quick_engine"})
    assert refused.status_code == 429
    assert "30 s" in refused.json()["error"]["remedy"]
    assert ada.get("/api/jobs").status_code == 200, "reading goes on"


def test_leaving_the_cookie_behind_does_not_help_a_flood(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, rate_per_minute=2)
    answers = [site.visitor().post("/api/estimate", json={"engine": "quick_engine"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_new_cookies_are_no_new_allowance(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, rate_per_minute=2)
    codes = []
    for _ in range(12):
        visitor = site.visitor()
        visitor.get("/api/jobs")  # brings a cookie
        codes.append(visitor.post("/api/estimate", json={"engine": "quick_engine"}).status_code)
    assert codes == [200] * 10 + [429] * 2, "five times one owner's, from one address"


def test_a_space_is_framed_by_the_hub_and_nobody_else_frames(clock: FakeClock):
    for framed_by, ancestors in (((), "'self'"), (("https://hub.example",), "'self' https://hub.example")):
        app = Starlette(routes=[Route("/", lambda request: HTMLResponse("page"))])
        limiter = RateLimiter(9, clock)
        app.add_middleware(Guard, limiter=limiter, addresses=limiter, framed_by=framed_by)
        policy = TestClient(app).get("/").headers["content-security-policy"]
        assert policy.endswith(f"frame-ancestors {ancestors}")


def test_a_file_somebody_brought_never_acts_as_a_page(clock: FakeClock):
    app = Starlette(routes=[Route("/gradio_api/file={path:path}", lambda request: HTMLResponse("<script>"))])
    app.add_middleware(Guard, limiter=RateLimiter(9, clock), addresses=RateLimiter(9, clock))
    headers = TestClient(app).get("/gradio_api/file=/tmp/x.html").headers
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"


def test_every_answer_says_that_types_are_meant(tmp_path: Path, clock: FakeClock):
    answer = Site(tmp_path, clock).visitor().get("/api/engines")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
