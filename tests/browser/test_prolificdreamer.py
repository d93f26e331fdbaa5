"""ProlificDreamer's page on the pocket model: presets, what a run shows meanwhile, objects that turn together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trimesh
from playwright.sync_api import Page, expect

from studio.embedded import read_provenance
from tests.browser.steps import overflow, run, state
from tests.browser.test_objects import all_change
from tests.browser.test_objects import ready as drawn

Visit = Callable[..., Page]
SMALL = {
    "iterations": 3,
    "views": 1,
    "render_size": 16,
    "render_size_early": 16,
    "samples": 8,
    "importance": 0,
    "occupancy": 0,
    "levels": 2,
    "mesh_grid": 12,
    "texture_size": 32,
    "formats": ["glb", "video"],
    "frames": 4,
    "picture_size": 32,
    "preview_every": 1,
}


def opened(page: Page) -> None:
    """The form, alive: without a prompt there is no estimate yet, but an answer."""
    page.goto("/prolificdreamer")
    expect(page.locator("#estimate .estimate")).to_contain_text("No estimate yet")


def held(page: Page, field: str) -> list[str | bool]:
    """What a field holds: text, numbers, and which of its choices are taken."""
    return page.locator(f"#field-{field}").evaluate(
        "field => [...field.querySelectorAll('input, textarea')].map("
        "box => ['radio', 'checkbox'].includes(box.type) ? box.checked : box.value)"
    )


def test_presets_leave_nothing_of_one_another_behind(page: Page):
    opened(page)
    for fold in ("Lengths and times", "Rendering and cameras", "Field and background", "Prompt and sides"):
        page.get_by_role("button", name=fold).click()
    names = ("iterations", "levels", "radius", "guidance", "scene", "background")
    expect(page.locator("#field-background")).to_be_visible()
    before = {name: held(page, name) for name in names}
    page.locator("#preset-paper").click()
    expect(page.locator("#field-iterations input[type=number]")).to_have_value("25000")
    expect(page.locator("#field-radius textarea, #field-radius input").first).to_have_value("1.0, 1.5")
    page.locator("#preset-preview").click()
    expect(page.locator("#field-iterations input[type=number]")).to_have_value(str(before["iterations"][0]))
    assert {name: held(page, name) for name in names} == before
    assert all(before.values())


def test_contradictions_are_told_at_their_field(page: Page):
    opened(page)
    page.locator("#field-prompt textarea").fill("a glorious dragon")
    run(page)
    expect(page.locator("#error-prompt")).to_contain_text("does not know: glorious, dragon")


def begun(page: Page, **params: object) -> None:
    """A run on the page, past the form."""
    answer = page.request.post("/api/jobs", data={"engine": "prolificdreamer", "params": {**SMALL, **params}})
    assert answer.status == 201, answer.text()
    page.goto(f"/prolificdreamer?job={answer.json()['id']}")


def test_a_long_run_is_watched_and_stopped_with_what_there_is(visit: Visit):
    page = visit(width=360)
    begun(page, prompt="a yellow house", methods=["vsd", "sds"], iterations=100_000, checkpoint_every=10_000)
    live = page.locator("[data-part=preview]")  # the views of every particle, phi's own sample, and curves
    page.wait_for_function("image => image.naturalWidth > 300", arg=live.element_handle())
    expect(page.locator("[data-part=message]")).to_contain_text("t 20 to")
    expect(page.locator("[data-part=message]")).to_contain_text("phi's loss")
    assert overflow(page) <= 0
    page.get_by_role("button", name="Stop and keep").click()
    expect(state(page)).to_have_text("finished")
    expect(page.get_by_text("This job was stopped at step")).to_be_visible()
    assert drawn(page).locator("canvas").count() == 1
    assert overflow(page) <= 0


def test_method_and_baseline_turn_together_and_can_be_taken_home(page: Page):
    begun(page, prompt="a red car", methods=["vsd", "sds"], seed=5)
    expect(state(page)).to_have_text("finished")
    objects = drawn(page)
    assert objects.locator("canvas").count() == 2
    all_change(objects, lambda: objects.get_by_role("group", name="Meshes side by side").press("ArrowRight"))
    expect(page.locator("atelier-players video")).to_have_count(6)  # colours, normals and depth of both
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download vsd-5.glb").click()
    path = Path(saved.value.path())
    found = read_provenance(path.read_bytes())
    assert found is not None
    assert found["params"]["prompt"] == "a red car"
    mesh = trimesh.load(path, file_type="glb", force="mesh")
    assert mesh.visual.material.baseColorTexture.size == (32, 32)
