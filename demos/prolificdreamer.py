"""The tab of ProlificDreamer: prompt, what to make, methods and stages, and every other knob folded away by subject.

Widgets and layout only. What the words, ranges and defaults are stands in engines/prolificdreamer/params.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, raw, title
from engines.prolificdreamer.spec import METHODS, MODELS, ProlificDreamerParams, known_words
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

EXAMPLES = ("a red car", "a yellow house", "a blue mushroom", "a green rocket")
TASKS = (("An object", "object"), ("The 2D playground", "playground"), ("The toy in the plane", "toy"))
STAGES = (("Field (NeRF)", "nerf"), ("Surface", "geometry"), ("Colours", "texture"))
FOLDS = {
    "Prompt and sides": ("negative_prompt", "scene", "view_words", "perp_neg", "suppress_face"),
    "Lengths and times": (
        "iterations",
        "geometry_iterations",
        "texture_iterations",
        "playground_iterations",
        "anneal",
        "anneal_step",
        "time_mode",
        "t_min",
        "t_max",
        "t_max_late",
        "weighting",
        "clip",
    ),
    "Score estimator": (
        "estimator",
        "phi_rate",
        "phi_warmup",
        "phi_steps",
        "phi_every",
        "phi_repeats",
        "phi_target",
        "camera_drop",
        "rank",
        "replay",
    ),
    "Field and background": (
        "start",
        "blob_scale",
        "blob_radius",
        "bound",
        "levels",
        "features",
        "base_resolution",
        "finest_resolution",
        "log2_table",
        "interpolation",
        "hidden",
        "density_noise",
        "background",
        "backdrop",
        "random_background",
        "random_background_step",
    ),
    "Rendering and cameras": (
        "views",
        "render_size",
        "render_size_early",
        "grow_step",
        "samples",
        "importance",
        "occupancy",
        "chunk",
        "radius",
        "fovy",
        "theta",
        "sphere_share",
        "overhead_share",
    ),
    "Regularisers and rates": (
        "entropy",
        "opacity",
        "sparsity",
        "opaque",
        "z_variance",
        "smoothness",
        "rate_grid",
        "rate_decoder",
        "rate_background",
        "decay_share",
        "playground_rate",
        "playground_start",
    ),
    "Surface and colours": (
        "mesh_grid",
        "threshold",
        "geometry_guidance",
        "geometry_fovy",
        "normal_weight",
        "laplacian_weight",
        "rate_geometry",
        "supersampling",
        "rasteriser",
        "clean",
        "most_faces",
        "texture_size",
    ),
    "Files, previews, going on": (
        "formats",
        "frames",
        "picture_size",
        "preview_every",
        "checkpoint_every",
        "start_from",
    ),
}


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    panel.header("/prolificdreamer")
    title(spec)
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            form = _widgets(spec)
            controls = panel.controls(form)
        with gr.Column(scale=6, min_width=280):
            shown = panel.job()
            if effect := measured_effect():
                with gr.Accordion("Measured on the pocket model", open=False):
                    gr.Markdown(effect, elem_classes="measured")
    panel.wire(form, controls, shown)


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    with gr.Row(elem_classes="examples"):
        for text in EXAMPLES:
            gr.Button(text, size="sm").click(lambda text=text: text, None, prompt, **QUIET)
    with gr.Row(elem_classes="examples"):
        buttons = {name: gr.Button(name.capitalize(), size="sm", elem_id=f"preset-{name}") for name in spec.presets}
    form.field("task", choices=TASKS)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    words = raw(_words("pocket"), visible=bool(_words("pocket")))
    form.field("methods", choices=[(method.title, name) for name, method in METHODS.items()])
    raw(_what_they_are())
    form.field("guidance")
    form.field("stages", choices=STAGES)
    form.field("particles")
    form.field("seed")
    for name, fields in FOLDS.items():
        with gr.Accordion(name, open=False) as fold:
            for field in fields:
                form.field(field, fold=fold)
    model.input(lambda name: _of_model(form, name), model, [words, *form.inputs], **QUIET)
    for name, button in buttons.items():
        whole = _whole(spec.presets[name])
        shown = [words, *form.inputs]
        button.click(lambda whole=whole: [_of_words(whole["model"]), *form.fill(whole)], None, shown, **QUIET)
    return form


def _whole(preset: Mapping[str, Any]) -> dict[str, Any]:
    """All that a preset decides, so that one chosen after another leaves nothing of it behind; the prompt stays."""
    return ProlificDreamerParams(**preset).model_dump(exclude={"prompt", "seed", "start_from"})


def measured_effect() -> str:
    """What the card of the pocket model reports on this method; nothing if it has no such part."""
    card = Path(MODELS["pocket"].teacher.repo) / "prolificdreamer.md"
    return card.read_text(encoding="utf-8").strip() if card.is_file() else ""


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    return [_of_words(name), *form.fill(MODELS[name].settings)]


def _of_words(model: str) -> Any:
    words = _words(model)
    return gr.update(value=words, visible=bool(words))


def _what_they_are() -> str:
    rows = "".join(
        f"<dt>{escape(method.title)} ({escape(method.role)})</dt><dd>{escape(method.help)}</dd>"
        for method in METHODS.values()
    )
    return f"<details class='hint'><summary>What these methods are</summary><dl>{rows}</dl></details>"


def _words(model: str) -> str:
    """The words that a model with a small vocabulary understands; nothing for one that reads any text."""
    known = known_words(model)
    if not known:
        return ""
    summary = escape(f"Words the {MODELS[model].title.lower()} knows")
    return f"<details class='hint'><summary>{summary}</summary>{escape(', '.join(known))}</details>"
