"""The tab of the Pocket lab: words on the left; what the model draws and what the world shows on the right.

Widgets and layout only. What the words, ranges and defaults are stands in engines/text2image/spec.py. Words that
the model does not know are named under the prompt as it is typed, with its vocabulary a click away.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw, title
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
METHODS = (("What the model draws", "model"), ("What the world shows", "world"))


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    panel.header("/text2image")
    title(spec)
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            form = _widgets(spec)
            controls = panel.controls(form)
        with gr.Column(scale=6, min_width=280):
            shown = panel.job()
            if measured := _measured():
                with gr.Accordion("Measured on the pocket model", open=False):
                    gr.Markdown(measured, elem_classes="measured")
    panel.wire(form, controls, shown)


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    prompt = form.field("prompt", max_lines=6, autofocus=False)
    strange = raw("", elem_id="unknown-words")
    words = raw(_words("pocket"), elem_id="vocabulary")
    with gr.Row(elem_classes="examples"):
        for text in EXAMPLES:
            gr.Button(text, size="sm").click(lambda text=text: text, None, prompt, **QUIET)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    form.field("methods", choices=METHODS)
    form.field("count")
    form.field("seed")
    with gr.Accordion("Sampling", open=False) as sampling:
        form.field("steps", fold=sampling)
        form.field("guidance", fold=sampling)
        form.field("sampler", fold=sampling, choices=[(sampler.title, name) for name, sampler in SAMPLERS.items()])
        raw(_samplers())
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
    """The words that a model with a small vocabulary understands; nothing for one that reads any text."""
    known = vocabulary(MODELS[model])
    if not known:
        return ""
    summary = escape(f"Words the {MODELS[model].title.lower()} knows")
    listed = escape(", ".join(sorted(word for word in known if word.isalpha())))
    form = (
        "a [matte or glossy] [colour] kind[, SIDE view][, on a plain COLOUR background or on GROUND under a SKY sky]"
    )
    return f"<details class='hint'><summary>{summary}</summary><p>{listed}</p><p>{escape(form)}</p></details>"


def _samplers() -> str:
    rows = "".join(f"<dt>{escape(s.title)}</dt><dd>{escape(s.help)}</dd>" for s in SAMPLERS.values())
    return f"<details class='hint'><summary>What these samplers are</summary><dl>{rows}</dl></details>"


def _measured() -> str:
    """What the pocket model's card reports under its heading "Measured"; nothing if it has no such part."""
    path = Path(MODELS["pocket"].repo) / "README.md"
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    return card.partition("## Measured\n")[2].partition("\n## ")[0].strip()
