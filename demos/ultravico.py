"""The tab of UltraViCo: prompt, length, strength, methods and baselines, and the advanced settings folded away.

Widgets and layout only. What the words, ranges and defaults are stands in engines/ultravico/spec.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw
from demos.tab import explained, lay_out, measured_in, offers, optional, prompts, vocabulary_of
from engines.ultravico.spec import METHODS, MODELS, vocabulary
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

EXAMPLES = (
    "a small red ball moving right over a pale wall",
    "a large blue star moving up over a misty wall",
    "a purple ring moving left over a golden wall",
)
RATIOS = ("1.5", "2", "3", "4")
STRENGTHS = (("Subtle", "subtle"), ("Standard", "standard"), ("Strong", "strong"), ("Custom", "custom"))
OWN = ("alpha", "beta", "gamma", "period")
SAMPLING = ("steps", "guidance", "negative_prompt", "width", "height", "fps", "shift")


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    lay_out(panel, spec, _widgets, measured=measured_in(Path(MODELS["pocket"].repo) / "README.md"))


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    prompts(prompt, EXAMPLES)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    words = raw(_words("pocket"), visible=bool(_words("pocket")))
    ratio = form.field("ratio", placeholder="2")
    offers(ratio, ((f"{times}x", times) for times in RATIOS))
    strength = form.field("strength", choices=STRENGTHS)
    with gr.Accordion("Custom strength", open=False) as custom:
        for name in OWN:
            form.field(name, fold=custom)
    form.field("methods", choices=[(method.title, name) for name, method in METHODS.items()])
    told = ((each.title, f"{each.help} {each.note}") for each in METHODS.values())
    raw(explained("What these methods are", told))
    form.field("seed")
    with gr.Accordion("Exact length, size and sampling", open=False) as sampling:
        form.field("frames", fold=sampling, placeholder="from the length")
        for name in SAMPLING:
            form.field(name, fold=sampling)
    with gr.Accordion("A picture to start from", open=False) as picture:
        form.field("image", fold=picture)
    with gr.Accordion("Advanced: decay and positions", open=False) as advanced:
        form.rest(advanced)
    presets(form)
    strength.input(lambda name: gr.update(open=name == "custom"), strength, custom, **QUIET)
    model.input(lambda name: _of_model(form, name), model, [words, *form.inputs], **QUIET)
    return form


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    return [optional(_words(name)), *form.fill(MODELS[name].settings)]


def _words(model: str) -> str:
    """The words of a model, if it knows a few only."""
    return vocabulary_of(MODELS[model].title, vocabulary(MODELS[model]))
