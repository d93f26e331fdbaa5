"""RID's page on the pocket defender: photos that fail alone, faults at their fields, exact files, the laboratory."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from studio.embedded import read_provenance
from tests.browser.conftest import PATIENCE_MS, ROOT
from tests.browser.steps import fill, overflow, run, state, unfold

PEOPLE = [ROOT / "assets" / "examples" / "people" / f"{number}.png" for number in range(1, 7)]


@pytest.fixture
def form(page: Page) -> Page:
    """The tab, alive: it says what is missing."""
    page.goto("/rid")
    expect(page.locator("#estimate")).to_contain_text("There is no photo yet")
    return page


def give(form: Page, *paths: Path) -> None:
    """Drop files and wait until the server has them."""
    form.locator("atelier-files input[type=file]").set_input_files(paths)
    expect(form.locator("#estimate .estimate")).to_contain_text("About")


def downloaded(page: Page, name: str) -> bytes:
    """What the link of a result brings."""
    with page.expect_download() as saved:
        page.get_by_role("link", name=f"Download {name}").click()
    return Path(saved.value.path()).read_bytes()


def measured(page: Page, title: str) -> Locator:
    """The line of the table with a number's name."""
    return page.get_by_role("row").filter(has_text=title)


def test_photos_are_protected_and_each_fails_alone(form: Page, tmp_path: Path):
    (tmp_path / "holiday").mkdir()
    archive = tmp_path / "holiday.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.write(PEOPLE[0], "../../one.png")
        bundle.writestr("broken.png", PEOPLE[1].read_bytes()[:300])
        bundle.writestr("tiny.png", picture(1, 1))
    give(form, archive, PEOPLE[2])
    fill(form, budget=24)
    run(form)
    expect(state(form)).to_have_text("finished", timeout=2 * PATIENCE_MS)
    expect(measured(form, "Largest change").first).to_contain_text("24")
    expect(form.locator("atelier-compare .stage").first).to_be_visible()
    expect(form.locator(".job-result .notice")).to_contain_text(
        "2 of 4 files could not be used. holiday.zip/broken.png: "
    )
    choices = form.locator("atelier-compare select")
    expect(choices.nth(0)).to_have_value("holiday.zip/one.png: original")
    expect(choices.nth(1)).to_have_value("holiday.zip/one.png: protected")
    form.locator("atelier-compare").get_by_role("button", name="3.png: protected").click()
    expect(choices.nth(0)).to_have_value("3.png: original")
    protected = downloaded(form, "3.png")
    told = read_provenance(protected)
    assert told is not None
    assert told["params"]["budget"] == 24
    assert "images" not in told["params"], "what is posted does not name the owner's other files"
    apart = np.asarray(Image.open(io.BytesIO(protected)), int) - np.asarray(Image.open(PEOPLE[2]).convert("RGB"), int)
    assert 12 < np.abs(apart).max() <= 24
    difference = np.asarray(Image.open(io.BytesIO(downloaded(form, "3-difference.png"))), int)
    assert np.abs(difference - 128 - apart * 127.5 / 24).max() < 1.01, "the whole budget spans the whole range"
    with form.expect_download() as saved:
        form.get_by_role("link", name="Download everything as one zip").click()
    with zipfile.ZipFile(saved.value.path()) as bundle:
        assert {"one.png", "3.png", "3-original.png", "3-difference.png", "report.csv"} <= set(bundle.namelist())
        assert bundle.read("3.png") == protected
    report = list(csv.DictReader(downloaded(form, "report.csv").decode().splitlines()))
    assert [row["state"] for row in report] == ["protected", "refused", "refused", "protected"]
    assert all(row["why"] for row in report[1:3])
    form.set_viewport_size({"width": 360, "height": 800})
    assert overflow(form) <= 0


def test_strength_has_words_and_the_page_says_what_becomes_of_photos(form: Page):
    for word, level in (("Subtle", "6"), ("Strong", "24")):
        form.get_by_role("button", name=f"{word} ({level})", exact=True).click()
        expect(form.locator("#field-budget input[type=number]")).to_have_value(level)
    expect(form.get_by_text("Originals and results are deleted with their job")).to_be_visible()
    expect(form.get_by_text("It is no guarantee")).to_be_visible()


def picture(width: int, height: int) -> bytes:
    """A grey PNG."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()


def test_what_a_thief_cannot_do_is_said_at_its_field(form: Page):
    run(form)
    expect(form.locator("#error-images")).to_contain_text("Add one, several, or a zip archive")
    give(form, *PEOPLE[:2])
    form.get_by_label("Play the thief").check()
    run(form)
    expect(form.locator("#error-images")).to_contain_text("at least 4 pictures of one person; here are 2")
    give(form, *PEOPLE[2:4])
    unfold(form, "The thief's laboratory")
    form.get_by_label("The pictures as they are").uncheck()
    run(form)
    expect(form.locator("#error-conditions")).to_contain_text("nothing to compare with")
    form.get_by_label("The pictures as they are").check()
    form.get_by_label("RID as published").check()
    expect(form.locator("#field-budget input[type=number]")).to_have_value("6")  # what this model starts from
    fill(form, budget=12)
    run(form)
    expect(form.locator("#error-budget")).to_contain_text("up to 6")
    expect(form.locator("atelier-files li").last).to_contain_text("4.png")


def test_a_thief_at_work_is_compared(form: Page):
    form.get_by_role("button", name="six pictures of a toy person").click()
    form.get_by_label("Play the thief").check()
    unfold(form, "The thief's laboratory")
    fill(form, thief_steps=2, generated=2)
    form.get_by_label("Random noise of the same strength").uncheck()
    run(form)
    expect(state(form)).to_have_text("finished", timeout=3 * PATIENCE_MS)
    expect(measured(form, "Person kept").first).to_be_visible()
    expect(form.locator("atelier-compare .stage").first).to_be_visible()
    sheet = Image.open(io.BytesIO(downloaded(form, "rid-generated.png")))
    assert sheet.width >= 2 * 64
