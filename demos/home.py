"""The first page: what Atelier is, the methods that are here with real results, and those that are still to come."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import raw
from studio.contract import EngineSpec

if TYPE_CHECKING:
    from demos.panel import Panel

EXAMPLES = Path(__file__).resolve().parents[1] / "assets" / "examples"

# kind of a result -> the viewer, and what stands in it for one file; as in studio/templates/outputs.html
VIEWERS = {
    "image": ("atelier-compare", '<img src="{url}" alt="{label}">'),
    "video": (
        "atelier-players",
        '<video src="{url}" aria-label="{label}" controls loop muted playsinline preload="auto"></video>',
    ),
    "mesh": ("atelier-objects", ""),
}

BESIDES = ("poster", "plot", "sheet")  # roles of pictures that are not shown side by side

# The other methods of the house, in the order of the plan; each leaves this list by getting an engine.
COMING = {
    "crm": ("CRM", "From one picture to a textured mesh."),
    "flexworld": ("FlexWorld", "From one picture to a 3D scene to walk through."),
    "controlvideo": ("ControlVideo", "A clip and a sentence give the edited clip."),
    "i2v_leakage": ("Conditional image leakage", "Videos from a picture that move as much as they should."),
    "rid": ("RID", "Portraits protected against imitation, in real time."),
}


def build(panel: Panel) -> None:
    """Words, results, cards."""
    panel.header("/")
    gr.Markdown(
        "# Published generation methods, run side by side with what they improve\n"
        "Give a method a sentence or a picture, watch it work, and see its result beside the baseline's: the same "
        "model, the same seed, the original files, and the paper's own measure under each. Everything runs on this "
        "machine. A job goes on when you close the page, and a link shows it to whomever you like.",
        elem_classes="lead",
    )
    for name, spec in panel.desk.specs.items():
        if shown := _example(name, spec):
            raw(shown)
    gr.Markdown("## Methods")
    cards = [_card(spec) for spec in panel.desk.specs.values()]
    raw(f'<ul class="cards">{"".join(cards)}</ul>')
    coming = [_coming(*told) for name, told in COMING.items() if name not in panel.desk.specs]
    if coming:
        gr.Markdown("## Not here yet\nThese methods are planned and cannot be run in this version.")
        raw(f'<ul class="cards">{"".join(coming)}</ul>')


def _card(spec: EngineSpec) -> str:
    paper = f"{escape(spec.paper.authors)}, {spec.paper.year}"
    return (
        f'<li class="card"><h3>{escape(spec.title)}</h3><p>{escape(spec.tagline)}</p>'
        f'<p class="quiet">{escape(spec.summary)}</p><p class="quiet">{paper}</p>'
        f'<p class="go"><a href="/{spec.name}">Open {escape(spec.title)}</a></p></li>'
    )


def _coming(title: str, tagline: str) -> str:
    return f'<li class="card coming"><h3>{escape(title)}</h3><p class="quiet">{escape(tagline)}</p></li>'


def _example(name: str, spec: EngineSpec) -> str:
    """A stored result of this engine in the viewer, with the settings that made it; nothing if none is shipped."""
    manifest = EXAMPLES / name / "manifest.json"
    if not manifest.is_file():
        return ""
    told: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["jobs"][0]
    viewers = "".join(_viewer(spec, kind, told["files"]) for kind in VIEWERS)
    params = told["params"]
    said = f"“{params['prompt']}”, seed {params['seed']}" if "prompt" in params else f"seed {params['seed']}"
    measured = [item for item in told["files"] if item.get("metrics")]
    numbers = "; ".join(_label(item) + _measured(spec, item["metrics"]) for item in measured)
    return (
        f'<figure class="shown">{viewers}'
        f"<figcaption>{escape(spec.title)}: {escape(said)}. {escape(numbers)}. "
        f'<a href="/atelier/examples/{name}/manifest.json">Manifest</a></figcaption></figure>'
    )


def _label(item: dict[str, Any]) -> str:
    attributes = item.get("attributes", {})
    return str(attributes.get("title") or attributes.get("method") or item["name"])


def _viewer(spec: EngineSpec, kind: str, files: list[dict[str, Any]]) -> str:
    """The results of one kind in their viewer; nothing without any."""
    tag, inner = VIEWERS[kind]
    kept = [item for item in files if item["kind"] == kind and item.get("attributes", {}).get("role") not in BESIDES]
    kept.sort(key=lambda item: item.get("attributes", {}).get("role") == "method")  # last, as on the method's page
    figures = "".join(_figure(spec, item, inner) for item in kept)
    return f"<{tag}>{figures}</{tag}>" if figures else ""


def _figure(spec: EngineSpec, item: dict[str, Any], inner: str) -> str:
    label, attributes = escape(_label(item)), item.get("attributes", {})
    url = f"/atelier/examples/{spec.name}/{escape(item['file'])}"
    shown = inner.format(url=url, label=label)
    return (
        f'<figure data-label="{label}" data-role="{escape(str(attributes.get("role", "")))}" '
        f'data-fps="{escape(str(attributes.get("fps", "")))}" data-model="{url}">{shown}'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _measured(spec: EngineSpec, metrics: dict[str, Any]) -> str:
    """The first numbers of a result in words, as `: objects 4, horizons 2`."""
    numbers = [(metric.title, metrics.get(name)) for name, metric in spec.metrics.items() if metric.better]
    shown = [f"{title.lower()} {_said(value)}" for title, value in numbers if isinstance(value, (int, float))]
    return ": " + ", ".join(shown[:2]) if shown else ""


def _said(value: float) -> str:
    """A number, or whether something holds."""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"
