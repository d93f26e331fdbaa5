"""Files, share links, result pages and failures, as a browser and as a program see them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from studio.web import describe
from tests.studio.conftest import FakeClock
from tests.studio.results import add_output
from tests.studio.site import Site

PAGE = {"accept": "text/html"}


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Site:
    return Site(tmp_path / "home", clock)


def test_health_says_little_to_strangers(site: Site):
    assert site.visitor().get("/healthz").json() == {"status": "degraded"}


@pytest.mark.parametrize("name", ["css/a%00.css", "css/%2e%2e/pocket/x", "secret/x", "css/../../app.py", "css/"])
def test_an_asset_that_is_none_is_a_sentence(site: Site, name: str):
    answer = site.visitor().get(f"/atelier/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_served_byte_for_byte(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    for sha in kept.values():
        answer = ada.get(f"/files/{sha}")
        assert answer.status_code == 200
        assert answer.content == site.stored(sha)
        assert hashlib.sha256(answer.content).hexdigest() == sha
        assert answer.headers["content-type"] == "image/png"
        assert "content-disposition" not in answer.headers


def test_a_file_says_how_it_may_be_used(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    headers = ada.get(f"/files/{kept['method.png']}").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert headers["etag"] == f'"{kept["method.png"]}"'
    assert headers["cache-control"] == "private, no-cache"
    assert headers["accept-ranges"] == "bytes"


def test_parts_of_a_file(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    sha = kept["method.png"]
    whole = site.stored(sha)
    part = ada.get(f"/files/{sha}", headers={"range": "bytes=3-9"})
    assert part.status_code == 206
    assert part.content == whole[3:10]
    assert part.headers["content-range"] == f"bytes 3-9/{len(whole)}"
    assert ada.get(f"/files/{sha}", headers={"range": "bytes=-4"}).content == whole[-4:]
    assert ada.get(f"/files/{sha}", headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    stale = ada.get(f"/files/{sha}", headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert stale.content == whole


def test_head_tells_the_size_and_sends_nothing(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    answer = ada.head(f"/files/{kept['plain.png']}")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(site.stored(kept["plain.png"]))


def test_an_unchanged_file_is_not_sent_again(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    sha = kept["plain.png"]
    answer = ada.get(f"/files/{sha}", headers={"if-none-match": f'"{sha}"'})
    assert answer.status_code == 304
    assert answer.content == b""


def test_a_download_keeps_its_name_and_is_saved(site: Site):
    ada = site.visitor()
    _, kept = site.finished(ada)
    answer = ada.get(f"/files/{kept['plain.png']}", params={"download": "../a b\r\n.png"})
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "/" not in answer.headers["content-disposition"].split("filename")[1].replace("utf-8''", "")
    assert answer.content == site.stored(kept["plain.png"])


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/json", "application/pdf"])
def test_what_could_act_as_a_page_is_saved_not_shown(site: Site, media_type: str):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    sha = site.services.artifacts.put(b"<script>alert(1)</script>", media_type=media_type)
    add_output(site.services.artifacts, job_id, "x", "data", sha, {})
    answer = ada.get(f"/files/{sha}")
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("sha", ["0" * 64, "nonsense", "..%2f..%2fsecret", "A" * 64, "0" * 63])
def test_an_unknown_file_is_a_sentence(site: Site, sha: str):
    answer = site.visitor().get(f"/files/{sha}")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("There is no")


def test_somebody_elses_file_looks_like_none(site: Site):
    _, kept = site.finished(site.visitor())
    stranger = site.visitor()
    theirs, none = (stranger.get(f"/files/{sha}") for sha in (kept["plain.png"], "0" * 64))
    assert theirs.status_code == none.status_code == 404
    assert theirs.json() == none.json()


# -- share links ----------------------------------------------------------------------------------------------------


def test_a_link_shows_the_result_to_anybody(site: Site):
    ada, stranger = site.visitor(), site.visitor()
    job_id, kept = site.finished(ada, prompt="a red ring")
    token = site.share(ada, job_id)
    page = stranger.get(f"/r/{token}", headers=PAGE)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert "a red ring" in page.text
    assert job_id not in page.text
    assert f"/quick_engine?settings={token}" in page.text
    for sha in kept.values():
        assert stranger.get(f"/files/{sha}", params={"t": token}).content == site.stored(sha)
    assert stranger.get(f"/r/{token}/manifest").json()["params"]["prompt"] == "a red ring"
    assert stranger.get(f"/r/{token}/state").json()["id"] is None


def test_the_page_compares_method_and_baseline(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    text = site.visitor().get(f"/r/{site.share(ada, job_id)}", headers=PAGE).text
    assert text.index('data-label="The baseline"') < text.index('data-label="The method"')
    assert "<atelier-compare>" in text
    assert "<td>120</td>" in text
    assert '<td class="best">121<span class="only-spoken"> (best)</span></td>' in text
    assert "data-post" not in text, "a guest changes nothing"


def test_a_revoked_link_is_a_page_with_a_sentence(site: Site):
    ada = site.visitor()
    job_id, kept = site.finished(ada)
    token = site.share(ada, job_id)
    assert ada.delete(f"/api/shares/{token}").status_code == 204
    gone = site.visitor().get(f"/r/{token}", headers=PAGE)
    assert gone.status_code == 404
    assert "revoked" in gone.text
    assert gone.headers["content-type"].startswith("text/html")
    for path in (f"/r/{token}/state", f"/r/{token}/manifest", f"/r/{token}/panel"):
        assert site.visitor().get(path).status_code == 404
    assert site.visitor().get(f"/files/{kept['plain.png']}", params={"t": token}).status_code == 404
    assert ada.get(f"/files/{kept['plain.png']}").status_code == 200


def test_a_link_opens_nothing_but_its_job(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    theirs = site.work(site.submit(ada, prompt="another")["id"], colour=7)
    token = site.share(ada, job_id)
    assert site.visitor().get(f"/files/{theirs['plain.png']}", params={"t": token}).status_code == 404


def test_a_link_to_an_unfinished_job_shows_progress(site: Site):
    ada = site.visitor()
    job = site.submit(ada)
    token = site.share(ada, job["id"])
    waiting = site.visitor().get(f"/r/{token}", headers=PAGE)
    assert "<progress" in waiting.text
    assert 'http-equiv="refresh"' in waiting.text
    claimed = site.services.jobs.claim("w1", "cpu")
    assert claimed is not None
    site.services.jobs.progress(job["id"], "w1", {"step": 1, "total": 4, "message": "Step 1 of 4", "preview": 3})
    site.services.artifacts.save_preview(job["id"], 3, b"\x89PNG preview")
    running = site.visitor().get(f"/r/{token}", headers=PAGE).text
    assert 'value="0.25"' in running
    assert "Step 1 of 4" in running
    assert site.visitor().get(f"/r/{token}/previews/3").content == b"\x89PNG preview"
    assert site.visitor().get(f"/r/{token}/previews/9").status_code == 204


def test_what_was_typed_is_text_on_the_page(site: Site):
    ada = site.visitor()
    evil = "<script>alert(1)</script>\"'>{{7*7}}"
    job_id, _ = site.finished(ada, prompt=evil)
    for page in (
        site.visitor().get(f"/r/{site.share(ada, job_id)}", headers=PAGE),
        ada.get(f"/api/jobs/{job_id}/panel"),
        ada.get("/api/lists/jobs"),
        ada.get("/api/lists/gallery"),
    ):
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "{{7*7}}" in page.text
        assert "script-src 'self';" in page.headers["content-security-policy"]


# -- pieces and assets ----------------------------------------------------------------------------------------------


def test_the_owners_panel_offers_what_the_state_allows(site: Site):
    ada = site.visitor()
    job = site.submit(ada)
    text = ada.get(f"/api/jobs/{job['id']}/panel").text
    assert "/cancel" in text
    assert "/pause" in text
    assert "/again" not in text
    ada.post(f"/api/jobs/{job['id']}/cancel")
    text = ada.get(f"/api/jobs/{job['id']}/panel").text
    assert "/retry" in text
    assert "/again" in text
    assert "/pause" not in text
    assert site.visitor().get(f"/api/jobs/{job['id']}/panel").status_code == 404


def test_results_are_sent_to_methods_that_take_them_by_their_owner_only(site: Site):
    ada = site.visitor()
    job_id, kept = site.finished(ada)
    to_quick = f'href="/quick_engine?send={kept["method.png"]}&amp;name=method.png&amp;field=files"'
    assert to_quick in ada.get(f"/api/jobs/{job_id}/panel").text
    assert "send=" not in site.visitor().get(f"/r/{site.share(ada, job_id)}", headers=PAGE).text


def test_a_failed_job_says_why_and_what_to_do(site: Site):
    ada = site.visitor()
    job = site.submit(ada)
    site.services.jobs.claim("w1", "cpu")
    error = {"code": "x", "message": "It broke.", "remedy": "Mend it.", "field": None}
    site.services.jobs.fail(job["id"], "w1", error)
    text = ada.get(f"/api/jobs/{job['id']}/panel").text
    assert "It broke." in text
    assert "Mend it." in text
    assert 'role="alert"' in text


def test_lists_hold_my_jobs_only_and_can_be_searched(site: Site):
    ada, grace = site.visitor(), site.visitor()
    site.finished(ada, prompt="a red ring")
    site.submit(ada, prompt="a blue star")
    assert "a red ring" in ada.get("/api/lists/jobs").text
    assert "a blue star" not in ada.get("/api/lists/gallery").text
    found = ada.get("/api/lists/jobs", params={"q": "blue"}).text
    assert "a blue star" in found
    assert "a red ring" not in found
    assert "No job matches" in ada.get("/api/lists/jobs", params={"engine": "other"}).text
    assert "No jobs yet" in grace.get("/api/lists/jobs").text
    assert ada.get("/api/lists/nonsense").status_code == 404


@pytest.mark.parametrize(
    "path", ["/atelier/css/tokens.css", "/atelier/css/atelier.css", "/atelier/viewers/compare.js"]
)
def test_assets_are_served(site: Site, path: str):
    assert site.visitor().get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/atelier/css/../../README.md", "/atelier/css/%2e%2e/%2e%2e/README.md", "/atelier/pocket/x", "/atelier/css"],
)
def test_assets_are_all_that_is_served_there(site: Site, path: str):
    assert site.visitor().get(path).status_code == 404


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/nothing", "/api/jobs/none", "/r/none", "/files/none", "/atelier/none"])
def test_unknown_addresses_are_sentences(site: Site, path: str):
    answer = site.visitor().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith(".")


def test_people_get_a_page_programs_json(site: Site):
    assert site.visitor().get("/r/none", headers=PAGE).headers["content-type"].startswith("text/html")
    assert site.visitor().get("/r/none").headers["content-type"] == "application/json"
    assert site.visitor().get("/anything", headers=PAGE).text.count("There is no such page") == 2


def test_a_failure_nobody_foresaw_is_a_sentence_here_and_a_trace_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(site.services.jobs), "workers", broken)
    with caplog.at_level(logging.ERROR):
        answer = site.visitor().get("/healthz")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["error"]["remedy"]
    assert "secret detail" in caplog.text


def test_the_api_describes_itself_without_naming_other_hosts(site: Site):
    schema = describe(site.app)
    assert schema == site.visitor().get("/api/openapi.json").json()
    assert "/api/jobs/{job_id}/cancel" in schema["paths"]
    assert "/files/{sha}" not in schema["paths"]
    assert "ErrorEnvelope" in schema["components"]["schemas"]
    for path, methods in schema["paths"].items():
        for method in methods.values():
            assert method["summary"], path
            assert "404" in method["responses"], path
    for path in ("/docs", "/redoc"):
        assert site.visitor().get(path).status_code == 404


def test_a_revoked_link_stops_at_once_with_all_its_parts(site: Site):
    ada = site.visitor()
    job_id, kept = site.finished(ada)
    token, guest = site.share(ada, job_id), site.visitor()
    parts = [f"/r/{token}", f"/r/{token}/panel", f"/r/{token}/state", f"/r/{token}/manifest"]
    files = [f"/files/{sha}?t={token}" for sha in kept.values()]
    for path in parts:
        answer = guest.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "no-store", f"{path}: no cache keeps what may be revoked"
    validators = {path: guest.get(path).headers["etag"] for path in files}
    for path in files:
        assert guest.get(path).headers["cache-control"] == "private, no-cache"
    assert ada.delete(f"/api/shares/{token}").status_code == 204
    for path in parts + files:
        assert guest.get(path).status_code == 404, path
    for path, validator in validators.items():
        again = guest.get(path, headers={"if-none-match": validator})
        assert again.status_code == 404, "a cached copy is not confirmed any more"


def test_only_the_whole_token_opens(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    token, guest = site.share(ada, job_id), site.visitor()
    assert len(token) * 6 >= 128
    for wrong in (token[:-1], token[:8], token[:1], token + "A", token.swapcase(), token[:-1] + "%", "_" * 32, "%"):
        assert guest.get(f"/r/{wrong}").status_code == 404, wrong


def test_what_the_api_answers_is_kept_by_no_cache(site: Site):
    ada = site.visitor()
    job_id, _ = site.finished(ada)
    for path in ("/api/jobs", f"/api/jobs/{job_id}", f"/api/jobs/{job_id}/manifest", "/api/lists/jobs", "/account"):
        assert ada.get(path).headers["cache-control"] == "no-store", path
