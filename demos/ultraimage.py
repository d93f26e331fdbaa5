"""The tab of UltraImage: prompt, size, scenario, methods and baselines, and the advanced settings folded away.

Widgets and layout only. What the words, ranges and defaults are stands in engines/ultraimage/spec.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw
from demos.tab import explained, lay_out, measured_in, offers, optional, prompts, vocabulary_of
from engines.ultraimage.spec import METHODS, MODELS, vocabulary
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

EXAMPLES = (
    "a red ring under a pale sky",
    "a blue square under a pale sky",
    "a green star and a purple disc",
)
SCALES = ("1.5", "2", "3", "4")
GUIDED = (
    "guide_guidance",
    "prompt_high",
    "lowpass_level",
    "patch_shift",
    "view_mode",
    "view_y",
    "view_x",
    "view_share",
    "inner_ratio",
    "weight_schedule",
)
SCENARIOS = (
    ("Direct", "direct"),
    ("Guided resolution", "guided_resolution"),
    ("Guided view", "guided_view"),
)


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    lay_out(panel, spec, _widgets, measured=measured_in(Path(MODELS["pocket"].repo) / "README.md"))


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    prompts(prompt, EXAMPLES)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    words = raw(_words("pocket"), visible=bool(_words("pocket")))
    scale = form.field("scale", placeholder="2")
    offers(scale, ((f"{times}x", times) for times in SCALES))
    form.field("methods", choices=_methods())
    told = ((f"{each.title} ({each.role})", f"{each.help} {each.note}") for each in METHODS.values())
    raw(explained("What these methods are", told))
    form.field("seed")
    with gr.Accordion("Exact size, scenario and sampling", open=False) as sampling:
        for name in ("width", "height"):
            form.field(name, fold=sampling, placeholder="from the scale")
        form.field("scenario", fold=sampling, choices=SCENARIOS)
        for name in ("steps", "guidance", "negative_prompt", "shift"):
            form.field(name, fold=sampling)
    with gr.Accordion("Guided scenarios", open=False) as guided:
        for name in GUIDED:
            form.field(name, fold=guided)
    with gr.Accordion("Advanced: frequencies and attention", open=False) as advanced:
        form.rest(advanced)
    presets(form)
    model.input(lambda name: _of_model(form, name), model, [words, *form.inputs], **QUIET)
    return form


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    return [optional(_words(name)), *form.fill(MODELS[name].settings)]


def _methods() -> list[tuple[str, Any]]:
    """The method first, then its parts, then the baselines."""
    return [(method.title, name) for name, method in METHODS.items()]


def _words(model: str) -> str:
    """The words of a model, if it knows a few only."""
    return vocabulary_of(MODELS[model].title, vocabulary(MODELS[model]))
