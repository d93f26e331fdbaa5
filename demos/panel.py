"""The shared job panel: the submit button, the estimate, settings from a file, and the job beside the form.

A tab places its widgets in a `Form` and calls `Panel.controls`, `Panel.job` and `Panel.wire`. Handlers only read and
submit: nothing runs inside an event. The job itself is shown by <atelier-job>, which watches it through the API, so
that a reload or another tab sees the same. What the studio can do comes in as a `Desk`; this module knows no store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from demos.fields import Form, fault_html
from demos.pieces import (
    QUIET,
    engine_choices,
    estimate_html,
    job_html,
    raw,
    shown_bytes,
    shown_size,
    shown_time,
    title,
)
from studio.contract import EngineSpec, Estimate
from studio.errors import AtelierError, EngineFailed, InvalidInput

if TYPE_CHECKING:
    from studio.jobs import Job

__all__ = [
    "QUIET",
    "Desk",
    "Form",
    "Panel",
    "WorkerView",
    "engine_choices",
    "fault_html",
    "presets",
    "raw",
    "shown_bytes",
    "title",
]

log = logging.getLogger("atelier.pages")
SETTINGS_BYTES = 256 * 2**20  # the largest file settings are read from


@dataclass(frozen=True)
class WorkerView:
    """One worker as the pages show it."""

    device: str
    age: float  # seconds since its last sign of life
    facts: Mapping[str, Any]  # fields of contract.DeviceFacts, and under "models" those of the cache's statistics


@dataclass(frozen=True)
class Desk:
    """What the pages ask of the studio; app.py gives it, so that a page needs neither store nor HTTP."""

    specs: Mapping[str, EngineSpec]
    submit: Callable[..., Job]  # (request, engine, values, token); raises typed errors
    estimate: Callable[[str, Mapping[str, Any]], Estimate]  # (engine, values)
    check: Callable[[EngineSpec, Mapping[str, Any]], Any]  # (spec, values) -> Params
    job: Callable[[Any, str], Job]  # (request, job id), the requester's own
    shared: Callable[[str], Job]  # (token of a share link)
    read_settings: Callable[[bytes], Mapping[str, Any] | None]  # provenance in a result file
    workers: Callable[[], list[WorkerView]]
    retention_days: float  # after which a finished job and its files are deleted; 0: never


@dataclass(frozen=True)
class Controls:
    """The widgets below a form."""

    estimate: gr.HTML
    fault: gr.HTML  # for failures that belong to no field
    submit: gr.Button
    token: gr.Textbox  # never shown; see ONCE
    file: gr.File
    file_fault: gr.HTML


class Panel:
    """What every tab shares. `blocks` is the application, for what happens when a page is opened."""

    def __init__(self, desk: Desk, blocks: gr.Blocks, pages: Mapping[str, str]) -> None:
        self.desk = desk
        self.blocks = blocks
        self.pages = pages  # path -> word, in the order of the navigation

    def header(self, path: str) -> None:
        """The head of a page: name, way to the other pages, and a link past both."""
        links = "".join(
            f'<a href="{escape(to)}"{" aria-current=page" if to == path else ""}>{escape(word)}</a>'
            for to, word in self.pages.items()
        )
        gr.Navbar(visible=False)
        raw(
            '<a class="skip" href="#content">Skip to the content</a><div class="house-head">'
            f'<a class="brand" href="/">Atelier</a><nav aria-label="Pages">{links}</nav>'
            "<atelier-account></atelier-account></div>"
            '<span id="content"></span>'
        )

    def controls(self, form: Form) -> Controls:
        """Estimate, button and settings file, to be placed under the widgets."""
        estimate = raw(estimate_html("Working out what this will take.", ""), elem_id="estimate")
        fault = raw("", visible=False, elem_id="error-general")
        submit = gr.Button(f"Run {form.spec.title}", variant="primary", elem_id="submit")
        token = gr.Textbox(visible=False)
        with gr.Accordion("Settings from file", open=False):
            file = gr.File(
                label="A result or manifest of this method", type="filepath", height=110, elem_id="settings"
            )
            file_fault = raw("", visible=False, elem_id="error-settings_file")
        return Controls(estimate, fault, submit, token, file, file_fault)

    def job(self) -> gr.HTML:
        """The place where the job is shown."""
        return raw(job_html(""), elem_id="job-panel")

    def wire(self, form: Form, controls: Controls, shown: gr.HTML) -> None:
        """Connect the widgets: estimate on every change, submit, restore from a file and from the address."""
        events = Events(self.desk, form)
        said, faults = [controls.estimate], [controls.fault, *form.fault_outputs]
        costs = {"fn": events.estimate, "inputs": form.inputs, "outputs": said, **QUIET}
        gr.on([w.change for w in form.inputs], **costs, trigger_mode="always_last")
        controls.submit.click(
            events.submit,
            [controls.token, *form.inputs],
            [shown, *faults],
            js=ONCE,
            trigger_mode="multiple",
            **QUIET,
        ).then(None, js=TO_FAULT, **QUIET)
        controls.file.upload(
            events.from_file, controls.file, [controls.file, controls.file_fault, *faults, *form.inputs], **QUIET
        )
        self.blocks.load(events.opened, None, [shown, *faults, *form.inputs], **QUIET).then(**costs)


# A double click is one job: the same values within this time carry the same token, and the queue knows it.
ONCE = """(_, ...values) => {
  const said = JSON.stringify(values), now = Date.now(), last = window.atelierLast;
  if (!last || last.said !== said || now - last.time > 1500) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const random = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"));
    window.atelierLast = {said, time: now, token: random.join("")};
  }
  return [window.atelierLast.token, ...values];
}"""

# After a refusal the first field with one is brought into view and takes the focus.
TO_FAULT = """() => requestAnimationFrame(() => {
  const fault = document.querySelector('.field-error');
  if (!fault) return;
  const id = fault.closest('[id^="error-"]').id.replace('error-', 'field-');
  fault.scrollIntoView({block: 'center'});
  document.getElementById(id)?.querySelector('input, textarea')?.focus({preventScroll: true});
})"""


class Events:
    """The handlers of one tab. Each returns updates; a failure becomes a sentence, never a trace."""

    def __init__(self, desk: Desk, form: Form) -> None:
        self.desk = desk
        self.form = form
        self.engine = form.spec.name

    def estimate(self, *raw: Any) -> Any:
        """What the run would cost, as it is typed; a value that cannot be used says so here until it is submitted."""
        try:
            cost = self.desk.estimate(self.engine, self.form.values(raw))
        except AtelierError as error:
            return estimate_html(f"No estimate yet: {error.message}", error.remedy)
        except Exception:
            log.exception("estimating %s failed", self.engine)
            return estimate_html("No estimate can be made right now.", "")
        return estimate_html(f"About {shown_time(cost.seconds)} and {shown_size(cost.memory_bytes)}.", cost.note)

    def submit(self, request: gr.Request, token: str, *raw: Any) -> list[Any]:
        """Queue the job and show it; what was typed stays as it is in any case."""
        try:
            job = self.desk.submit(request, self.engine, self.form.values(raw), token or None)
        except Exception as error:
            return [gr.update(), *self._faults(self._typed(error))]
        return [job_html(job.id), *self._faults(None)]

    def from_file(self, path: str) -> list[Any]:
        """Fill the widgets with the settings in a result; a file without any changes nothing."""
        try:
            params = self._settings_in(Path(path))
        except Exception as error:
            told = gr.update(value=fault_html(self._typed(error)), visible=True)
            return [None, told, *self._unchanged(1 + len(self.form.fault_outputs)), *self._unchanged_form()]
        done = f'<p class="notice" role="status">The settings of {escape(Path(path).name)} are in the fields.</p>'
        return [None, gr.update(value=done, visible=True), *self._faults(None), *self.form.fill(params)]

    def opened(self, request: gr.Request) -> list[Any]:
        """The page as its address says: ?job= shows a job with its settings, ?settings= fills the fields only,
        and ?send= brings a stored file into the one that ?field= names.
        """
        query = dict(request.query_params)
        try:
            if query.get("job"):
                job = self.desk.job(request, query["job"])
            elif query.get("settings"):
                job = self.desk.shared(query["settings"])
            else:
                return [gr.update(), *self._faults(None), *self.form.receive(query)]
        except Exception as error:
            shown = job_html(query.get("job", ""))
            return [shown, *self._faults(self._typed(error)), *self._unchanged_form()]
        fields = self.form.fill(job.params) if job.engine == self.engine else self._unchanged_form()
        return [job_html(query.get("job", "")), *self._faults(None), *fields]

    def _settings_in(self, path: Path) -> dict[str, Any]:
        """The parameters in a result or manifest. Raises InvalidInput for the field of the file."""
        if path.stat().st_size > SETTINGS_BYTES:
            raise InvalidInput(f"{path.name} is too large to hold settings.", "Drop a result of Atelier here.")
        found = self.desk.read_settings(path.read_bytes())
        if not found or not isinstance(found.get("params"), dict):
            raise InvalidInput(
                f"{path.name} holds no settings of Atelier.", "Drop a result as it was downloaded, or its manifest."
            )
        if found.get("engine") != self.engine:
            raise InvalidInput(
                f"{path.name} was made by {str(found.get('engine'))[:60]!r}, not by {self.form.spec.title}.",
                "Open that method's page and drop the file there.",
            )
        return dict(self.desk.check(self.form.spec, found["params"]).model_dump(mode="json"))

    def _typed(self, error: Exception) -> AtelierError:
        if isinstance(error, AtelierError):
            return error
        log.error("a handler of %s failed", self.engine, exc_info=error)
        return EngineFailed("Something went wrong here, and it is not your fault.", "Try again in a moment.")

    def _faults(self, error: AtelierError | None) -> list[Any]:
        """Updates for the general place and all fields: the error stands at its field, else at the general place."""
        general = error is not None and not self.form.has(error.field)
        return [
            gr.update(value=fault_html(error) if error and general else "", visible=general),
            *self.form.faults(error),
        ]

    def _unchanged(self, count: int) -> list[Any]:
        return [gr.update() for _ in range(count)]

    def _unchanged_form(self) -> list[Any]:
        return self._unchanged(len(self.form.inputs))


def presets(form: Form) -> None:
    """Named settings to start from; nothing where the spec has none."""
    known = form.spec.presets
    if known:
        with gr.Accordion("Start from a preset", open=False), gr.Row(elem_classes="examples"):
            for name, values in known.items():
                gr.Button(name, size="sm").click(lambda v=values: form.fill(v), None, form.inputs, **QUIET)
