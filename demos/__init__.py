"""The pages: which tab shows which engine, and all of them in one application.

An engine without a module of its own here gets the generic tab, so that a further engine needs no page to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import gradio as gr
from gradio.routes import App

from demos import about, gallery, generic, home, jobs, machine
from demos.panel import Desk, Panel
from studio.contract import EngineSpec

TABS = {
    "ultraimage": "demos.ultraimage",
    "text2image": "demos.text2image",
    "prolificdreamer": "demos.prolificdreamer",
    "ultravico": "demos.ultravico",
    "rid": "demos.rid",
}  # engine -> module with build(panel, spec)


def build_pages(desk: Desk) -> gr.Blocks:
    """Home, a tab for every engine, my jobs, gallery, the machine, about."""
    engines = {f"/{name}": spec for name, spec in desk.specs.items()}
    named = {path: spec.title for path, spec in engines.items()}
    others: dict[str, tuple[str, Callable[[Panel], None]]] = {
        "/jobs": ("Jobs", jobs.build),
        "/gallery": ("Gallery", gallery.build),
        "/machine": ("Machine", machine.build),
        "/about": ("About", about.build),
    }
    words = {"/": "Home", **named, **{path: word for path, (word, _) in others.items()}}
    with (
        _no_interim_application(),
        gr.Blocks(title="Atelier", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks,
    ):
        panel = Panel(desk, blocks, words)
        home.build(panel)
        for path, spec in engines.items():
            _turn_to(blocks, path, spec.title)
            _tab(spec)(panel, spec)
        for path, (word, build) in others.items():
            _turn_to(blocks, path, word)
            build(panel)
    return blocks


@contextmanager
def _no_interim_application() -> Iterator[None]:
    """Inside, blocks make no web application of their own at their beginning and their end.

    Each costs a third of a second, and mounting makes the one that serves.
    """
    make = App.create_app
    App.create_app = staticmethod(lambda *_args, **_options: None)  # type: ignore[method-assign]
    try:
        yield
    finally:
        App.create_app = staticmethod(make)  # type: ignore[method-assign]


def _turn_to(blocks: gr.Blocks, path: str, title: str) -> None:
    """What follows belongs to this page.

    `with blocks.route(title, path)` would make Gradio's whole web application anew for each page, a second in all.
    """
    name = path.strip("/")
    blocks.pages.append((name, title, True))
    blocks.current_page = name


def _tab(spec: EngineSpec) -> Any:
    """The function that builds the tab of an engine."""
    return import_module(TABS[spec.name]).build if spec.name in TABS else generic.build
