"""The page of my jobs: what waits, runs or has ended, and what can be done with each. The list renders itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from demos.panel import engine_choices, raw

if TYPE_CHECKING:
    from demos.panel import Panel


def build(panel: Panel) -> None:
    """The list with its search."""
    panel.header("/jobs")
    gr.Markdown(
        "# My jobs\nA job goes on when you close this page. Within your own jobs, a higher priority is sooner."
    )
    choices = engine_choices(panel.desk.specs)
    raw(f'<atelier-list source="/api/lists/jobs" searchable engines="{choices}"></atelier-list>')
