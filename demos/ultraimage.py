"""The tab of UltraImage: prompt, size, scenario, methods and baselines, and the advanced settings folded away.

Widgets and layout only. What the words, ranges and defaults are stands in engines/ultraimage/spec.py.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw, title
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
    panel.header("/ultraimage")
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
    scale = form.field("scale", placeholder="2")
    with gr.Row(elem_classes="examples"):
        for times in SCALES:
            gr.Button(f"{times}x", size="sm").click(lambda times=times: times, None, scale, **QUIET)
    form.field("methods", choices=_methods())
    raw(_what_they_are())
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


def measured_effect() -> str:
    """What the pocket model's card reports under its heading "The effect"; nothing if it has no such part."""
    card = (Path(MODELS["pocket"].repo) / "README.md").read_text(encoding="utf-8")
    return card.partition("## The effect\n")[2].partition("\n## ")[0].strip()


def _of_model(form: Form, name: str) -> list[Any]:
    """Another model brings its own settings and its own words."""
    words = _words(name)
    return [gr.update(value=words, visible=bool(words)), *form.fill(MODELS[name].settings)]


def _methods() -> list[tuple[str, Any]]:
    """The method first, then its parts, then the baselines."""
    return [(method.title, name) for name, method in METHODS.items()]


def _what_they_are() -> str:
    rows = "".join(
        f"<dt>{escape(method.title)} ({escape(method.role)})</dt><dd>{escape(method.help)} {escape(method.note)}</dd>"
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
