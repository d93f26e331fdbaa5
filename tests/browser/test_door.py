"""Logging in and out as a person does it, on a wide screen and on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NAME, PASSWORD, Watch


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_jobs_come_along_into_the_account(visit: Callable[..., Page], watch: Watch, width: int, scheme: str):
    watch.allowed.append(r"403")  # of the wrong password
    page = visit(width=width, scheme=scheme)
    page.goto("/about")
    page.get_by_role("link", name="Log in").click()
    job = page.request.post("/api/jobs", data={"engine": "quick_engine", "params": {"prompt": f"wide {width}"}})
    assert job.status == 201
    page.reload()
    expect(page.get_by_role("checkbox")).to_be_checked()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("The name or the password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    page.get_by_role("button", name="Log in").click()

    page.wait_for_url("**/about*")
    account = page.get_by_role("link", name=f"Account: {NAME}")
    expect(account).to_be_visible()
    page.goto("/jobs")
    expect(page.get_by_text(f"wide {width}").first).to_be_visible()

    account.click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    listed = page.request.get("/api/jobs").json()["jobs"]
    assert listed == [], "what came along stays with the account"
