"""UltraViCo's page on the pocket model: lengths and strengths at their fields, clips that play together, files."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import imageio.v3 as iio
import pytest
from playwright.sync_api import Locator, Page, expect

from studio.embedded import read_provenance
from tests.browser.conftest import PATIENCE_MS
from tests.browser.steps import fill, overflow, ready, run, state, unfold

PROMPT = "a small red ball moving right over a pale wall"


@pytest.fixture
def form(page: Page) -> Page:
    """The tab with a prompt, alive."""
    page.goto("/ultravico")
    fill(page, prompt=PROMPT)
    ready(page)
    return page


def box(form: Page, name: str) -> Locator:
    """Where the value of a field is typed."""
    return form.locator(f"#field-{name}").locator("textarea, input").first


def test_a_custom_strength_opens_its_fields_and_is_checked_there(form: Page):
    expect(box(form, "alpha")).to_be_hidden()
    form.get_by_label("Custom", exact=True).check()
    expect(box(form, "alpha")).to_be_visible()
    fill(form, alpha=0.5, beta=0.9)
    run(form)
    expect(form.locator("#error-beta")).to_contain_text("must be below alpha")
    expect(form.locator("#field-prompt textarea")).to_have_value(PROMPT)


def test_lengths_that_cannot_be_are_told_at_their_field(form: Page):
    fill(form, ratio=9)
    run(form)
    expect(form.locator("#error-ratio")).not_to_be_empty()
    fill(form, ratio="")
    unfold(form, "Exact length, size and sampling")
    fill(form, frames=90)
    run(form)
    expect(form.locator("#error-frames")).to_contain_text("Try 89 or 93")


def test_method_and_baseline_play_together_and_can_be_taken_home(page: Page):
    params = {"prompt": PROMPT, "ratio": 1.25, "steps": 2, "methods": ["ultravico", "direct"], "seed": 5}
    answer = page.request.post("/api/jobs", data={"engine": "ultravico", "params": params})
    assert answer.status == 201, answer.text()
    page.goto(f"/ultravico?job={answer.json()['id']}")
    expect(state(page)).to_have_text("finished", timeout=3 * PATIENCE_MS)  # two real videos
    players = page.locator("atelier-players[data-ready]")
    expect(players.locator("video")).to_have_count(2)
    expect(players.locator("[data-part=length]").first).to_contain_text("64 × 64, 57 frames")
    players.get_by_role("slider", name="Frame").fill("40")
    times = players.locator("video").evaluate_all("videos => videos.map((video) => video.currentTime)")
    assert times[0] == pytest.approx(times[1])
    assert times[0] > 0
    expect(page.get_by_role("link", name="Download contact-5.png")).to_be_visible()
    expect(page.get_by_role("link", name="Download pattern-5.png")).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download ultravico-5.mp4").click()
    path = Path(saved.value.path())
    found = read_provenance(path.read_bytes())
    assert found is not None
    assert found["params"]["methods"] == ["ultravico", "direct"], json.dumps(found["params"])
    assert iio.imread(path, extension=".mp4").shape == (57, 64, 64, 3)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download ultravico-5-frames.zip").click()
    with zipfile.ZipFile(BytesIO(Path(saved.value.path()).read_bytes())) as stills:
        assert sum(name.endswith(".png") for name in stills.namelist()) == 57
    page.set_viewport_size({"width": 360, "height": 800})
    assert overflow(page) <= 0
