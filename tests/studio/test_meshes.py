"""Meshes: counts, ranges and positions of GLB and PLY by their own tables, and nothing that reaches outside."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from studio.errors import InvalidInput, TooLarge
from studio.meshes import Mesh, check_mesh
from studio.uploads import check_upload
from tests.studio.site import png

BOX = trimesh.creation.box()
GLB = bytes(BOX.export(file_type="glb"))
PLY = bytes(BOX.export(file_type="ply"))
TEXT_PLY = bytes(BOX.export(file_type="ply", encoding="ascii"))


def checked(data: bytes, max_faces: int = 1000) -> Mesh:
    return check_mesh(data, max_faces=max_faces, check_picture=check_upload, field="mesh")


def glb(tree: Any, body: bytes = b"") -> bytes:
    """A GLB of a description and bytes."""
    text = (tree if isinstance(tree, bytes) else json.dumps(tree).encode()).ljust(4)
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text
    if body:
        body += b"\0" * (-len(body) % 4)
        parts += struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts


def triangle(change: Callable[[dict[str, Any]], None] = lambda tree: None, *, value: float = 1.0) -> bytes:
    """One triangle, changed."""
    tree: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 36}],
        "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 3}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
    }
    change(tree)
    return glb(tree, np.full(9, value, "<f4").tobytes())


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change: the last of `path` is the value, the others lead to its place."""

    def change(tree: dict[str, Any]) -> None:
        at: Any = tree
        for step in path[:-2]:
            at = at[step]
        at[path[-2]] = path[-1]

    return change


@pytest.mark.parametrize("data", [GLB, PLY, TEXT_PLY], ids=["glb", "binary ply", "text ply"])
def test_a_mesh_is_counted(data: bytes):
    assert checked(data).faces == 12
    assert checked(data, 24).points in (8, 24)
    assert check_upload(data).media_type.startswith("model/")


@pytest.mark.parametrize("data", [GLB, PLY, TEXT_PLY], ids=["glb", "binary ply", "text ply"])
def test_the_limit_is_on_faces_and_on_points(data: bytes):
    with pytest.raises(TooLarge, match="allowed") as caught:
        checked(data, 7)
    assert caught.value.field == "mesh"


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        checked(data)
    assert caught.value.field == "mesh"
    assert caught.value.remedy
    return caught.value.message


def test_a_triangle_is_fine():
    assert checked(triangle()) == Mesh(3, 1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (triangle(value=float("nan")), "infinite or not a number"),
        (triangle(value=float("inf")), "infinite or not a number"),
        (triangle(put("accessors", 0, "count", 4)), "fewer bytes"),
        (triangle(put("accessors", 0, "count", -1)), "not one"),
        (triangle(put("accessors", 0, "count", 1.5)), "not one"),
        (triangle(put("accessors", 0, "count", True)), "not one"),
        (triangle(put("accessors", 0, "type", "VEC2")), "three numbers"),
        (triangle(put("accessors", 0, "componentType", 1)), "incomplete"),
        (triangle(put("accessors", 0, "sparse", {"count": 10**9})), "sparsely"),
        (triangle(put("bufferViews", 0, "byteLength", 2**40)), "beyond its end"),
        (triangle(put("bufferViews", 0, "byteOffset", 2**40)), "beyond its end"),
        (triangle(put("bufferViews", 0, "buffer", 1)), "beyond its end"),
        (triangle(put("buffers", 0, "uri", "/etc/passwd")), "other files"),
        (triangle(put("images", [{"uri": "http://127.0.0.1/x.png"}])), "other files"),
        (triangle(put("extensionsRequired", ["KHR_draco_mesh_compression"])), "compressed"),
        (triangle(put("nodes", [{"children": [1]}, {"children": [0]}])), "circle"),
        (triangle(put("nodes", [{"children": [0]}])), "circle"),
        (triangle(put("nodes", [{"children": [2]}, {"children": [2]}, {}])), "not a tree"),
        (triangle(put("nodes", [{"children": [9]}])), "not a tree"),
        (triangle(put("nodes", [{"children": [n + 1]} for n in range(500)] + [{}])), "nested too deeply"),
        (triangle(put("meshes", [{}])), "incomplete"),
        (triangle(put("meshes", 3)), "incomplete"),
        (glb([1, 2]), "incomplete"),
        (glb(b"[" * 100_000), "cannot be read"),
        (glb(b"{"), "cannot be read"),
        (glb(b"{}" + b" " * 2**21), "too long"),
        (GLB[:-4], "length"),
        (GLB + b"<script>", "length"),
    ],
)
def test_a_glb_that_does_not_hold_together_is_a_sentence(data: bytes, says: str):
    assert says in refusal(data)


def test_a_texture_is_checked_like_any_picture():
    def with_image(tree: dict[str, Any]) -> None:
        tree["bufferViews"].append({"buffer": 0, "byteOffset": 0, "byteLength": 36})
        tree["images"] = [{"bufferView": 1, "mimeType": "image/png"}]

    with pytest.raises(InvalidInput, match="unknown type"):
        checked(triangle(with_image))
    picture = png()
    tree = {
        "asset": {"version": "2.0"},
        "bufferViews": [{"buffer": 0, "byteLength": len(picture)}],
        "images": [{"bufferView": 0}],
    }
    assert checked(glb(tree, picture)) == Mesh(0, 0)


def ply(*lines: str, body: bytes = b"") -> bytes:
    return "\n".join(["ply", *lines, "end_header", ""]).encode() + body


XYZ = ["property float x", "property float y", "property float z"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (ply("format ascii 1.0", "element vertex 1", *XYZ, body=b"0 nan 0\n"), "infinite or not one"),
        (ply("format ascii 1.0", "element vertex 1", *XYZ, body=b"0 x 0\n"), "is not one"),
        (ply("format ascii 1.0", "element vertex 1", *XYZ, body=b"0 0\n"), "infinite or not one"),
        (ply("format ascii 1.0", "element vertex 9", *XYZ, body=b"0 0 0\n"), "fewer lines"),
        (
            ply("format binary_little_endian 1.0", "element vertex 1", *XYZ, body=struct.pack("<3f", 0, np.nan, 0)),
            "infinite or not one",
        ),
        (ply("format binary_big_endian 1.0", "element vertex 2", *XYZ, body=b"\0" * 23), "fewer bytes"),
        (ply("format binary_little_endian 1.0", "element face 5", "property list uchar int v"), "fewer bytes"),
        (ply("format binary_little_endian 1.0", "element vertex 5"), "no properties"),
        (ply("format zip 1.0", "element vertex 0"), "format is not known"),
        (ply("format ascii 1.0", "element vertex -1"), "not one"),
        (ply("format ascii 1.0", "element vertex " + "9" * 5000), "not one"),
        (ply("format ascii 1.0", "element vertex ¹"), "not one"),
        (ply("format ascii 1.0", "property float x"), "out of order"),
        (ply("format ascii 1.0", "element vertex 1", "property complex x"), "type in its header"),
        (b"ply\nformat ascii 1.0\n", "no end"),
    ],
)
def test_a_ply_that_does_not_hold_together_is_a_sentence(data: bytes, says: str):
    assert says in refusal(data)


def test_a_ply_with_more_points_than_anybody_has_is_refused_unread():
    with pytest.raises(TooLarge):
        checked(ply("format ascii 1.0", "element vertex 999999999999", *XYZ))


@hypothesis_settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data(), whole=st.sampled_from([GLB, PLY, TEXT_PLY]))
def test_wrong_bytes_never_do_more_than_be_refused(data: st.DataObject, whole: bytes):
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(4, len(broken) - 1))] = data.draw(st.integers(0, 255))
    found = outcome(bytes(broken))
    if isinstance(found, Mesh):
        assert found.faces <= 1000
    else:
        assert found.field == "mesh"


def outcome(data: bytes) -> Any:
    """The mesh, or the typed error."""
    try:
        return checked(data)
    except (InvalidInput, TooLarge) as error:
        return error
