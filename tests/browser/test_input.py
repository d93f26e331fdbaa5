"""Bad input at its field with nothing lost, settings from files, and a submission by keyboard alone."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.steps import fill, finished, open_quick, run, unfold


def test_a_refusal_stands_at_its_field_and_nothing_is_lost(page: Page):
    open_quick(page)
    fill(page, prompt="x" * 101, seed=77, model="mine")
    expect(page.locator("#estimate")).to_contain_text("longer than 100 characters")
    run(page)
    fault = page.locator("#error-prompt [role=alert]")
    expect(fault).to_contain_text("The prompt is longer than 100 characters. Shorten it.")
    expect(page.locator(".field-error")).to_have_count(1)
    expect(page.locator("#field-prompt textarea")).to_be_focused()
    expect(page.locator("#field-prompt textarea")).to_have_value("x" * 101)
    expect(page.locator("#field-model textarea, #field-model input").first).to_have_value("mine")
    assert "job=" not in page.url
    fill(page, prompt="short")
    run(page)
    finished(page)
    expect(page.locator(".field-error")).to_have_count(0)


def test_what_is_no_number_is_said_at_its_field(page: Page):
    open_quick(page)
    fill(page, seed="seven")
    run(page)
    expect(page.locator("#error-seed")).to_contain_text("Seed cannot be 'seven'.")
    fill(page, seed="0", prompt="a\x00b")
    run(page)
    finished(page)  # this engine takes any text


def test_too_large_is_refused_with_the_largest_that_fits(page: Page):
    open_quick(page)
    fill(page, size=256)
    expect(page.locator("#estimate")).to_contain_text("The largest that fits is")
    run(page)
    expect(page.locator("#error-size")).to_contain_text("The largest that fits is")


def test_a_long_prompt_in_ultraimage(page: Page):
    page.goto("/ultraimage")
    expect(page.locator("#estimate")).to_contain_text("The prompt is empty")
    run(page)
    expect(page.locator("#error-prompt")).to_contain_text("Say what the picture should show.")
    page.locator("#field-prompt textarea").fill("ring " * 20_000)
    run(page)
    expect(page.locator("#error-prompt")).to_contain_text("100,000 characters")


def test_a_refusal_inside_a_fold_unfolds_it(page: Page):
    page.goto("/ultraimage")
    expect(page.locator("#estimate")).to_contain_text("The prompt is empty")
    fill(page, prompt="a red ring")
    expect(page.locator("#estimate")).to_contain_text("About")
    unfold(page, "Exact size, scenario and sampling")
    fill(page, width=100)
    page.get_by_role("button", name="Exact size, scenario and sampling").click()
    expect(page.locator("#field-width")).to_be_hidden()
    run(page)
    expect(page.locator("#error-height")).to_contain_text("The height is missing.")
    expect(page.locator("#field-width textarea, #field-width input").first).to_have_value("100")


def test_settings_come_back_from_a_result_and_a_manifest(page: Page, tmp_path: Path):
    open_quick(page)
    fill(page, prompt="a result", seed=2**60, steps=3)
    page.get_by_label("plain").check()
    run(page)
    finished(page)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download method-").click()
    result = tmp_path / "result.png"
    saved.value.save_as(result)
    manifest = tmp_path / "manifest.json"
    page.get_by_text("Settings", exact=True).click()
    address = page.get_by_role("link", name="Manifest").get_attribute("href")
    manifest.write_bytes(page.request.get(str(address)).body())
    for file in (result, manifest):
        open_quick(page)
        page.get_by_role("button", name="Settings from file").click()
        page.locator("#settings input[type=file]").set_input_files(file)
        expect(page.locator("#error-settings_file")).to_contain_text(
            f"The settings of {file.name} are in the fields."
        )
        expect(page.locator("#field-prompt textarea")).to_have_value("a result")
        expect(page.locator("#field-seed textarea, #field-seed input").first).to_have_value(str(2**60))
        expect(page.locator("#field-steps input[type=number]")).to_have_value("3")
        expect(page.get_by_label("plain")).to_be_checked()


def test_a_file_without_settings_changes_nothing(page: Page, tmp_path: Path):
    open_quick(page)
    fill(page, prompt="typed by hand")
    page.get_by_role("button", name="Settings from file").click()
    cases = {
        "corrupt.png": (b"\x89PNG\r\n\x1a\n broken", "corrupt.png"),
        "other.json": (json.dumps({"engine": "ultraimage", "params": {"prompt": "x"}}).encode(), "not by Quick"),
        "wrong.json": (json.dumps({"engine": "quick_engine", "params": {"steps": 0}}).encode(), "Steps cannot be 0"),
        "empty.txt": (b"hello", "empty.txt"),
    }
    fault = page.locator("#error-settings_file [role=alert]")
    for name, (data, _) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        page.locator("#settings input[type=file]").set_input_files(path)
        expect(fault).to_be_visible()
        expect(page.locator("#field-prompt textarea")).to_have_value("typed by hand")


def test_with_the_keyboard_alone(page: Page):
    open_quick(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.locator("#field-prompt textarea").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("typed without a mouse")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "submit":
            break
    expect(page.locator("#submit")).to_be_focused()
    outline = page.locator("#submit").evaluate("button => getComputedStyle(button).outlineStyle")
    assert outline == "solid", "the focus can be seen"
    page.keyboard.press("Enter")
    finished(page)
    expect(page.locator(".job-prompt")).to_have_text("typed without a mouse")
