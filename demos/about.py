"""The page about the house: the papers behind the methods, and whose files are used under what terms."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from demos.panel import raw
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

THIRD_PARTY = Path(__file__).resolve().parents[1] / "THIRD_PARTY.md"


def build(panel: Panel) -> None:
    """Papers and licences."""
    panel.header("/about")
    gr.Markdown(
        "# About Atelier\n"
        "Atelier runs published methods of visual generation beside their baselines, on one machine or many. It "
        "contacts nobody: pages, fonts and models come from here, and no use is reported. You are known by a signed "
        "cookie, or by your account once you have logged in; that alone makes your jobs yours.\n\n"
        "Atelier itself is licensed under Apache-2.0. Programs can use it too: the API is described in "
        "[/api/openapi.json](/api/openapi.json).\n\n## Methods"
    )
    raw(f'<ul class="cards">{"".join(_card(spec) for spec in panel.desk.specs.values())}</ul>')
    gr.Markdown(THIRD_PARTY.read_text(encoding="utf-8"))


def _card(spec: EngineSpec) -> str:
    paper = spec.paper
    return (
        f'<li class="card"><h3>{escape(spec.title)}</h3><p>{escape(paper.authors)} ({paper.year}): '
        f'<a href="{escape(paper.link)}" rel="noopener noreferrer">{escape(paper.title)}</a></p>'
        f'<p class="quiet">{escape(spec.licence)}</p></li>'
    )
