"""A tab for any engine: all its parameters in order, its presets, and the shared job panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from demos.panel import Form, presets, title
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    panel.header(f"/{spec.name}")
    title(spec)
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            form = Form(spec)
            for name in sorted(spec.params.model_fields, key=lambda name: name == "seed"):  # the seed last
                form.field(name)
            presets(form)
            controls = panel.controls(form)
        with gr.Column(scale=6, min_width=280):
            shown = panel.job()
    panel.wire(form, controls, shown)
