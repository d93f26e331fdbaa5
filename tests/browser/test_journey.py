"""From the home page to a link that a friend opens; reload, closed tab, second browser; with a real worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.steps import fill, finished, held_quick, job_in, open_quick, ready, run, share, state

Visit = Callable[..., Page]


def test_from_home_to_a_link_that_a_friend_opens(page: Page, visit: Visit):
    page.goto("/")
    page.get_by_role("link", name="Open Quick").click()
    ready(page)
    fill(page, prompt="a red ring", seed=5)
    page.get_by_label("plain").check()
    run(page)
    finished(page)
    expect(page.locator(".metrics tbody tr")).to_have_count(1)
    link = share(page)

    friend = visit()
    friend.goto(link)
    expect(friend.get_by_text("a red ring").first).to_be_visible()
    shown = friend.locator("atelier-compare .layer img").first
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 16

    for place in (page, friend):  # the bytes that are shown are the bytes that are stored
        for image in place.locator("atelier-compare .layer img").all():
            address = str(image.evaluate("image => image.src"))
            answer = place.request.get(address)
            assert answer.headers["content-type"] == "image/png"
            assert hashlib.sha256(answer.body()).hexdigest() in address

    with friend.expect_download() as saved:
        friend.get_by_role("link", name="Download method-5.png").click()
    assert saved.value.suggested_filename == "method-5.png"
    data = Path(saved.value.path()).read_bytes()
    address = friend.get_by_role("link", name="Download method").get_attribute("href")
    assert hashlib.sha256(data).hexdigest() in str(address)

    friend.get_by_role("link", name="Open with these settings").click()
    expect(friend.locator("#field-prompt textarea")).to_have_value("a red ring")
    expect(friend.locator("#field-seed textarea, #field-seed input").first).to_have_value("5")
    expect(friend.get_by_label("plain")).to_be_checked()


def test_a_revoked_link_leads_nowhere(page: Page, visit: Visit, watch: Watch):
    open_quick(page)
    run(page)
    finished(page)
    link = share(page)
    friend = visit()
    friend.goto(link)
    expect(friend.locator("atelier-compare")).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("button", name="Share", exact=True)).to_be_visible()
    watch.allowed.append("404")
    friend.reload()
    expect(friend.get_by_role("heading")).to_contain_text("revoked")


def test_reload_in_mid_job_goes_on_watching(page: Page, gate: Path):
    job = held_quick(page, gate, prompt="held", steps=6)
    page.reload()
    expect(state(page)).to_have_text("running")
    assert job_in(page) == job
    expect(page.locator("#field-prompt textarea")).to_have_value("held")
    expect(page.locator("#field-steps input[type=number]")).to_have_value("6")
    expect(page.locator("[data-part=preview]")).to_be_visible()
    gate.touch()
    finished(page)


def test_a_closed_tab_stops_nothing(page: Page, visit: Visit, gate: Path):
    held_quick(page, gate)
    address, context = page.url, page.context
    page.close()
    gate.touch()
    again = visit(context)
    again.goto(address)
    finished(again)


def test_a_second_browser_needs_the_link(page: Page, visit: Visit, watch: Watch, gate: Path):
    held_quick(page, gate)
    link = share(page, "Continue on another device")
    watch.allowed.append("404")
    stranger = visit()
    stranger.goto(page.url)
    expect(stranger.locator("atelier-job [role=alert]")).to_contain_text("There is no job")
    stranger.goto(link)
    expect(state(stranger)).to_have_text("running")
    expect(stranger.get_by_role("progressbar")).to_have_js_property("value", 0.25)
    expect(stranger.get_by_role("button", name="Cancel")).to_have_count(0)
    gate.touch()
    finished(stranger)
    expect(stranger.get_by_role("link", name="Download method-0.png")).to_be_visible()
    finished(page)


def test_without_scripts_the_link_still_shows_everything(page: Page, visit: Visit, gate: Path):
    held_quick(page, gate)
    link = share(page, "Continue on another device")
    plain = visit(java_script_enabled=False)
    plain.goto(link)
    expect(plain.get_by_text("Step 1")).to_be_visible()
    gate.touch()
    finished(page)
    plain.reload()
    expect(plain.locator("atelier-compare img")).to_be_visible()
    expect(plain.locator(".metrics")).to_be_visible()


def test_pause_resume_cancel_and_try_again(page: Page, gate: Path):
    job = held_quick(page, gate, steps=6)
    page.get_by_role("button", name="Pause").click()
    expect(state(page)).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("[data-part=message]")).to_have_text("Step 1")
    page.get_by_role("button", name="Cancel").click()
    expect(state(page)).to_have_text("cancelled")
    gate.touch()
    page.get_by_role("button", name="Try again").click()
    finished(page)
    assert job_in(page) == job
    page.get_by_role("button", name="Run again").click()
    page.wait_for_function("job => !location.search.includes(job)", arg=job)
    finished(page)


def test_waiting_jobs_say_their_place_and_can_be_moved(page: Page, gate: Path):
    held_quick(page, gate)
    fill(page, seed=1)
    run(page)
    expect(page.locator("[data-part=message]")).to_contain_text("Next in line")
    first = job_in(page)
    fill(page, seed=2)
    run(page)
    expect(page.locator("[data-part=message]")).to_contain_text("1 job ahead")
    page.wait_for_function("job => !location.search.includes(job)", arg=first)
    page.get_by_label("Priority").select_option("high")
    expect(page.locator("[data-part=message]")).to_contain_text("Next in line")


def test_a_double_click_is_one_job(page: Page):
    open_quick(page)
    fill(page, prompt="twice")
    page.locator("#submit").dblclick()
    finished(page)
    found = page.request.get("/api/jobs", params={"q": "twice"}).json()["jobs"]
    assert len(found) == 1


def test_a_failed_job_says_why(page: Page):
    open_quick(page)
    page.locator("#field-fault input").click()
    page.get_by_role("option", name="refuse").click()
    run(page)
    expect(state(page)).to_have_text("failed")
    alert = page.locator("atelier-job .notice-error[role=alert]").first
    expect(alert).to_contain_text("Nobody can draw that.")
    expect(alert).to_contain_text("Ask for something else.")


def test_my_jobs_and_my_gallery(page: Page, visit: Visit, gate: Path):
    open_quick(page)
    fill(page, prompt="a blue star")
    run(page)
    finished(page)
    held_quick(page, gate, prompt="a held one")
    page.goto("/jobs")
    rows = page.locator(".job-row")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("Step 1")
    page.get_by_role("button", name="Cancel: a held one").click()
    expect(rows.nth(0).locator(".badge")).to_have_text("cancelled")
    page.get_by_role("searchbox").fill("blue")
    expect(rows).to_have_count(1)
    page.goto("/gallery")
    page.get_by_role("link", name="a blue star").click()
    finished(page)
    expect(page.locator("#field-prompt textarea")).to_have_value("a blue star")
    stranger = visit()
    stranger.goto("/jobs")
    expect(stranger.get_by_text("No jobs yet")).to_be_visible()
