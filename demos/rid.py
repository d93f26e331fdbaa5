"""The tab of RID: photos, strength in words and grey levels, and the thief's laboratory folded away.

Widgets and layout only. What the words, ranges and defaults are stands in engines/rid/spec.py.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, Form, presets, raw
from demos.tab import lay_out, measured_in, offers
from engines.rid.spec import CONDITIONS, MODELS
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

PHOTOS = "/atelier/examples"
EXAMPLES = {
    "a portrait": [f"{PHOTOS}/photos/astronaut.png"],
    "three photos": [f"{PHOTOS}/photos/{name}.png" for name in ("astronaut", "chelsea", "coffee")],
    "six pictures of a toy person": [f"{PHOTOS}/people/{number}.png" for number in range(1, 7)],
}
WAYS = (("Full fine-tuning", "full"), ("LoRA", "lora"), ("Textual inversion", "inversion"))
FRAMINGS = (("Keep the size", "keep"), ("Square crop, as published", "crop"))
TASKS = (("Protect photos", "protect"), ("Play the thief", "thief"))
PURIFICATIONS = (
    ("Nothing", "none"),
    ("JPEG, quality 75", "jpeg75"),
    ("JPEG, quality 50", "jpeg50"),
    ("Half the size and back", "resize"),
    ("Blur", "blur"),
    ("Noise", "noise"),
    ("Balance of colours", "balance"),
    ("Redraw a little by diffusion", "diffusion"),
)
LIMITS = (
    "The pocket defender is a small network that was trained on toy people, against small models. On a real photo it "
    "shows what the method does; nobody has tried it against Stable Diffusion. For that there are the published "
    "weights.",
    "It is meant to make it harder to teach a model a face from these very pictures. With the small models here "
    "67 of 100 pictures that a thief draws are taken for the person at 16 grey levels and 27 at 24, instead of 83; "
    "12 and less do nothing that could be measured. What the pocket network adds is mostly a blue cast on people, "
    "which a thief who suspects it can partly undo. It is no guarantee: a determined thief can try to wash any "
    "pattern out, and some ways may succeed (the laboratory shows what each leaves).",
    "Pictures that are online already are not protected, and a few clean ones among many protected ones weaken "
    "all of them.",
    "Post the file as it is downloaded here. A platform that shrinks it or saves it as JPEG takes part of the "
    "protection away; how much is said under each result.",
    "It does not hide who you are from people or from face recognition, and it was never meant to.",
)


def build(panel: Panel, spec: EngineSpec) -> None:
    """Widgets on the left, the job on the right."""
    lay_out(
        panel,
        spec,
        _widgets,
        measured=measured_in(Path(MODELS["pocket"].folder) / "README.md"),
        above_button=_kept(panel.desk.retention_days),
        below_job=_limits(),
    )


def _widgets(spec: EngineSpec) -> Form:
    form = Form(spec)
    form.field("images", examples=EXAMPLES)
    form.field("task", choices=TASKS)
    model = form.field("model", choices=[(preset.title, name) for name, preset in MODELS.items()])
    budget = form.field("budget")
    words = [
        offers(
            budget,
            ((f"{word} ({level:g})", level) for word, level in preset.strengths.items()),
            visible=name == "pocket",
        )
        for name, preset in MODELS.items()
    ]
    model.change(lambda chosen: [gr.update(visible=name == chosen) for name in MODELS], model, words, **QUIET)
    with gr.Accordion("Size and files", open=False) as files:
        form.field("framing", fold=files, choices=FRAMINGS)
        form.field("keep_exif", fold=files)
        form.field("differences", fold=files)
    with gr.Accordion("The thief's laboratory", open=False) as lab:
        raw(_laboratory())
        form.field("conditions", fold=lab, choices=[(said, name) for name, said in CONDITIONS.items()])
        form.field("thief", fold=lab, choices=WAYS)
        form.field("purify", fold=lab, choices=PURIFICATIONS)
        form.field("thief_steps", fold=lab)
        form.field("generated", fold=lab)
        form.field("seed", fold=lab)
    presets(form)
    model.input(lambda name: form.fill(MODELS[name].settings), model, form.inputs, **QUIET)
    return form


def _kept(days: float) -> str:
    """How long photos stay here, before anything is submitted."""
    deleted = (
        f"Originals and results are deleted with their job, {days:g} days after it has ended, or once its share "
        "links are revoked."
        if days
        else "This server keeps originals and results until its operator removes them."
    )
    return (
        f"<p class='hint'>Photos stay on this server and go nowhere else. {escape(deleted)} Place, time and camera "
        "are removed from what you download unless you keep them, and it does not name your other files.</p>"
    )


def _limits() -> str:
    points = "".join(f"<li>{escape(point)}</li>" for point in LIMITS)
    summary = "<summary>What this can and cannot promise</summary>"
    return f"<details class='hint' open>{summary}<ul>{points}</ul></details>"


def _laboratory() -> Any:
    return (
        "<p class='hint'>Choose “Play the thief” above and four to eight pictures of one person. The same model is "
        "then personalised on the pictures as they are, protected, and with random noise of the same strength, and "
        "draws the person from each. The judge was trained on toy people: of real faces it says nothing.</p>"
    )
