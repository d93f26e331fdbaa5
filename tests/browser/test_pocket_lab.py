"""The Pocket lab: words it does not know, input that cannot work, and a picture beside the world's, sent on."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS, Watch
from tests.browser.steps import job_in, overflow, ready, run, state

UNFOLD = "document.querySelectorAll('button.label-wrap:not(.open)').forEach((fold) => fold.click())"


def open_lab(page: Page, prompt: str) -> None:
    page.goto("/text2image")
    page.locator("#field-prompt textarea").fill(prompt)


def test_unknown_words_are_named_while_typing_with_the_vocabulary_a_click_away(page: Page):
    open_lab(page, "a red dragon, side view")
    strange = page.locator("#unknown-words [role=status]")
    expect(strange).to_have_text("Not known to the pocket model: dragon")
    known = page.locator("#vocabulary details")
    expect(known.get_by_text("snowman")).not_to_be_visible()
    known.locator("summary").click()
    expect(known.get_by_text("snowman")).to_be_visible()
    run(page)
    expect(page.locator("#error-prompt")).to_contain_text("dragon")
    assert "job=" not in page.url
    page.locator("#field-prompt textarea").fill("a red car, side view")
    expect(strange).to_have_count(0)
    ready(page)


def test_input_that_cannot_work_is_refused_at_its_field(page: Page, watch: Watch):
    open_lab(page, "  ")
    run(page)
    expect(page.locator("#error-prompt [role=alert]")).to_be_visible()
    for field, value in (("prompt", ""), ("steps", 0), ("guidance", 1000)):
        asked = {"engine": "text2image", "params": {"prompt": "a red car", field: value}}
        answer = page.request.post("/api/jobs", data=asked)
        assert 400 <= answer.status < 500
        assert answer.json()["error"]["field"] == field
    watch.allowed.append("422")  # a slider that was typed past its end
    page.locator("#field-prompt textarea").fill("a red car")
    page.evaluate(UNFOLD)
    for field, typed in (("steps", "0"), ("guidance", "1000")):
        number = page.locator(f"#field-{field} input[type=number]").first
        number.fill(typed)
        number.press("Tab")
        expect(number).not_to_have_value(typed)  # it springs back into its range


def test_a_picture_stands_beside_the_worlds_and_can_be_sent_on(page: Page, watch: Watch):
    open_lab(page, "a red car, side view")
    page.evaluate(UNFOLD)
    page.locator("#field-steps input[type=number]").first.fill("2")
    page.locator("#field-steps input[type=number]").first.press("Tab")
    ready(page)
    run(page)
    expect(state(page)).to_have_text("finished", timeout=5 * PATIENCE_MS)  # torch and the model are loaded first
    names = {file["name"] for file in page.request.get(f"/api/jobs/{job_in(page)}").json()["outputs"]}
    assert names >= {"picture-0.png", "world-0.png", "layers-0.png", "nearest-picture-0.png", "nearest-world-0.png"}
    expect(page.get_by_text("Nearest training picture").first).to_be_visible()
    page.get_by_label("Send picture-0.png to another method").click()
    expect(page.locator("details.send[open]").get_by_role("link", name="Quick", exact=True)).to_be_visible()
    page.set_viewport_size({"width": 360, "height": 800})
    assert overflow(page) <= 0
