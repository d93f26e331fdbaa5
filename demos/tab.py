"""What the tabs of the methods have in common: the form beside the job, example prompts, lists folded away.

Knows widgets and words, and no method: what is said of one comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, raw, title
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel


def lay_out(
    panel: Panel,
    spec: EngineSpec,
    widgets: Callable[[EngineSpec], Form],
    *,
    measured: str = "",  # Markdown: what was found on the pocket model
    above_button: str = "",  # HTML
    below_job: str = "",  # HTML
) -> None:
    """Widgets on the left, the job on the right."""
    panel.header(f"/{spec.name}")
    title(spec)
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            form = widgets(spec)
            if above_button:
                raw(above_button)
            controls = panel.controls(form)
        with gr.Column(scale=6, min_width=280):
            shown = panel.job()
            if below_job:
                raw(below_job)
            if measured:
                with gr.Accordion("Measured on the pocket model", open=False):
                    gr.Markdown(measured, elem_classes="measured")
    panel.wire(form, controls, shown)


def offers(field: Any, values: Iterable[tuple[str, Any]], visible: bool = True) -> gr.Row:
    """A row of buttons, each of which fills a field: what it says, and the value."""
    with gr.Row(elem_classes="examples", visible=visible) as row:
        for said, value in values:
            gr.Button(said, size="sm").click(lambda value=value: value, None, field, **QUIET)
    return row


def prompts(field: Any, texts: Iterable[str]) -> None:
    """Example prompts to click."""
    offers(field, ((text, text) for text in texts))


def folded(summary: str, inside: str) -> str:
    """HTML that shows one line until it is opened; `inside` is HTML already."""
    return f"<details class='hint'><summary>{escape(summary)}</summary>{inside}</details>"


def explained(summary: str, entries: Iterable[tuple[str, str]]) -> str:
    """A folded list of names and what they mean."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning.strip())}</dd>" for name, meaning in entries)
    return folded(summary, f"<dl>{rows}</dl>")


def vocabulary_of(model: str, words: Iterable[str] | None, grammar: str = "") -> str:
    """The words a model with a small vocabulary understands, folded; nothing for one that reads any text."""
    listed = sorted(word for word in words or () if word.isalpha())
    if not listed:
        return ""
    more = f"<p>{escape(grammar)}</p>" if grammar else ""
    return folded(f"Words the {model.lower()} knows", f"<p>{escape(', '.join(listed))}</p>{more}")


def optional(html: str) -> Any:
    """An update of a piece of HTML that takes no room while it is empty."""
    return gr.update(value=html, visible=bool(html))


def measured_in(card: Path, heading: str = "The effect") -> str:
    """What a card reports under a heading; nothing if there is no card or no such part."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0].strip()
