"""Small pieces of HTML that several tabs show, and how their events are wired. Knows specs, no form and no job."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from studio.contract import EngineSpec

# Handlers answer at once. Without the framework's queue, because its stream of answers may close between two events,
# and the second answer is lost (measured: about one in twenty clicks right after a page has loaded).
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
EMPTY = "Your result will appear here. You may close this page meanwhile; the job goes on, and this address shows it."


def raw(value: str, **more: Any) -> gr.HTML:
    """A piece of HTML that only our own styles touch."""
    return gr.HTML(value, apply_default_css=False, **more)


def job_html(job_id: str) -> str:
    """The element that shows a job and keeps itself up to date."""
    return f'<atelier-job job="{escape(job_id)}" empty="{escape(EMPTY)}"></atelier-job>'


def estimate_html(sentence: str, note: str) -> str:
    """The line above the button."""
    more = f'<span class="note">{escape(note)}</span>' if note else ""
    return f'<div class="estimate" role="status">{escape(sentence)}{more}</div>'


def shown_time(seconds: float) -> str:
    """42 -> '42 seconds', 200 -> '3 minutes'."""
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{round(seconds)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def shown_size(count: float) -> str:
    """Bytes as GB or MB of memory."""
    return f"{shown_bytes(count)} of memory"


def shown_bytes(count: float, digits: int = 0) -> str:
    """Bytes as GB, or as MB with so many decimals."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.{digits}f} MB"


def engine_choices(specs: Mapping[str, EngineSpec]) -> str:
    """The methods as a list's search field wants them."""
    return escape(",".join(f"{name}={spec.title.replace(',', ' ')}" for name, spec in specs.items()))


def title(spec: EngineSpec) -> None:
    """What the method is, above its widgets."""
    paper = spec.paper
    raw(
        f'<div class="tab-title"><h1>{escape(spec.title)}</h1><p class="lead">{escape(spec.tagline)}</p>'
        f'<p class="quiet">{escape(spec.summary)} <a href="{escape(paper.link)}" rel="noopener noreferrer">'
        f"{escape(paper.title)}</a>, {escape(paper.authors)}, {paper.year}.</p></div>"
    )
