"""The page of the machine: its workers, their memory, and the models they hold for the next job."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.panel import QUIET, fault_html, raw, shown_bytes
from studio.errors import AtelierError

if TYPE_CHECKING:
    from demos.panel import Panel, WorkerView

NOBODY = '<p class="notice">No worker has shown itself yet. One starts with the server, within a few seconds.</p>'
COUNTS = {
    "loads": "loaded",
    "hits": "found ready",
    "offloads": "moved to main memory",
    "evictions": "dropped",
}


def build(panel: Panel) -> None:
    """Read anew whenever the page is opened."""
    panel.header("/machine")
    gr.Markdown(
        "# This machine\nEvery device has one worker, which runs one job at a time. Models stay loaded after a job "
        "while there is room, so that the next job with the same model starts at once; what nobody has used longest "
        "goes first."
    )
    shown = raw("", elem_id="machine")

    def opened() -> str:
        try:
            return _workers(panel.desk.workers())
        except AtelierError as error:
            return fault_html(error)

    panel.blocks.load(opened, None, shown, **QUIET)


def _workers(workers: list[WorkerView]) -> str:
    return "".join(_worker(worker) for worker in workers) or NOBODY


def _worker(worker: WorkerView) -> str:
    facts = worker.facts
    models: dict[str, Any] = facts.get("models", {})
    total, free = int(facts.get("memory_total", 0)), int(facts.get("memory_free", 0))
    told = {
        "processor": str(facts.get("name") or "unnamed"),
        "memory": f"{_size(free)} of {_size(total)} can be had",
        "models in main memory": f"{_size(models.get('ram_bytes', 0))} of {_size(models.get('ram_budget', 0))}",
        "last sign of life": f"{worker.age:.0f} s ago",
    }
    if models.get("vram_budget"):
        told["models on the device"] = f"{_size(models['vram_bytes'])} of {_size(models['vram_budget'])}"
    told |= {f"components {word}": str(models[name]) for name, word in COUNTS.items() if name in models}
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told.items())
    head = f"<h3>{escape(worker.device)}</h3>"
    return f'<section class="card">{head}<dl class="pairs">{pairs}</dl>{_table(models)}</section>'


def _table(models: dict[str, Any]) -> str:
    """The components that are loaded, most recently used first."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(model['key']))}</th><td>{_size(model['bytes'])}</td>"
        f"<td>{escape(str(model['place']))}</td><td>{'yes' if model['borrowed'] else 'no'}</td></tr>"
        for model in models.get("models", [])
    )
    if not rows:
        return '<p class="quiet">No model is loaded.</p>'
    heads = "".join(f"<th scope='col'>{word}</th>" for word in ("Component", "Size", "Place", "In use"))
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{rows}</tbody>"
    return f"<div class='table-scroll'><table class='loaded'>{head}{body}</table></div>"


def _size(count: float) -> str:
    return shown_bytes(count, digits=1)
