"""The page of my finished results, searchable by method and prompt. The list renders itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from demos.panel import engine_choices, raw

if TYPE_CHECKING:
    from demos.panel import Panel


def build(panel: Panel) -> None:
    """The pictures with their search."""
    panel.header("/gallery")
    gr.Markdown("# Gallery\nYour finished results. Only you see them, until you share one.")
    choices = engine_choices(panel.desk.specs)
    raw(f'<atelier-list source="/api/lists/gallery" searchable engines="{choices}"></atelier-list>')
