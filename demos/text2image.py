"""The tab of the Pocket lab: words on the left; what the model draws and what the world shows on the right.

Widgets and layout only. What the words, ranges and defaults are stands in engines/text2image/spec.py. Words that
the model does not know are named under the prompt as it is typed, with its vocabulary a click away.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw
from demos.tab import explained, lay_out, measured_in, prompts, vocabulary_of
from engines.text2image.spec import MODELS, SAMPLERS, unknown_words, vocabulary
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

EXAMPLES = (
    "a red car, side view",
    "a glossy teal duck, on sand under a dusky sky",
    "two pink mushrooms, on grass under a blue sky",
    "a blue robot, back view, on a plain cream background",
)
GRAMMAR = (
    "a [matte or glossy] [colour] kind[, SIDE view][, on a plain COLOUR background or on GROUND under a SKY sky]"
)
METHODS = (("What the model draws", "model"), ("What the world shows", "world"))


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    measured = measured_in(Path(MODELS["pocket"].repo) / "README.md", "Measured")
    lay_out(panel, spec, _widgets, measured=measured)


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    strange = raw("", elem_id="unknown-words")
    words = raw(_words("pocket"), elem_id="vocabulary")
    prompts(prompt, EXAMPLES)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    form.field("methods", choices=METHODS)
    form.field("count")
    form.field("seed")
    with gr.Accordion("Sampling", open=False) as sampling:
        form.field("steps", fold=sampling)
        form.field("guidance", fold=sampling)
        form.field("sampler", fold=sampling, choices=[(sampler.title, name) for name, sampler in SAMPLERS.items()])
        raw(explained("What these samplers are", ((each.title, each.help) for each in SAMPLERS.values())))
        form.field("negative_prompt", fold=sampling)
    with gr.Accordion("What is shown beside", open=False) as beside:
        form.rest(beside)
    presets(form)
    gr.on([prompt.change, model.change], _strange, [prompt, model], strange, trigger_mode="always_last", **QUIET)
    model.input(lambda name: _of_model(form, name), model, [words, *form.inputs], **QUIET)
    return form


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    return [_words(name), *form.fill(MODELS[name].settings)]


def _strange(prompt: str, model: str) -> str:
    """The words of the prompt that the model does not know, named while it is typed; nothing if it knows all."""
    found = unknown_words(prompt or "", MODELS[model], marks=True)
    if not found:
        return ""
    named = ", ".join(f"<mark>{escape(word)}</mark>" for word in found[:8])
    return f'<p class="notice" role="status">Not known to the {escape(MODELS[model].title.lower())}: {named}</p>'


def _words(model: str) -> str:
    """The words of a model, and how the world's captions are built of them."""
    return vocabulary_of(MODELS[model].title, vocabulary(MODELS[model]), GRAMMAR)
