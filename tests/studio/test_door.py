"""The door: forms that only their reader can send, sessions that end at once, and the gate that asks everybody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from studio.door import TRIES_PER_MINUTE, local_address
from studio.identity import COOKIE, SESSION_COOKIE
from tests.studio.conftest import FakeClock
from tests.studio.site import ENGINE, Site
from tests.studio.test_accounts import PASSWORD

PAGE = {"accept": "text/html"}


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Site:
    made = Site(tmp_path / "home", clock)
    made.services.accounts.add("ada", PASSWORD)
    return made


def form_of(visitor: TestClient) -> str:
    page = visitor.get("/account", headers=PAGE)
    assert page.status_code == 200
    return re.findall(r'name="form" value="([^"]+)"', page.text)[0]


def log_in(visitor: TestClient, name: str = "ada", password: str = PASSWORD, **more: str) -> Any:
    fields = {"form": form_of(visitor), "name": name, "password": password, **more}
    return visitor.post("/account/login", data=fields)


def who(visitor: TestClient) -> Any:
    return visitor.get("/account/state").json()["name"]


def test_logging_in_and_out(site: Site):
    visitor = site.visitor()
    assert who(visitor) is None
    answer = log_in(visitor)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs"
    line = answer.headers["set-cookie"]
    assert all(word in line for word in (SESSION_COOKIE, "HttpOnly", "SameSite=Lax", "Path=/"))
    assert who(visitor) == "ada"
    assert "ada" in visitor.get("/account", headers=PAGE).text
    before = visitor.cookies[SESSION_COOKIE]
    out = visitor.post("/account/logout", data={"form": form_of(visitor)})
    assert out.headers["clear-site-data"] == '"cache"'
    assert who(visitor) is None
    visitor.cookies.set(SESSION_COOKIE, before)
    assert who(visitor) is None, "the session has ended on the server too"


def test_jobs_of_the_browser_come_along_or_stay(site: Site):
    bringing, leaving = site.visitor(), site.visitor()
    brought, left = site.submit(bringing)["id"], site.submit(leaving)["id"]
    assert "(1 job)" in re.sub(r"\s+", " ", bringing.get("/account", headers=PAGE).text).replace("( 1", "(1")
    log_in(bringing, bring="yes")
    log_in(leaving)
    listed = {job["id"] for job in leaving.get("/api/jobs").json()["jobs"]}
    assert listed == {brought}, "both are ada now"
    leaving.post("/account/logout", data={"form": form_of(leaving)})
    assert [job["id"] for job in leaving.get("/api/jobs").json()["jobs"]] == [left]


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong password"), ("nobody", PASSWORD), ("", ""), ("<b>", "\x00"), ("a" * 9999, "b")],
)
def test_a_wrong_login_is_one_and_the_same_sentence(site: Site, name: str, password: str):
    visitor = site.visitor()
    answer = log_in(visitor, name, password)
    assert answer.status_code == 403
    assert "The name or the password is wrong." in answer.text
    assert "<b>" not in answer.text
    assert who(visitor) is None


def test_a_form_belongs_to_its_reader_and_grows_old(site: Site, clock: FakeClock):
    ada, eve = site.visitor(), site.visitor()
    fields = {"name": "ada", "password": PASSWORD}
    for form in ("", "x", form_of(eve), form_of(eve)[:-1]):
        answer = ada.post("/account/login", data={**fields, "form": form})
        assert answer.status_code == 422
        assert "reload the page" in answer.text
    assert ada.post("/account/login", json={**fields, "form": form_of(ada)}).status_code == 422
    assert ada.post("/account/login", data=fields, headers={"origin": "http://evil"}).status_code == 403
    assert who(ada) is None
    log_in(ada)
    assert ada.post("/account/logout", data={"form": form_of(eve)}).status_code == 422
    assert who(ada) == "ada"


def test_guessing_is_slowed_by_name_and_by_address(site: Site, clock: FakeClock):
    visitor = site.visitor()
    codes = [log_in(visitor, password="wrong password").status_code for _ in range(TRIES_PER_MINUTE + 1)]
    assert codes == [403] * TRIES_PER_MINUTE + [429]
    assert log_in(site.visitor(client=("10.0.0.9", 1))).status_code == 429, "the name waits, from wherever"
    assert log_in(site.visitor(), name="bob").status_code == 429, "and so does the address, for any name"
    clock.advance(60)
    assert log_in(visitor).status_code == 303


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("/ultraimage?job=j1", "/ultraimage?job=j1"),
        ("//evil.example", ""),
        ("/\\evil.example", ""),
        ("https://evil.example", ""),
        ("javascript:alert(1)", ""),
        ("/a\r\nset-cookie: x=1", ""),
        ("/ä", ""),
        ("", ""),
    ],
)
def test_nobody_is_sent_elsewhere(site: Site, given: str, taken: str):
    assert local_address(given) == taken
    assert log_in(site.visitor(), next=given).headers["location"] == (taken or "/jobs")


def test_a_wrong_password_does_not_lose_the_way(site: Site):
    visitor = site.visitor()
    page = log_in(visitor, password="wrong password", next="/ultraimage?job=j1").text
    assert 'name="next" value="/ultraimage?job=j1"' in page


def test_a_new_password_ends_all_other_sessions(site: Site):
    here, there = site.visitor(), site.visitor()
    log_in(here)
    log_in(there)
    wrong = here.post("/account/password", data={"form": form_of(here), "old": "wrong one", "new": "another one"})
    assert wrong.status_code == 403
    short = here.post("/account/password", data={"form": form_of(here), "old": PASSWORD, "new": "short"})
    assert short.status_code == 422
    right = here.post("/account/password", data={"form": form_of(here), "old": PASSWORD, "new": "another one"})
    assert right.status_code == 303
    assert (who(here), who(there)) == ("ada", None)
    assert log_in(there).status_code == 403
    assert log_in(there, password="another one").status_code == 303


def test_somebody_without_an_account_changes_no_password(site: Site):
    visitor = site.visitor()
    fields = {"form": form_of(visitor), "old": "x", "new": "another one", "name": "ada"}
    assert visitor.post("/account/password", data=fields).status_code == 409


def test_a_server_without_accounts_says_so(tmp_path: Path, clock: FakeClock):
    visitor = Site(tmp_path, clock).visitor()
    page = visitor.get("/account", headers=PAGE)
    assert "There are no accounts on this server" in page.text
    assert visitor.get("/account/state").json() == {"name": None, "login": False}
    assert visitor.get("/account/nothing").status_code == 404
    assert visitor.get("/account/back").status_code == 404


def test_the_page_runs_no_script_and_is_never_kept(site: Site):
    answer = site.visitor().get("/account", headers=PAGE)
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "form-action 'self'" in policy
    assert answer.headers["cache-control"] == "no-store"


# -- the gate -------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path, clock: FakeClock) -> Site:
    made = Site(tmp_path / "closed", clock, login="required")
    made.services.accounts.add("ada", PASSWORD)
    return made


def test_the_gate_lets_only_those_in_who_have_logged_in(closed: Site):
    visitor = closed.visitor()
    for path in ("/api/jobs", "/api/engines", "/gradio_api/info", "/config", "/files/" + "0" * 64):
        assert visitor.get(path).status_code == 401, path
    assert visitor.post("/api/jobs", json={"engine": ENGINE}).status_code == 401
    page = visitor.get("/ultraimage?job=j1", headers=PAGE)
    assert page.status_code == 303
    assert page.headers["location"] == "/account?next=%2Fultraimage%3Fjob%3Dj1"
    assert log_in(visitor).status_code == 303
    assert visitor.get("/api/jobs").status_code == 200


def test_links_open_through_the_gate(closed: Site):
    ada = closed.visitor()
    log_in(ada)
    job_id, kept = closed.finished(ada)
    token, guest = closed.share(ada, job_id), closed.visitor()
    assert guest.get(f"/r/{token}", headers=PAGE).status_code == 200
    assert guest.get(f"/files/{kept['plain.png']}?t={token}").status_code == 200
    assert guest.get(f"/files/{kept['plain.png']}?t=x").status_code == 404
    assert guest.get(f"/files/{kept['plain.png']}").status_code == 401
    assert guest.get("/healthz").json() == {"status": "degraded"}


def test_a_removed_account_is_out_at_once(closed: Site):
    ada = closed.visitor()
    log_in(ada)
    closed.services.accounts.remove("ada")
    assert ada.get("/api/jobs").status_code == 401


def test_the_stream_of_a_job_ends_with_the_session(site: Site):
    ada = site.visitor()
    log_in(ada)
    job = site.submit(ada)["id"]
    site.services.accounts.end(ada.cookies[SESSION_COOKIE])
    answer = ada.get(f"/api/jobs/{job}/events", headers={"accept": "text/event-stream"})
    assert answer.status_code == 404
    assert COOKIE in ada.cookies
