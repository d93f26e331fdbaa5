"""What a visitor does on the pages, in words."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, expect


def open_quick(page: Page) -> None:
    """The tab of the quick engine, ready for input."""
    page.goto("/quick_engine")
    ready(page)


def ready(page: Page) -> None:
    """Wait until the form is alive: the first estimate has come from the server."""
    expect(page.locator("#estimate .estimate")).to_contain_text("About")


def fill(page: Page, **values: object) -> None:
    """Type into the fields of the form, by parameter."""
    for name, value in values.items():
        page.locator(f"#field-{name}").locator("textarea, input[type=number], input[type=text]").first.fill(
            str(value)
        )


def unfold(page: Page, name: str) -> None:
    """Open a fold that was never open, and wait until its fields can be typed into.

    Gradio makes them when the fold opens, and one frame later gives each the value it was made with once more: what
    is typed before that is wiped out.
    """
    button = page.get_by_role("button", name=name)
    button.click()
    expect(button.locator("xpath=..").locator("[id^=field-]").last).to_be_visible()
    page.evaluate("async () => { for (let n = 0; n < 3; n++) await new Promise(requestAnimationFrame) }")


def run(page: Page) -> None:
    """Press the button."""
    page.locator("#submit").click()


def state(page: Page) -> Locator:
    """The badge that says how the job is."""
    return page.locator("[data-part=state]")


def finished(page: Page) -> None:
    """Wait for the result."""
    expect(state(page)).to_have_text("finished")
    expect(page.locator("atelier-compare .stage")).to_be_visible()


def job_in(page: Page) -> str:
    """The id of the job in the address."""
    return parse_qs(urlsplit(page.url).query)["job"][0]


def share(page: Page, word: str = "Share") -> str:
    """Make a link and return its path."""
    page.get_by_role("button", name=word, exact=True).click()
    link = page.get_by_role("link", name="Open", exact=True)
    expect(link).to_be_visible()
    return str(link.get_attribute("href"))


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def held_quick(page: Page, gate: Path, **values: object) -> str:
    """A quick job that waits after its first step until `gate` exists; its id."""
    open_quick(page)
    fill(page, barrier=gate, hold_at=1, **values)
    run(page)
    expect(page.locator("[data-part=message]")).to_have_text("Step 1")
    return job_in(page)


def finished_job(page: Page, **params: object) -> str:
    """A quick job of this visitor, sent past the form and shown on its tab when it has ended; its id."""
    answer = page.request.post("/api/jobs", data={"engine": "quick_engine", "params": params})
    assert answer.status == 201, answer.text()
    job = str(answer.json()["id"])
    page.goto(f"/quick_engine?job={job}")
    expect(state(page)).to_have_text("finished")
    return job
