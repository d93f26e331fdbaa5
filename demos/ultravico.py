"""The tab of UltraViCo: prompt, length, strength, methods and baselines, and the advanced settings folded away.

Widgets and layout only. What the words, ranges and defaults are stands in engines/ultravico/spec.py.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw, title
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
    panel.header("/ultravico")
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
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    words = raw(_words("pocket"), visible=bool(_words("pocket")))
    ratio = form.field("ratio", placeholder="2")
    with gr.Row(elem_classes="examples"):
        for times in RATIOS:
            gr.Button(f"{times}x", size="sm").click(lambda times=times: times, None, ratio, **QUIET)
    strength = form.field("strength", choices=STRENGTHS)
    with gr.Accordion("Custom strength", open=False) as custom:
        for name in OWN:
            form.field(name, fold=custom)
    form.field("methods", choices=[(method.title, name) for name, method in METHODS.items()])
    raw(_what_they_are())
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


def measured_effect() -> str:
    """What the pocket model's card reports under its heading "The effect"; nothing if it has no such part."""
    card = Path(MODELS["pocket"].repo) / "README.md"
    return card.read_text(encoding="utf-8").partition("## The effect\n")[2].partition("\n## ")[0].strip()


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    words = _words(name)
    return [gr.update(value=words, visible=bool(words)), *form.fill(MODELS[name].settings)]


def _what_they_are() -> str:
    rows = "".join(
        f"<dt>{escape(method.title)}</dt><dd>{escape(method.help)} {escape(method.note)}</dd>"
        for method in METHODS.values()
    )
    return f"<details class='hint'><summary>What these methods are</summary><dl>{rows}</dl></details>"


def _words(model: str) -> str:
    """The words that a model with a small vocabulary understands; nothing for one that reads any text."""
    known = vocabulary(MODELS[model])
    if not known:
        return ""
    summary = escape(f"Words the {MODELS[model].title.lower()} knows")
    return f"<details class='hint'><summary>{summary}</summary>{escape(', '.join(sorted(known)))}</details>"
