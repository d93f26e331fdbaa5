"""Narrow and wide, light and dark: every page fits its window, and the viewer works with mouse, touch and keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.steps import finished, finished_job, open_quick, overflow, run, share

Visit = Callable[..., Page]
PAGES = {
    "/": "Not here yet",
    "/ultraimage": "UltraImage",
    "/text2image": "Pocket lab",
    "/prolificdreamer": "ProlificDreamer",
    "/ultravico": "UltraViCo",
    "/rid": "RID",
    "/quick_engine": "Quick",
    "/jobs": "My jobs",
    "/gallery": "Gallery",
    "/machine": "This machine",
    "/about": "About Atelier",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone(visit: Visit, scheme: str):
    page = visit(width=360, scheme=scheme)
    for path, heading in PAGES.items():
        page.goto(path)
        expect(page.get_by_role("heading", name=heading, exact=True).first).to_be_visible()
        assert overflow(page) <= 0, path
    open_quick(page)
    page.get_by_label("plain").check()
    run(page)
    finished(page)
    assert overflow(page) <= 0
    page.goto(share(page))
    expect(page.locator("atelier-compare .stage")).to_be_visible()
    assert overflow(page) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Visit, watch: Watch, scheme: str):
    page = visit(scheme=scheme)
    watch.allowed.append("404")
    for path in ("/", "/ultraimage", "/r/none"):
        page.goto(path)
        ground, ink = page.get_by_role("heading").first.evaluate(COLOURS)
        assert contrast(ground, ink) >= 7, f"{path}: {ink} on {ground}"
        assert (luminance(ground) < 0.1) == (scheme == "dark")


def test_the_divider_moves_by_mouse_and_keys(page: Page):
    open_quick(page)
    page.get_by_label("plain").check()
    run(page)
    finished(page)
    divider = page.get_by_role("slider", name="Divider between the pictures")
    expect(divider).to_have_attribute("aria-valuenow", "50")
    divider.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuenow", "51")
    divider.press("End")
    expect(divider).to_have_attribute("aria-valuenow", "100")
    expect(divider).to_have_attribute("aria-valuetext", "100 % plain, 0 % method")
    box = page.locator("atelier-compare .stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "25")
    clipped = page.locator("atelier-compare .layer").nth(1).evaluate("layer => layer.style.clipPath")
    assert clipped.startswith("inset(0px 0px 0px 2")


def test_a_sweep_of_pictures_is_a_grid_to_choose_from(page: Page):
    finished_job(page, seeds=3, methods=["method", "plain"], steps=1)
    grid = page.get_by_role("group", name="All pictures").get_by_role("button")
    expect(grid).to_have_text([f"{name}, seed {seed}" for seed in range(3) for name in ("plain", "method")])
    tops = grid.evaluate_all("thumbs => thumbs.map((thumb) => thumb.getBoundingClientRect().top)")  # at one moment
    assert len(set(tops)) == 3, "a row for each seed"
    tags = page.locator("atelier-compare .tag")
    expect(tags).to_have_text(["plain, seed 0", "method, seed 0"])
    grid.nth(5).click()
    expect(tags).to_have_text(["plain, seed 2", "method, seed 2"])
    grid.nth(2).click()
    expect(tags).to_have_text(["plain, seed 1", "method, seed 1"])
    expect(grid.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(grid.nth(5)).to_have_attribute("aria-pressed", "false")


def test_every_pixel_can_be_seen(page: Page):
    open_quick(page)
    run(page)
    finished(page)
    image = page.locator("atelier-compare .layer img").first
    page.get_by_role("button", name="One picture element to one of the screen").click()
    width = image.evaluate("image => image.getBoundingClientRect().width * devicePixelRatio")
    assert width == pytest.approx(16)
    expect(page.locator("atelier-compare .zoom")).to_have_text("100 %")
    page.locator("atelier-compare .stage").press("+")
    expect(page.locator("atelier-compare .zoom")).to_have_text("125 %")
    page.get_by_role("button", name="Zoom in").click(click_count=5)
    expect(image).to_have_class("pixels")
    page.locator("atelier-compare .stage").press("0")
    expect(page.locator("atelier-compare .stage")).not_to_have_class("zoomed")


def test_a_lost_page_is_told(page: Page, watch: Watch):
    watch.allowed.append("404")
    page.goto("/nothing/here")
    expect(page.get_by_role("heading")).to_have_text("There is no such page.")
    page.get_by_role("link", name="Home page").click()
    expect(page.get_by_role("heading", name="Methods", exact=True)).to_be_visible()


COLOURS = """(heading) => {
  const shown = getComputedStyle(document.body).backgroundColor;
  return [shown, getComputedStyle(heading).color].map((text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number));
}"""


def luminance(colour: list[float]) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ground: list[float], ink: list[float]) -> float:
    """Contrast ratio, WCAG 2.2."""
    low, high = sorted((luminance(ground), luminance(ink)))
    return (high + 0.05) / (low + 0.05)
