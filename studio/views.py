"""What a job looks like from outside: one plain dictionary for JSON and for the templates, with links for its reader.

The owner reads a job under `/api/jobs/<id>`, a guest under `/r/<token>`; both see the same view through other links.
Knows the store's records and the specs, but no HTTP and no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from studio.contract import EngineSpec, Metric
from studio.errors import NotFound
from studio.exhibits import in_order
from studio.inputs import field_for
from studio.jobs import Job
from studio.services import Services

OPEN = ("queued", "running", "paused")
WORDS = {
    "queued": "waiting",
    "running": "running",
    "paused": "paused",
    "succeeded": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True)
class Links:
    """Addresses of one job's parts for one reader."""

    base: str  # "/api/jobs/<id>" or "/r/<token>"
    state: str  # JSON of the view
    token: str = ""  # of the share link, for guests

    @classmethod
    def of_owner(cls, job_id: str) -> Links:
        """For the owner, who is known by the cookie."""
        return cls(f"/api/jobs/{job_id}", f"/api/jobs/{job_id}")

    @classmethod
    def of_guest(cls, token: str) -> Links:
        """For whoever holds a share link."""
        return cls(f"/r/{token}", f"/r/{token}/state", token)

    def file(self, sha: str, download: str = "") -> str:
        """The stored bytes; with `download` the browser saves them under that name."""
        query = [f"t={self.token}"] if self.token else []
        query += [f"download={quote(download, safe='')}"] if download else []
        return f"/files/{sha}" + ("?" + "&".join(query) if query else "")

    def preview(self, seq: int) -> str:
        """The picture of an unfinished result."""
        return f"{self.base}/previews/{seq}"

    @property
    def manifest(self) -> str:
        """The manifest as JSON."""
        return f"{self.base}/manifest"

    @property
    def archive(self) -> str:
        """All results in one file."""
        return f"{self.base}/files.zip"

    @property
    def panel(self) -> str:
        """The job as a piece of HTML."""
        return f"{self.base}/panel"


def job_view(services: Services, job: Job, links: Links) -> dict[str, Any]:
    """Everything a page or a program shows of `job`."""
    spec = spec_of(services, job.engine)
    outputs = in_order(output_view(output, links) for output in services.artifacts.outputs(job.id))
    finished = job.state == "succeeded"
    return {
        "id": job.id if not links.token else None,
        "engine": job.engine,
        "title": spec.title if spec else job.engine,
        "prompt": headline(job.params),
        "params": job.params,
        "state": job.state,
        "state_word": WORDS.get(job.state, job.state),
        "open": job.state in OPEN,
        "wish": job.wish,
        "kept": job.kept,
        "priority": job.priority,
        "attempts": job.attempts,
        "position": services.jobs.position(job.id) if job.state == "queued" else None,
        "queue_paused": job.state == "queued" and services.jobs.queue_paused,
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "progress": progress_view(job),
        "preview": _preview(job, links),
        "error": job.error,
        "outputs": outputs,
        "metrics": services.artifacts.job_metrics(job.id),
        "manifest": links.manifest if finished else None,
        "archive": links.archive if finished and len(outputs) > 1 else None,
        "version": f"{job.state}.{job.wish}.{job.attempts}.{job.priority}.{len(outputs)}",
        "links": {"self": links.state, "panel": links.panel},
    }


def senders(services: Services, output: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, address) of every method that takes this result as its input; the address opens it with the result."""
    specs = [services.catalog.spec(name) for name in services.catalog.names]
    fields = [(spec, field_for(spec, output["name"], output["media_type"])) for spec in specs]
    about = {"send": output["sha256"], "name": output["name"]}
    return [(spec.title, f"/{spec.name}?{urlencode({**about, 'field': field})}") for spec, field in fields if field]


def spec_of(services: Services, engine: str) -> EngineSpec | None:
    """The spec, or None for a job of an engine that is no longer installed."""
    try:
        return services.catalog.spec(engine)
    except NotFound:
        return None


def headline(params: Mapping[str, Any]) -> str:
    """What tells one job from another at a glance: its prompt, else the names of its files."""
    return str(params.get("prompt", "")).strip() or _files_of(params)


def _files_of(params: Mapping[str, Any]) -> str:
    """ "a.png and 3 more"; nothing where no parameter is a file."""
    values = [item for value in params.values() for item in (value if isinstance(value, list | tuple) else [value])]
    names = [str(item.get("name", "")) for item in values if isinstance(item, Mapping) and "sha256" in item]
    return "" if not names else names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def progress_view(job: Job) -> dict[str, Any]:
    """Step, total, fraction in [0, 1], message and seconds left; zeros before the first step."""
    now = job.progress or {}
    step, total = int(now.get("step") or 0), int(now.get("total") or 0)
    return {
        "step": step,
        "total": total,
        "fraction": min(1.0, step / total) if total else 0.0,
        "message": str(now.get("message") or ""),
        "eta": now.get("eta"),
    }


def _preview(job: Job, links: Links) -> str | None:
    seq = (job.progress or {}).get("preview")
    return links.preview(int(seq)) if seq is not None and job.state in OPEN else None


def output_view(output: Any, links: Links) -> dict[str, Any]:
    """One result file with its addresses."""
    attributes = dict(output.attributes)
    return {
        "name": output.name,
        "kind": output.kind,
        "sha256": output.sha,
        "bytes": output.bytes,
        "media_type": output.media_type,
        "role": str(attributes.get("role", "")),
        "label": str(attributes.get("title") or attributes.get("method") or output.name),
        "attributes": attributes,
        "metrics": dict(output.metrics),
        "url": links.file(output.sha),
        "download": links.file(output.sha, output.name),
    }


def metric_rows(view: Mapping[str, Any], spec: EngineSpec | None) -> list[dict[str, Any]]:
    """The table under a result: a row per metric, a value per output; the best value of a row is marked."""
    known = spec.metrics if spec else {}
    shown = [item for item in view["outputs"] if item["metrics"]]
    names = dict.fromkeys(name for item in shown for name in item["metrics"])
    ordered = [name for name in known if name in names] + [name for name in names if name not in known]
    rows = []
    for name in ordered:
        about = known.get(name) or Metric(name.replace("_", " ").capitalize(), "")
        values = [item["metrics"].get(name) for item in shown]
        best = _best(values, about.better)
        cells = [{"text": shown_value(value), "best": value is not None and value == best} for value in values]
        told = {"title": about.title, "help": about.help, "unit": about.unit, "better": about.better}
        rows.append({**told, "cells": cells})
    return rows


def _best(values: list[Any], better: str) -> float | None:
    """The value to mark: none where all are equal or the metric has no good direction."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if not better or len(set(numbers)) < 2:
        return None
    if better == "one":
        return min(numbers, key=lambda value: abs(value - 1))
    return max(numbers) if better == "higher" else min(numbers)


def shown_value(value: Any) -> str:
    """A metric as text: three significant digits, yes or no, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown_value(item) for item in value)
    return str(value)


def shown_bytes(size: float) -> str:
    """1536 -> '1.5 kB'."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def shown_seconds(seconds: float | None) -> str:
    """42 -> '42 s', 200 -> '3 min 20 s', 5400 -> '1 h 30 min'."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
