"""A result is sent on to a method that takes it, without an upload; somebody else's file is refused at its field."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.steps import finished, finished_job, job_in, ready, run


def test_a_result_is_sent_on_without_an_upload(page: Page):
    finished_job(page, steps=1, seed=3)
    uploads: list[str] = []
    page.on("request", lambda request: uploads.append(request.url) if "/api/uploads" in request.url else None)
    page.get_by_label("Send method-3.png to another method").click()
    sender = page.locator("details.send[open]").get_by_role("link", name="Quick", exact=True)
    address = str(sender.get_attribute("href"))
    sender.click()
    ready(page)
    expect(page.locator("atelier-files li")).to_contain_text("method-3.png")
    run(page)
    finished(page)
    (sent,) = page.request.get(f"/api/jobs/{job_in(page)}").json()["params"]["files"]
    assert sent["name"] == "method-3.png"
    assert sent["sha256"] in address
    assert "send=" not in page.url
    assert not uploads


def test_a_file_of_somebody_else_is_refused_at_its_field(page: Page, watch: Watch):
    watch.allowed.append("404")
    page.goto(f"/quick_engine?field=files&name=his.png&send={'0' * 64}")
    expect(page.locator("atelier-files li")).to_contain_text("his.png")
    run(page)
    expect(page.locator("#error-files")).to_contain_text("his.png is not here any more, or it is not yours.")
