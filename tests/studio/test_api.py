"""The API as a program uses it: submit, watch, change, fetch, upload; and what it refuses, with the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.studio.conftest import FakeClock
from tests.studio.site import ENGINE, Site, png


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Site:
    return Site(tmp_path / "home", clock)


def test_engines_describe_themselves(site: Site):
    engines = {engine["name"]: engine for engine in site.visitor().get("/api/engines").json()}
    assert {"ultraimage", ENGINE} <= set(engines)
    one = site.visitor().get(f"/api/engines/{ENGINE}").json()
    assert one == engines[ENGINE]
    assert one["params"]["properties"]["steps"]["maximum"] == 1000
    assert site.visitor().get("/api/engines/none").status_code == 404


def test_a_job_from_submission_to_files(site: Site):
    ada = site.visitor()
    job = site.submit(ada, prompt="a red ring", seed=5)
    assert job["state"] == "queued"
    assert job["position"] == 0
    assert job["params"]["seed"] == 5
    kept = site.work(job["id"])
    done = ada.get(f"/api/jobs/{job['id']}").json()
    assert done["state"] == "succeeded"
    assert done["progress"]["fraction"] == 0.5
    assert [item["role"] for item in done["outputs"]] == ["baseline", "method"]
    assert {item["sha256"] for item in done["outputs"]} == set(kept.values())
    assert ada.get(done["outputs"][0]["url"]).content == site.stored(kept["plain.png"])
    artifacts = ada.get(f"/api/jobs/{job['id']}/artifacts").json()
    assert artifacts["outputs"] == done["outputs"]
    assert ada.get(done["manifest"]).json()["engine"] == ENGINE


def test_a_manifest_comes_when_the_result_is_whole(site: Site):
    ada = site.visitor()
    job = site.submit(ada)
    assert job["manifest"] is None
    assert ada.get(f"/api/jobs/{job['id']}/manifest").status_code == 404


def test_the_same_token_is_the_same_job(site: Site):
    ada = site.visitor()
    body = {"engine": ENGINE, "token": "once"}
    first, second = (ada.post("/api/jobs", json=body).json()["id"] for _ in range(2))
    assert first == second
    assert site.visitor().post("/api/jobs", json=body).json()["id"] != first


def test_events_after_n(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    path = f"/api/jobs/{job_id}/events"
    events = ada.get(path).json()["events"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in events][:2] == ["submitted", "claimed"]
    assert ada.get(path, params={"after": 2}).json()["events"] == events[2:]
    assert ada.get(path, params={"limit": 1}).json()["events"] == events[:1]


def test_events_as_a_stream(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    answer = ada.get(f"/api/jobs/{job_id}/events", params={"after": 1}, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.strip().split("\n\n")]
    assert [block["id"] for block in told] == [str(number) for number in range(2, len(told) + 2)]
    assert told[-1]["event"] == "succeeded"
    assert json.loads(told[-1]["data"])["kind"] == "succeeded"


def test_jobs_are_listed_filtered_and_paged(site: Site):
    ada = site.visitor()
    ids = [site.submit(ada, prompt=f"a {word}")["id"] for word in ("ring", "star", "disc")]
    ada.post(f"/api/jobs/{ids[0]}/cancel")
    first = ada.get("/api/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == [ids[2], ids[1]]
    rest = ada.get("/api/jobs", params={"limit": 2, "before": first["next"]}).json()
    assert [job["id"] for job in rest["jobs"]] == [ids[0]]
    assert rest["next"] is None
    assert [job["id"] for job in ada.get("/api/jobs", params={"state": "cancelled"}).json()["jobs"]] == [ids[0]]
    assert [job["id"] for job in ada.get("/api/jobs", params={"q": "star"}).json()["jobs"]] == [ids[1]]
    assert site.visitor().get("/api/jobs").json()["jobs"] == []


def test_changes_of_a_job(site: Site):
    ada = site.visitor()
    job = site.submit(ada, steps=7)
    path = f"/api/jobs/{job['id']}"
    assert ada.post(f"{path}/pause").json()["state"] == "paused"
    assert ada.post(f"{path}/resume").json()["state"] == "queued"
    assert ada.post(f"{path}/priority", json={"priority": 3}).json()["priority"] == 3
    assert ada.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert ada.post(f"{path}/pause").status_code == 409
    assert ada.post(f"{path}/retry").json()["state"] == "queued"
    again = ada.post(f"{path}/again")
    assert again.status_code == 201
    assert again.json()["id"] != job["id"]
    assert again.json()["params"] == job["params"]


def test_somebody_elses_job_looks_like_none(site: Site):
    job_id, _ = site.finished(site.visitor())
    stranger = site.visitor()
    paths = ["", "/events", "/artifacts", "/manifest", "/previews/1", "/shares", "/panel"]
    answers = [stranger.get(f"/api/jobs/{job_id}{path}") for path in paths]
    actions = ["cancel", "stop", "pause", "resume", "retry", "again", "shares"]
    answers += [stranger.post(f"/api/jobs/{job_id}/{action}") for action in actions]
    answers.append(stranger.post(f"/api/jobs/{job_id}/priority", json={"priority": 1}))
    assert {answer.status_code for answer in answers} == {404}
    none = stranger.get("/api/jobs/" + "x" * len(job_id)).json()["error"]
    theirs = stranger.get(f"/api/jobs/{job_id}").json()["error"]
    assert theirs["message"].replace(job_id, "") == none["message"].replace("x" * len(job_id), "")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "engine"),
        ({"engine": "none"}, 404, None),
        ({"engine": ENGINE, "colour": "red"}, 422, "colour"),
        ({"engine": ENGINE, "params": {"steps": 0}}, 422, "steps"),
        ({"engine": ENGINE, "params": {"steps": "many"}}, 422, "steps"),
        ({"engine": ENGINE, "params": {"colour": "red"}}, 422, "colour"),
        ({"engine": ENGINE, "params": {"prompt": "x" * 101}}, 422, "prompt"),
        ({"engine": ENGINE, "params": {"seed": -1}}, 422, "seed"),
        ({"engine": ENGINE, "priority": 1000}, 422, "priority"),
        ({"engine": ENGINE, "priority": "soon"}, 422, "priority"),
        ({"engine": "ultraimage", "params": {"prompt": ""}}, 422, "prompt"),
        ({"engine": "ultraimage", "params": {"prompt": "x" * 100_000}}, 422, "prompt"),
        ({"engine": "ultraimage", "params": {"prompt": "a\x00b"}}, 422, "prompt"),
        ({"engine": "ultraimage", "params": {"prompt": "a ring", "width": 100, "height": 96}}, 422, "width"),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_field(site: Site, body: dict, status: int, field: str | None):
    ada = site.visitor()
    answer = ada.post("/api/jobs", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (status, field), error
    assert error["message"].endswith((".", "?"))
    assert ada.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"engine": ' + b"[" * 50_000])
def test_a_body_that_is_no_request(site: Site, content: bytes):
    answer = site.visitor().post("/api/jobs", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_input"


def test_a_cap_on_waiting_jobs(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, waiting_cap=1)
    ada = site.visitor()
    site.submit(ada)
    refused = ada.post("/api/jobs", json={"engine": ENGINE})
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "limit_reached"


def test_an_estimate_runs_nothing(site: Site):
    ada = site.visitor()
    answer = ada.post("/api/estimate", json={"engine": ENGINE, "params": {"size": 2}}).json()
    assert answer["memory_bytes"] == 4 * 2**20
    assert answer["plan"] == "fast"
    assert ada.get("/api/jobs").json()["jobs"] == []


def test_what_does_not_fit_is_refused_with_what_does(site: Site):
    answer = site.visitor().post("/api/estimate", json={"engine": ENGINE, "params": {"size": 256}})
    assert answer.status_code == 422
    assert "largest that fits" in answer.json()["error"]["remedy"]


def test_an_upload_belongs_to_its_owner(site: Site):
    ada = site.visitor()
    data = png()
    answer = ada.post("/api/uploads", content=data, params={"name": "../me.png"})
    assert answer.status_code == 201
    told = answer.json()
    assert (told["media_type"], told["width"], told["bytes"]) == ("image/png", 8, len(data))
    assert ada.get(told["url"]).content == data
    assert site.visitor().get(told["url"]).status_code == 404


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", 422), (b"nonsense", 422), (b"<html>", 422), (png()[:-9], 422), (b"\x89PNG\r\n\x1a\n", 422)],
)
def test_uploads_that_are_no_pictures(site: Site, data: bytes, status: int):
    answer = site.visitor().post("/api/uploads", content=data)
    assert answer.status_code == status
    assert answer.json()["error"]["field"] == "file"


def test_a_large_upload_is_refused_by_its_announcement_or_its_bytes(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, upload_bytes=1000)
    ada = site.visitor()
    assert ada.post("/api/uploads", content=b"x" * 1001).status_code == 413
    assert ada.post("/api/uploads", content=iter([b"x" * 600, b"x" * 600])).status_code == 413


def test_many_pixels_in_a_small_file_are_refused(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock, upload_pixels=1000)
    assert site.visitor().post("/api/uploads", content=png(side=40)).status_code == 413


def test_links_are_made_listed_and_revoked_by_their_owner(site: Site):
    ada = site.visitor()
    job = site.submit(ada)
    made = ada.post(f"/api/jobs/{job['id']}/shares")
    assert made.status_code == 201
    token = made.json()["token"]
    assert made.json()["url"] == f"/r/{token}"
    assert len(token) >= 22
    assert [share["token"] for share in ada.get(f"/api/jobs/{job['id']}/shares").json()["shares"]] == [token]
    assert site.visitor().delete(f"/api/shares/{token}").status_code == 404
    assert ada.delete(f"/api/shares/{token}").status_code == 204
    assert ada.get(f"/api/jobs/{job['id']}/shares").json()["shares"] == []


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, clock: FakeClock):
    site = Site(tmp_path, clock)
    ada = site.visitor()
    job = site.submit(ada)
    object.__setattr__(site.services.settings, "disk_reserve", 2**62)
    refused = ada.post("/api/jobs", json={"engine": ENGINE})
    assert refused.status_code == 503
    assert "disk" in refused.json()["error"]["message"]
    assert ada.post("/api/uploads", content=png()).status_code == 503
    assert ada.get(f"/api/jobs/{job['id']}").json()["state"] == "queued"
