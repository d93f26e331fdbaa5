"""A tab for any engine: all its parameters in order, its presets, and the shared job panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.panel import Form, presets
from demos.tab import lay_out
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    lay_out(panel, spec, _widgets)


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    for name in sorted(spec.params.model_fields, key=lambda name: name == "seed"):  # the seed last
        form.field(name)
    presets(form)
    return form
