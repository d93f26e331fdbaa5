"""A real server with a real worker, and Chromium in front of it. Every page is watched: no errors, no other hosts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from studio.services import open_services
from studio.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",  # meshes are drawn without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# What the tabs' framework says when a page is left while it still asks something; a visitor never sees it.
LEAVING = (r"AbortError: signal is aborted", r"Unexpected error Connection errored out")
PATIENCE_MS = 60_000  # an upper bound for a busy machine; every wait ends as soon as its condition holds
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Watch:
    """What the pages of one test did that they must not do."""

    home: str
    allowed: list[str] = field(default_factory=list)  # patterns of console errors the test provokes on purpose
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> Page:
        """Watch a page from now on."""
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self._said(message.type, f"{message.text} {message.location}"))
        page.on("pageerror", lambda error: self._said("error", str(error)))
        page.on("request", lambda request: self._asked(request.url))
        return page

    def _said(self, kind: str, text: str) -> None:
        if kind == "error" and not any(re.search(pattern, text) for pattern in (*LEAVING, *self.allowed)):
            self.errors.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.home, "data:", "blob:")):
            self.foreign.append(url)


NAME, PASSWORD = "ada", "a horse, a staple"  # who can log in


def add_account(home: Path) -> None:
    """One account in the site's store, before it is served."""
    services = open_services(Settings(home=home))
    services.accounts.add(NAME, PASSWORD)
    services.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of its own, stopped orderly at the end."""
    home = tmp_path_factory.mktemp("site")
    settings = {"ATELIER_ENGINES": "tests.quick_engine", "ATELIER_POLL": "0.05", "ATELIER_RATE_PER_MINUTE": "100000"}
    add_account(home)
    command = [sys.executable, "app.py", "--port", "0", "--home", str(home)]
    log = open(home / "output", "wb")  # noqa: SIM115 - closed below
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    line = server.stdout.readline().decode()
    found = re.search(r"http://\S+", line)
    assert found, f"the server did not start: {line} {(home / 'output').read_text()}"
    yield found.group()
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    log.close()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The system's Chromium; none is downloaded."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert path, "No Chromium is on the PATH. Install it first, e.g.: sudo apt-get install chromium"
    launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
    yield launched
    launched.close()


@pytest.fixture
def watch(site: str) -> Iterator[Watch]:
    """Fails the test whose pages erred or reached out."""
    watching = Watch(site)
    yield watching
    assert not watching.errors, "\n".join(watching.errors)
    assert watching.foreign == []


@pytest.fixture
def visit(browser: Browser, site: str, watch: Watch) -> Iterator[Callable[..., Page]]:
    """`visit(width=..., scheme=...)`: a new visitor with a page; the same again with `context=`."""
    opened: list[BrowserContext] = []

    def new(
        context: BrowserContext | None = None, *, width: int = 1280, scheme: str = "light", **more: object
    ) -> Page:
        if context is None:
            size = {"width": width, "height": 900}
            context = browser.new_context(viewport=size, color_scheme=scheme, base_url=site, **more)
            opened.append(context)
        return watch.follow(context.new_page())

    yield new
    for context in opened:
        context.close()


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    """One visitor on a wide screen."""
    return visit()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that holds a job of the quick engine until the test makes it; made at the end in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()
