"""Files that parameters refer to: kept as uploads of their owner, and found from paths on the command line.

A parameter of type `contract.FileRef`, alone or in a tuple, names a file by its hash. Pages and programs upload first
and then name what they got; the command line names paths and folders. Knows no page and no method.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from studio.contract import EngineSpec, FileRef, Params
from studio.errors import InvalidInput
from studio.services import Services
from studio.uploads import sniff

MOST_NAME = 200  # characters of a file's name


def takes_files(info: FieldInfo) -> bool:
    """Whether a parameter is a file or several."""
    return any(kind is FileRef or FileRef in get_args(kind) for kind in _kinds(info.annotation))


def takes_several(info: FieldInfo) -> bool:
    """Whether a parameter is a tuple of files."""
    return any(get_origin(kind) is tuple for kind in _kinds(info.annotation)) and takes_files(info)


def _kinds(annotation: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    return [annotation] if get_origin(annotation) is tuple or annotation is FileRef else list(get_args(annotation))


def with_files(services: Services, spec: EngineSpec, values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`values` with every path of a file parameter replaced by what the file is called once it is kept.

    For the owner of the machine: files are kept as they are, and whoever reads them decides what they are worth.
    Raises InvalidInput at the field for a path that leads nowhere.
    """
    made = dict(values)
    for name, info in spec.params.model_fields.items():
        given = values.get(name)
        if not takes_files(info) or given is None:
            continue
        several = takes_several(info)
        paths = [given] if isinstance(given, str) else list(given)
        refs = [ref for path in paths for ref in _kept(services, path, owner, name, accepted(info))]
        if not several and len(refs) != 1:
            raise InvalidInput(f"{info.title or name} is one file.", "Name one file.", field=name)
        made[name] = refs if several else refs[0]
    return made


def accepted(info: FieldInfo) -> str:
    """What a browser offers for a file parameter, and what is taken from a folder: "image/*,.zip"."""
    extra = info.json_schema_extra
    return str(extra.get("accept", "")) if isinstance(extra, dict) else ""


def field_for(spec: EngineSpec, name: str, media_type: str) -> str | None:
    """The first parameter of the method that takes such a file, None if it takes none."""
    for field, info in spec.params.model_fields.items():
        kinds = accepted(info)
        if takes_files(info) and kinds and _suits(kinds, name, media_type):
            return field
    return None


def check_files(services: Services, params: Params, owner: str) -> None:
    """Every file the parameters name may be read by the owner. Raises InvalidInput at the field."""
    for field, info in type(params).model_fields.items():
        given = getattr(params, field)
        if not takes_files(info) or given is None:
            continue
        for ref in given if isinstance(given, tuple) else (given,):
            if not services.artifacts.may_read(ref.sha256, owner):
                called = ref.name or "This file"
                raise InvalidInput(
                    f"{called} is not here any more, or it is not yours.", "Choose it again.", field=field
                )


def _kept(services: Services, given: Any, owner: str, field: str, accept: str) -> Iterator[dict[str, str]]:
    """References as they are; a path as the reference of the kept file; a folder as those of what lies in it."""
    if not isinstance(given, str):
        yield given
        return
    path = Path(given).expanduser()
    if not path.exists():
        raise InvalidInput(f"There is no {given[:200]}.", "Name a file or a folder.", field=field)
    found = sorted(_inside(path, accept)) if path.is_dir() else [path]
    if not found:
        raise InvalidInput(f"{given[:200]} holds nothing that could be used.", "Name another folder.", field=field)
    for file in found:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        yield keep_file(services, file, owner, name, field).model_dump()


def _inside(folder: Path, accept: str) -> Iterator[Path]:
    """The files below a folder that look like what is accepted; hidden ones and their folders are passed by."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and _looks_right(path, accept):
            yield path


def _looks_right(path: Path, accept: str) -> bool:
    return not accept.strip() or _suits(accept, path.name, mimetypes.guess_type(path.name)[0] or "")


def _suits(accept: str, name: str, media_type: str) -> bool:
    """Whether a browser that offers `accept` would offer a file of this name and type."""
    kinds = [kind.strip().lower() for kind in accept.split(",") if kind.strip()]
    return any(
        name.lower().endswith(kind) if kind.startswith(".") else media_type.startswith(kind.removesuffix("*"))
        for kind in kinds
    )


def keep_file(services: Services, path: Path, owner: str, name: str, field: str) -> FileRef:
    """A file of this machine as an upload of `owner`. Raises InvalidInput."""
    try:
        with path.open("rb") as file:
            kind = sniff(file.read(64))
        sha = services.artifacts.put(path, media_type=kind, owner=owner, name=name[-MOST_NAME:])
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.", "Name another.", field=field) from error
    return FileRef(sha256=sha, name=name[-MOST_NAME:])
