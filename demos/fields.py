"""Widgets from an engine's parameters: default, range, unit and help from the spec, a place for an error under each.

`Form` collects the widgets of one tab, turns their values into parameters and back, and shows a refusal at the field
where it happened. Knows pydantic's field descriptions and Gradio's widgets; knows no engine and no job.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr

from studio.contract import EngineSpec, FileRef
from studio.errors import AtelierError

SHA = re.compile(r"[0-9a-f]{64}")
EXACT = 2**53  # beyond it a browser's numbers lose digits, and a seed would not be the same seed
RADIO = 4  # more choices than this fold into a list
LONG_TEXT = ("prompt", "text")  # names of parameters that are written in sentences

Choices = Sequence[tuple[str, Any]]


class Form:
    """The widgets of one engine. `field` places one where it is called; the rest works on all of them."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.widgets: dict[str, Any] = {}
        self.slots: dict[str, gr.HTML] = {}
        self.folds: dict[str, gr.Accordion] = {}  # field -> the accordion it lies in

    def field(self, name: str, *, fold: gr.Accordion | None = None, choices: Choices = (), **changes: Any) -> Any:
        """Place the widget of parameter `name`; `changes` go to the widget, `choices` name a Literal's values.

        A file's only change is `examples`: addresses of files to try, by the word on their button.
        """
        info = self.spec.params.model_fields[name]
        if _is_files(info):
            self.widgets[name] = _files(name, info, changes.get("examples", {}))
        else:
            self.widgets[name] = _widget(name, info, dict(choices and _choices(choices)), changes)
        self.slots[name] = gr.HTML("", visible=False, apply_default_css=False, elem_id=f"error-{name}")
        if fold is not None:
            self.folds[name] = fold
        return self.widgets[name]

    def rest(self, fold: gr.Accordion, *, without: Sequence[str] = ()) -> None:
        """Place all parameters that have no widget yet."""
        for name in self.spec.params.model_fields:
            if name not in self.widgets and name not in without:
                self.field(name, fold=fold)

    @property
    def inputs(self) -> list[Any]:
        """The widgets, in the order in which `values` expects what they hold."""
        return list(self.widgets.values())

    @property
    def fault_outputs(self) -> list[Any]:
        """What `faults` returns updates for."""
        return [*self.slots.values(), *self._accordions()]

    def values(self, raw: Sequence[Any]) -> dict[str, Any]:
        """Parameters from what the widgets hold; an empty optional field counts as not given."""
        given = {}
        for name, value in zip(self.widgets, raw, strict=True):
            kind, optional = _unwrapped(self.spec.params.model_fields[name].annotation)
            blank = value is None or (isinstance(value, str) and not value.strip() and kind is not str)
            if _is_files(self.spec.params.model_fields[name]) and isinstance(value, str) and not blank:
                value = _read(value)
            elif get_origin(kind) is tuple and isinstance(value, str):
                value = [part for part in value.replace(",", " ").split() if part]
                blank = not value
            if not blank:
                given[name] = value
            elif optional:
                given[name] = None
        return given

    def fill(self, params: Mapping[str, Any]) -> list[Any]:
        """Updates for `inputs` that show `params`; widgets of parameters not in it stay as they are."""
        return [
            gr.update(value=_shown(self.spec.params.model_fields[name], params[name]))
            if name in params
            else gr.update()
            for name in self.widgets
        ]

    def receive(self, query: Mapping[str, str]) -> list[Any]:
        """Updates for `inputs` that put the stored file `send`, called `name`, into the parameter `field`."""
        field, sha = query.get("field", ""), query.get("send", "")
        info = self.spec.params.model_fields.get(field)
        if field not in self.widgets or info is None or not _is_files(info) or not SHA.fullmatch(sha):
            return [gr.update() for _ in self.widgets]
        file = {"sha256": sha, "name": query.get("name", "")[:200]}
        kind, _ = _unwrapped(info.annotation)
        return self.fill({field: [file] if get_origin(kind) is tuple else file})

    def faults(self, error: AtelierError | None) -> list[Any]:
        """Updates for `fault_outputs`: the refusal at its field, which is unfolded; nothing at all others."""
        field = error.field if error is not None else None
        slots = [
            gr.update(value=fault_html(error) if error and name == field else "", visible=name == field)
            for name in self.slots
        ]
        fold = self.folds.get(field or "")
        return slots + [gr.update(open=True) if each is fold else gr.update() for each in self._accordions()]

    def has(self, field: str | None) -> bool:
        """Whether there is a place for an error of `field`."""
        return field in self.slots

    def _accordions(self) -> list[gr.Accordion]:
        return list(dict.fromkeys(self.folds.values()))


def fault_html(error: AtelierError) -> str:
    """A refusal as a piece of HTML, spoken at once by screen readers."""
    remedy = f'<span class="remedy">{escape(error.remedy)}</span>' if error.remedy else ""
    return f'<p class="field-error" role="alert"><strong>{escape(error.message)}</strong> {remedy}</p>'


def _widget(name: str, info: Any, choices: dict[str, Any], changes: dict[str, Any]) -> Any:
    kind, optional = _unwrapped(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    unit = f" ({extra['unit']})" if "unit" in extra else ""
    common = {
        "label": (info.title or name) + unit,
        "info": info.description,
        "value": _shown(info, info.default),
        "elem_id": f"field-{name}",
    }
    low, high = _bound(info, "ge", "gt"), _bound(info, "le", "lt")
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return gr.CheckboxGroup(**{**common, "choices": _named(get_args(kind)[0], choices), **changes})
    if get_origin(kind) is Literal:
        named = _named(kind, choices)
        make = gr.Radio if len(named) <= RADIO else gr.Dropdown
        return make(**{**common, "choices": named, **changes})
    if kind is bool:
        return gr.Checkbox(**{**common, **changes})
    if kind in (int, float) and not optional and low is not None and high is not None and high - low < EXACT:
        step = 1 if kind is int else _step(high - low)
        return gr.Slider(**{**common, "minimum": low, "maximum": high, "step": step, **changes})
    placeholder = "automatic" if optional else None
    lines = 2 if name in LONG_TEXT else 1
    return gr.Textbox(**{**common, "lines": lines, "placeholder": placeholder, **changes})


def _is_files(info: Any) -> bool:
    kind, _ = _unwrapped(info.annotation)
    return kind is FileRef or FileRef in get_args(kind)


def _files(name: str, info: Any, examples: Mapping[str, Sequence[str]]) -> gr.Textbox:
    """A place to drop files; the text field beside it, which nobody sees, holds what is kept as JSON.

    `examples` are the addresses of files to try, by the word on their button.
    """
    kind, _ = _unwrapped(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    several = " multiple" if get_origin(kind) is tuple else ""
    told = {"label": info.title or name, "info": info.description or "", "accept": extra.get("accept", "")}
    told |= {"examples": json.dumps({word: list(files) for word, files in examples.items()})} if examples else {}
    attributes = " ".join(f'{key}="{escape(str(value))}"' for key, value in told.items())
    gr.HTML(f'<atelier-files field="field-{name}" {attributes}{several}></atelier-files>', apply_default_css=False)
    held = gr.Textbox("", show_label=False, container=False, elem_id=f"field-{name}", elem_classes="files-held")
    held.change(None, held, js=SHOW_FILES.replace("NAME", f"field-{name}"), queue=False, api_visibility="private")
    return held


SHOW_FILES = """(text) => document.querySelector('atelier-files[field="NAME"]')?.show(text)"""


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # the parameters say what is wrong with it


def _unwrapped(annotation: Any) -> tuple[Any, bool]:
    """(type without None, whether None was allowed)."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0], len(kinds) < len(get_args(annotation))
    return annotation, False


def _bound(info: Any, *names: str) -> float | None:
    return next((getattr(item, name) for item in info.metadata for name in names if hasattr(item, name)), None)


def _step(span: float) -> float:
    return 0.01 if span <= 5 else 0.1


def _choices(choices: Choices) -> list[tuple[Any, str]]:
    return [(value, title) for title, value in choices]


def _named(literal: Any, titles: Mapping[Any, str]) -> list[tuple[str, Any]]:
    """(title, value) of a Literal's values, in the order of the titles where there are any."""
    values = get_args(literal)
    ordered = [value for value in titles if value in values] + [value for value in values if value not in titles]
    return [(titles.get(value) or str(value).replace("_", " "), value) for value in ordered]


def _shown(info: Any, value: Any) -> Any:
    """A parameter as its widget holds it: what is typed as text is text, what is absent is empty."""
    kind, _ = _unwrapped(info.annotation)
    if _is_files(info):
        return json.dumps(value) if value else ""
    if get_origin(kind) is tuple:
        chosen = list(value or ())
        return chosen if get_origin(get_args(kind)[0]) is Literal else ", ".join(str(item) for item in chosen)
    if value is None:
        return ""
    low, high = _bound(info, "ge", "gt"), _bound(info, "le", "lt")
    slides = kind is info.annotation and low is not None and high is not None and high - low < EXACT
    return value if kind not in (int, float) or slides else f"{value:g}" if kind is float else str(value)
