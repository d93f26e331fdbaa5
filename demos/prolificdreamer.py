"""The tab of ProlificDreamer: prompt, what to make, methods and stages, and every other knob folded away by subject.

Widgets and layout only. What the words, ranges and defaults are stands in engines/prolificdreamer/params.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, raw
from demos.tab import explained, lay_out, measured_in, optional, prompts, vocabulary_of
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
    card = Path(MODELS["pocket"].teacher.repo) / "prolificdreamer.md"
    lay_out(panel, spec, _widgets, measured=measured_in(card))


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    prompts(prompt, EXAMPLES)
    with gr.Row(elem_classes="examples"):
        buttons = {name: gr.Button(name.capitalize(), size="sm", elem_id=f"preset-{name}") for name in spec.presets}
    form.field("task", choices=TASKS)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    words = raw(_words("pocket"), visible=bool(_words("pocket")))
    form.field("methods", choices=[(method.title, name) for name, method in METHODS.items()])
    told = ((f"{each.title} ({each.role})", each.help) for each in METHODS.values())
    raw(explained("What these methods are", told))
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
        button.click(lambda whole=whole: [optional(_words(whole["model"])), *form.fill(whole)], None, shown, **QUIET)
    return form


def _whole(preset: Mapping[str, Any]) -> dict[str, Any]:
    """All that a preset decides, so that one chosen after another leaves nothing of it behind; the prompt stays."""
    return ProlificDreamerParams(**preset).model_dump(exclude={"prompt", "seed", "start_from"})


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    return [optional(_words(name)), *form.fill(MODELS[name].settings)]


def _words(model: str) -> str:
    """The words of a model, if it knows a few only."""
    return vocabulary_of(MODELS[model].title, known_words(model))
