"""Meshes side by side under one camera, told from the pixels of their canvases; drawn by a software renderer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.steps import finished_job, overflow, share

Visit = Callable[..., Page]
PAIR = {"makes": ["mesh"], "methods": ["method", "plain"], "steps": 1}

# Of each canvas: a fingerprint of its pixels, and how many of them are drawn on.
PIXELS = """(objects) => [...objects.querySelectorAll("canvas")].map((canvas) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let print = 0, drawn = 0, colours = new Set();
  for (let at = 0; at < data.length; at += 4) {
    const colour = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
    print = (print * 31 + colour) | 0;
    if (data[at + 3] > 127) { drawn += 1; colours.add(colour >> 4); }
  }
  return [print, drawn / (data.length / 4), colours.size];
})"""


def ready(page: Page) -> Locator:
    """The viewer, its meshes loaded and drawn."""
    page.locator("atelier-objects").scroll_into_view_if_needed()  # it loads what is in sight
    objects = page.locator("atelier-objects[data-ready][data-azimuth]")
    expect(objects).to_have_count(1)
    page.wait_for_function(
        f"objects => ({PIXELS})(objects).every(([, drawn]) => drawn > 0.1)", arg=objects.element_handle()
    )
    return objects


def prints(objects: Locator) -> list[int]:
    return [int(print_) for print_, _, _ in objects.evaluate(PIXELS)]


def all_change(objects: Locator, act: Callable[[], None]) -> None:
    """`act` changes what every canvas shows."""
    before = prints(objects)
    act()
    objects.page.wait_for_function(
        f"([objects, before]) => ({PIXELS})(objects).every(([print], at) => print !== before[at])",
        arg=[objects.element_handle(), before],
    )


@pytest.fixture
def pair(page: Page) -> Locator:
    """A box and a ball."""
    finished_job(page, **PAIR)
    return ready(page)


def test_turning_one_turns_all(pair: Locator):
    azimuth = float(str(pair.get_attribute("data-azimuth")))
    box = pair.locator("canvas").nth(1).bounding_box()
    assert box is not None
    mouse = pair.page.mouse

    def drag() -> None:
        mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        mouse.down()
        mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 - 20, steps=3)
        mouse.up()

    all_change(pair, drag)
    turned = "([node, limit]) => Number(node.dataset.azimuth) < limit"
    pair.page.wait_for_function(turned, arg=[pair.element_handle(), azimuth - 10])


def test_by_keyboard(pair: Locator):
    wall = pair.get_by_role("group", name="Meshes side by side")
    expect(pair).to_have_attribute("data-azimuth", "30")
    home = prints(pair)
    all_change(pair, lambda: wall.press("ArrowRight"))
    expect(pair).to_have_attribute("data-azimuth", "20")
    all_change(pair, lambda: wall.press("ArrowUp"))
    expect(pair).to_have_attribute("data-height", "28")
    all_change(pair, lambda: wall.press("+"))
    expect(pair).to_have_attribute("data-distance", "3.28")
    all_change(pair, lambda: wall.press("0"))
    expect(pair).to_have_attribute("data-azimuth", "30")
    assert prints(pair) == home, "the same view is the same picture"


def test_colours_shape_normals_and_wireframe(pair: Locator):
    assert min(colours for _, _, colours in pair.evaluate(PIXELS)) > 20
    covered = [drawn for _, drawn, _ in pair.evaluate(PIXELS)]
    for look in ("Shape", "Normals", "Wireframe"):
        knob = pair.get_by_role("button", name=look)
        all_change(pair, knob.click)
        expect(knob).to_have_attribute("aria-pressed", "true")
    expect(pair.get_by_role("button", name="Colours")).to_have_attribute("aria-pressed", "false")
    assert all(now < then / 2 for (_, now, _), then in zip(pair.evaluate(PIXELS), covered, strict=True))


def test_it_turns_by_itself_until_told_to_stop(pair: Locator):
    turning = pair.get_by_role("button", name="Turn by itself")
    all_change(pair, turning.click)
    turning.click()
    expect(turning).to_have_attribute("aria-pressed", "false")


def test_each_mesh_says_how_large_it_is(pair: Locator):
    facts = pair.locator("[data-part=facts]")
    expect(facts.nth(0)).to_have_text("12 triangles, texture 64 px.")
    expect(facts.nth(1)).to_have_text("1,280 triangles, texture 64 px.")
    expect(pair.locator("figcaption").nth(1)).to_contain_text("Mean grey")


def test_the_poster_stands_until_the_mesh_is_there(page: Page):
    held: list[Route] = []
    page.route("**/stage.js", lambda route: held.append(route))
    finished_job(page, **PAIR)
    poster = page.get_by_alt_text("method", exact=True)
    expect(poster).to_be_visible()
    expect(page.locator("[data-part=facts]").first).to_have_text("Loading.")
    for route in held:
        route.continue_()
    ready(page)
    expect(poster).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_link_shows_them_on_a_phone(page: Page, visit: Visit, scheme: str):
    finished_job(page, **PAIR)
    friend = visit(width=360, scheme=scheme)
    friend.goto(share(page))
    objects = ready(friend)
    boxes = [canvas.bounding_box() for canvas in objects.locator("canvas").all()]
    assert all(boxes)
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    assert overflow(friend) <= 0
    all_change(objects, objects.get_by_role("button", name="Zoom out").click)


def test_the_library_comes_only_with_a_mesh(page: Page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    finished_job(page, steps=1)
    assert not [url for url in asked if "three" in url]
    finished_job(page, **PAIR)
    ready(page)
    assert len([url for url in asked if url.endswith("/atelier/viewers/three/three.js")]) == 1


def test_a_broken_mesh_is_a_sentence(page: Page):
    page.route("**/files/*", lambda route: route.fulfill(body=b"not a mesh", content_type="model/gltf-binary"))
    finished_job(page, **PAIR)
    expect(page.locator("[data-part=facts]").first).to_have_text(
        "This mesh cannot be shown. Download the file below."
    )


def test_a_gallery_shows_the_poster(page: Page):
    finished_job(page, **PAIR)
    page.goto("/gallery")
    picture = page.locator(".gallery img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
