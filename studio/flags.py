"""Command-line flags of an engine, made from its parameters: names, help, ranges and defaults come from the spec.

Values stay text and are judged by the parameters themselves, so that the command line says the same sentences as the
page. Knows no command.
"""

from __future__ import annotations

import argparse
import json
import typing
from typing import Any, Literal

from pydantic.fields import FieldInfo

from studio.contract import EngineSpec
from studio.errors import InvalidInput, NotFound
from studio.inputs import takes_files

MOST_SEEDS = 100_000
RESERVED = ("help", "seeds", "preset", "settings", "out", "owner", "priority")  # flags of the commands themselves
DIGITS = 19  # of one seed; more fit no seed


def add_flags(parser: argparse.ArgumentParser, spec: EngineSpec) -> None:
    """One flag a parameter. A list such as `methods` is given by repeating its singular, `--method a --method b`.

    A parameter that is called like a flag of the command itself is given as `--param-NAME`.
    """
    group = parser.add_argument_group(f"{spec.title}: {spec.tagline}")
    for name, info in spec.params.model_fields.items():
        names = [f"--{'param-' * (name in RESERVED)}{name.replace('_', '-')}"]
        words: dict[str, Any] = {"dest": f"param:{name}", "default": None, "help": _help(info).replace("%", "%%")}
        if _is_list(info):
            single = name.removesuffix("s")
            names += [names[0].removesuffix("s")] if single not in (name, *spec.params.model_fields) else []
            words |= {"action": "append", "metavar": "PATH" if takes_files(info) else "VALUE"}
        elif info.annotation is bool:
            words |= {"action": argparse.BooleanOptionalAction}
        else:
            words |= {"metavar": _metavar(info)}
        group.add_argument(*names, **words)


def values_of(options: argparse.Namespace, spec: EngineSpec) -> dict[str, Any]:
    """What was given on the command line, by parameter."""
    values: dict[str, Any] = {}
    for name, info in spec.params.model_fields.items():
        given = getattr(options, f"param:{name}", None)
        if given is None:
            continue
        split = _is_list(info) and not takes_files(info)  # a comma may stand in a path
        values[name] = [part for text in given for part in text.split(",")] if split else given
    return values


def preset_values(spec: EngineSpec, name: str) -> dict[str, Any]:
    """The values of a preset; upper and lower case do not matter. Raises NotFound with the names."""
    for known, values in spec.presets.items():
        if known.lower() == name.lower():
            return dict(values)
    raise NotFound(f"{spec.title} has no preset {name!r}.", f"Its presets: {'; '.join(spec.presets) or 'none'}.")


def seeds_of(text: str) -> list[int]:
    """ "0:64" is 0 to 63, "3,5" is 3 and 5; both may be mixed. Raises InvalidInput."""
    seeds: list[int] = []
    for part in text.split(","):
        first, colon, end = part.strip().partition(":")
        if not first.isdecimal() or (colon and not end.isdecimal()) or max(len(first), len(end)) > DIGITS:
            raise InvalidInput(
                f"--seeds cannot be {text[:60]!r}.", "Write 0:64 for 0 to 63, or single seeds: 3,5,8.", field="seeds"
            )
        seeds += range(int(first), min(int(end), int(first) + MOST_SEEDS + 1)) if colon else [int(first)]
    if not seeds or len(seeds) > MOST_SEEDS:
        raise InvalidInput(f"--seeds {text[:60]} names {len(seeds)} seeds.", f"Use 1 to {MOST_SEEDS}.", field="seeds")
    return list(dict.fromkeys(seeds))


def jobs_in(manifest: bytes) -> list[dict[str, Any]]:
    """The jobs that the manifest of a batch lists; none if these bytes are something else."""
    if not manifest.lstrip().startswith(b"{"):
        return []
    try:
        found = json.loads(manifest).get("jobs", [])
    except (ValueError, RecursionError):  # also nested too deeply
        return []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _kinds(info: FieldInfo) -> list[Any]:
    """The types a field may have, None apart."""
    kinds = [item for item in typing.get_args(info.annotation) if item is not type(None)]
    is_union = typing.get_origin(info.annotation) not in (Literal, tuple, list, set, frozenset)
    return kinds if kinds and is_union else [info.annotation]


def _is_list(info: FieldInfo) -> bool:
    return any(typing.get_origin(kind) in (tuple, list, set, frozenset) for kind in _kinds(info))


def _metavar(info: FieldInfo) -> str:
    kind = _kinds(info)[0]
    return "PATH" if takes_files(info) else {int: "N", float: "X", str: "TEXT"}.get(kind, "VALUE")


def _choices(info: FieldInfo) -> list[str]:
    for kind in _kinds(info):
        members = [kind] if typing.get_origin(kind) is Literal else list(typing.get_args(kind))
        for member in members:
            if typing.get_origin(member) is Literal:
                return [str(choice) for choice in typing.get_args(member)]
    return []


def _help(info: FieldInfo) -> str:
    bounds = {
        name: getattr(item, name) for item in info.metadata for name in ("ge", "gt", "le") if hasattr(item, name)
    }
    parts = [info.description or info.title or ""]
    if takes_files(info):
        return f"{parts[0]} A file or a folder."
    if choices := _choices(info):
        parts.append(f"One of: {', '.join(choices)}.")
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le")
    if low is not None and high is not None:
        parts.append(f"{low} to {high}.")
    default = ", ".join(map(str, info.default)) if isinstance(info.default, tuple) else info.default
    if default not in (None, ""):
        parts.append(f"[{default}]")
    return " ".join(parts)
