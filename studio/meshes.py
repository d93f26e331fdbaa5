"""Meshes and point clouds that somebody uploads: how many faces and points, whether they lie in the file, and finite.

GLB (glTF 2.0) and PLY are read by their own tables, before any library sees them: counts against the limits, ranges
against the bytes that are there, positions against infinity, textures like any picture, and no reference to another
file. Raises InvalidInput or TooLarge with the field. Knows no store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.chunks import GLB_BINARY, Broken, glb_chunks
from studio.errors import InvalidInput, TooLarge

MAX_JSON = 2**21  # bytes of a GLB's description; real scenes have some thousands
MAX_DEPTH = 200  # of the tree of parts
CHOOSE = "Export it again as a GLB or a PLY."

_WIDTHS = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}  # glTF 2.0, table "accessor.componentType"
_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_PLY_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2"},
    **{"ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}

CheckPicture = Callable[[bytes], object]  # raises InvalidInput or TooLarge


@dataclass(frozen=True)
class Mesh:
    """What a file holds."""

    points: int  # vertices or splats
    faces: int


def check_mesh(data: bytes, *, max_faces: int, check_picture: CheckPicture, field: str = "mesh") -> Mesh:
    """A GLB or PLY whose parts hold together. Raises InvalidInput or TooLarge."""
    try:
        mesh = _glb(data, max_faces, check_picture) if data.startswith(b"glTF") else _ply(data, max_faces)
    except _TooMany as error:
        raise TooLarge(
            f"This mesh has {error.args[0]} {error.args[1]}; {max_faces} are allowed.",
            "Simplify it and upload it again.",
            field=field,
        ) from error
    except Broken as error:
        raise InvalidInput(f"The mesh cannot be used: {error}.", CHOOSE, field=field) from error
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:  # JSON of another shape
        raise InvalidInput("The mesh cannot be used: its description is incomplete.", CHOOSE, field=field) from error
    return mesh


class _TooMany(Exception):
    """(count, what)."""


def _at_most(count: int, limit: int, what: str) -> int:
    if count > limit:
        raise _TooMany(count, what)
    return count


# -- GLB ------------------------------------------------------------------------------------------------------------


def _glb(data: bytes, max_faces: int, check_picture: CheckPicture) -> Mesh:
    parts = list(glb_chunks(data))
    if len(parts[0][1]) > MAX_JSON:
        raise Broken("its description is too long")
    try:
        tree = json.loads(bytes(parts[0][1]))
    except (ValueError, RecursionError) as error:
        raise Broken("its description cannot be read") from error
    body = next((content for kind, content in parts[1:] if kind == GLB_BINARY), memoryview(b""))
    if any("uri" in item for name in ("buffers", "images") for item in tree.get(name, ())):
        raise Broken("it refers to other files")
    if packed := [name for name in tree.get("extensionsRequired", ()) if "compression" in str(name)]:
        raise Broken(f"it is compressed with {str(packed[0])[:40]!r}")
    _check_tree(tree.get("nodes", []))
    points = faces = 0
    for primitive in (item for mesh in tree.get("meshes", ()) for item in mesh["primitives"]):
        positions = tree["accessors"][_index(primitive["attributes"]["POSITION"])]
        count = _at_most(_index(positions["count"]), max_faces, "vertices")
        corners = tree["accessors"][_index(primitive["indices"])]["count"] if "indices" in primitive else count
        points = _at_most(points + count, max_faces, "vertices")
        faces = _at_most(faces + _index(corners) // 3, max_faces, "faces")
        _check_positions(tree, positions, body)
    for accessor in tree.get("accessors", ()):
        _bytes_of(tree, accessor, body)
    for image in tree.get("images", ()):
        check_picture(bytes(_view(tree, image["bufferView"], body)))
    return Mesh(points, faces)


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Broken("a number in it is not one")
    return value


def _view(tree: dict[str, Any], number: Any, body: memoryview) -> memoryview:
    view = tree["bufferViews"][_index(number)]
    start, length = _index(view.get("byteOffset", 0)), _index(view["byteLength"])
    if _index(view["buffer"]) != 0 or start + length > len(body):
        raise Broken("a part of it lies beyond its end")
    return body[start : start + length]


def _bytes_of(tree: dict[str, Any], accessor: dict[str, Any], body: memoryview) -> memoryview | None:
    """The bytes of an accessor, from its start to the end of its view; None for one that is all zeros."""
    if "sparse" in accessor:
        raise Broken("it is stored sparsely")
    if "bufferView" not in accessor:
        return None
    content = _view(tree, accessor["bufferView"], body)[_index(accessor.get("byteOffset", 0)) :]
    width = _WIDTHS[accessor["componentType"]] * _COUNTS[accessor["type"]]
    stride = _index(tree["bufferViews"][accessor["bufferView"]].get("byteStride", 0)) or width
    count = _index(accessor["count"])
    if count and (count - 1) * stride + width > len(content):
        raise Broken("it has fewer bytes than it says")
    return content


def _check_positions(tree: dict[str, Any], accessor: dict[str, Any], body: memoryview) -> None:
    content = _bytes_of(tree, accessor, body)
    if content is None or not accessor["count"]:
        return
    if accessor["componentType"] != 5126 or accessor["type"] != "VEC3":
        raise Broken("its positions are not three numbers each")
    stride = tree["bufferViews"][accessor["bufferView"]].get("byteStride", 0) or 12
    rows = np.ndarray((accessor["count"], 3), "<f4", content, strides=(stride, 4))
    if not np.isfinite(rows).all():
        raise Broken("a position in it is infinite or not a number")


def _check_tree(nodes: list[dict[str, Any]]) -> None:
    """Every part has one parent at most, so that nobody walks in circles; and the tree is not too deep."""
    parents: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for child in node.get("children", ()):
            if _index(child) >= len(nodes) or child in parents:
                raise Broken("its parts are not a tree")
            parents[child] = number
    for number in range(len(nodes)):
        depth, at = 0, number
        while at in parents:
            at, depth = parents[at], depth + 1
            if depth > MAX_DEPTH:
                raise Broken("its parts are nested too deeply, or in a circle")


# -- PLY ------------------------------------------------------------------------------------------------------------


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]]  # (name, NumPy type); lists are not among them
    lists: bool = False


def _ply(data: bytes, max_faces: int) -> Mesh:
    end = data.find(b"end_header", 0, MAX_JSON)
    start = data.find(b"\n", end) + 1
    if end < 0 or start == 0:
        raise Broken("its header has no end")
    lines = data[:end].decode("ascii", "replace").splitlines()
    style = next((line.split()[1] for line in lines if line.startswith("format ")), "")
    elements = list(_elements(lines))
    for element in elements:
        _at_most(element.count, max_faces, f"elements of {element.name[:20]!r}")
    if style == "ascii":
        _check_text(data[start:], elements)
    elif style in ("binary_little_endian", "binary_big_endian"):
        _check_binary(memoryview(data)[start:], elements, "<" if "little" in style else ">")
    else:
        raise Broken("its format is not known")
    counts = {element.name: element.count for element in elements}
    return Mesh(counts.get("vertex", 0), counts.get("face", 0))


def _elements(lines: list[str]) -> Iterator[_Element]:
    found: _Element | None = None
    for words in (line.split() for line in lines):
        if words[:1] == ["element"]:
            if found is not None:
                yield found
            if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 12:
                raise Broken("a number in its header is not one")
            found = _Element(words[1], int(words[2]), [])
        elif words[:1] == ["property"]:
            if found is None or len(words) < 3:
                raise Broken("its header is out of order")
            if words[1] == "list":
                found.lists = True
            elif words[1] in _PLY_TYPES:
                found.properties.append((words[2], _PLY_TYPES[words[1]]))
            else:
                raise Broken("a type in its header is not known")
    if found is not None:
        yield found


def _check_binary(body: memoryview, elements: list[_Element], order: str) -> None:
    """Elements of fixed size are looked at; from the first with lists on, only that there are bytes for each."""
    at = 0
    for number, element in enumerate(elements):
        if element.lists:
            least = sum(each.count for each in elements[number:])
            if least > len(body) - at:
                raise Broken("it has fewer bytes than it says")
            return
        if not element.properties:
            raise Broken("an element in it has no properties")
        names = [f"{place}:{name}" for place, (name, _) in enumerate(element.properties)]
        kind = np.dtype([(name, order + code) for name, (_, code) in zip(names, element.properties, strict=True)])
        size = kind.itemsize * element.count
        if size > len(body) - at:
            raise Broken("it has fewer bytes than it says")
        rows = np.frombuffer(body[at : at + size], kind)
        for name in names:
            if rows[name].dtype.kind == "f" and not np.isfinite(rows[name]).all():
                raise Broken("a number in it is infinite or not one")
        at += size


def _check_text(body: bytes, elements: list[_Element]) -> None:
    lines = body.split(b"\n", sum(element.count for element in elements))
    at = 0
    for element in elements:
        rows = lines[at : at + element.count]
        if len(rows) < element.count:
            raise Broken("it has fewer lines than it says")
        at += element.count
        if element.lists or not element.properties:
            continue
        try:
            values = np.array([row.split() for row in rows], dtype=float) if rows else np.zeros((0, 0))
        except ValueError as error:
            raise Broken("a number in it is not one") from error
        if rows and (values.shape[1] != len(element.properties) or not np.isfinite(values).all()):
            raise Broken("a number in it is infinite or not one")
