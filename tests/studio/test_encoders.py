"""Files that say how they were made: the same bytes every time, and provenance that comes back or is refused."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import trimesh
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio import bundle
from studio.embedded import MAX_TEXT
from studio.encoders import encode, read_provenance
from studio.errors import InvalidInput, TooLarge

ROOT = Path(__file__).resolve().parents[2]
PROVENANCE = {
    "engine": "e",
    "params": {"prompt": "a red ring; a = b # \\ 'é' ☃\nunder a pale sky", "seed": 2**63 - 1, "strength": 0.1},
    "models": [{"repo": "r", "revision": "sha256:00"}],
}
PLY = b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nend_header\n" + struct.pack(
    "<2f", 1.5, -2.0
)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def mesh() -> trimesh.Trimesh:
    box = trimesh.creation.box()
    return trimesh.Trimesh(box.vertices, box.faces, vertex_colors=pixels(len(box.vertices), 4), process=False)


VALUES: dict[str, tuple[str, Any, str, str]] = {
    "png": ("image", pixels(20, 30, 3), "a.png", "image/png"),
    "mp4": ("video", pixels(6, 32, 48, 3), "a.mp4", "video/mp4"),
    "glb": ("mesh", mesh(), "a.glb", "model/gltf-binary"),
    "ply": ("splats", PLY, "a.ply", "model/ply"),
    "json": ("data", {"b": [1, 2.5, None], "a": "☃"}, "a.json", "application/json"),
    "mesh as ply": ("data", mesh(), "a.ply", "model/ply"),
    "zip": ("archive", {"b.txt": b"b" * 99, "a.bin": bytes(range(256))}, "a.zip", "application/zip"),
    "safetensors": ("data", {"a": {"b": np.arange(6.0)}, "c": [1, "☃"]}, "a.safetensors", "application/octet-stream"),
}


def made(ending: str, provenance: dict[str, Any] = PROVENANCE) -> bytes:
    kind, value, name, media_type = VALUES[ending]
    data, told = encode(kind, value, name, provenance, {"fps": 8})
    assert told == media_type
    return data


@pytest.mark.parametrize("ending", VALUES)
def test_provenance_comes_back_from_the_file(ending: str):
    assert read_provenance(made(ending)) == PROVENANCE


@pytest.mark.parametrize("ending", VALUES)
def test_the_same_value_and_provenance_are_the_same_bytes(ending: str):
    shuffled = dict(reversed(PROVENANCE.items()))
    assert made(ending) == made(ending, shuffled)
    assert made(ending) != made(ending, {**PROVENANCE, "engine": "f"})


PRINT_HASHES = """
import hashlib
from tests.studio.test_encoders import VALUES, made
print([hashlib.sha256(made(ending)).hexdigest() for ending in VALUES])
"""


def test_another_process_writes_the_same_bytes():
    runs = [
        subprocess.run(
            [sys.executable, "-c", PRINT_HASHES],
            env={"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 4)])
def test_png_keeps_every_pixel(shape: tuple[int, ...]):
    data, _ = encode("image", pixels(*shape), "a.png", PROVENANCE, {})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels(*shape))


def test_png_forgets_where_a_picture_came_from():
    image = Image.fromarray(pixels(7, 5, 3))
    strange = image.copy()
    strange.info.update(dpi=(300, 300), exif=b"Exif\0\0secret", icc_profile=b"profile", comment="holiday")
    results = [encode("image", item, "a.png", PROVENANCE, {})[0] for item in (image, strange)]
    assert results[0] == results[1]


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LA", "I;16", "YCbCr", "F"])
def test_png_takes_pictures_of_any_mode(mode: str):
    data, _ = encode("image", Image.new(mode, (4, 3)), "a.png", PROVENANCE, {})
    assert Image.open(io.BytesIO(data)).size == (4, 3)


@pytest.mark.parametrize("size", [(32, 48), (31, 33)])
def test_mp4_keeps_frames_rate_and_colours(size: tuple[int, int], tmp_path: Path):
    colours = np.array([[200, 30, 30], [30, 160, 60], [40, 60, 210], [240, 240, 230]], dtype=np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (4, *size, 3))
    data, _ = encode("video", frames, "a.mp4", PROVENANCE, {"fps": 12})
    (tmp_path / "a.mp4").write_bytes(data)
    command = [get_ffmpeg_exe(), "-i", str(tmp_path / "a.mp4"), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    back = np.frombuffer(done.stdout, np.uint8).reshape(4, *even, 3)
    assert np.abs(back.mean((1, 2)) - colours).max() < 4
    assert b" 12 fps" in done.stderr
    assert b"bt709" in done.stderr


def test_mp4_carries_no_time_and_no_version():
    data = made("mp4")
    created, changed = struct.unpack_from(">II", data, data.index(b"mvhd") + 8)
    assert created == changed == 0
    assert re.search(rb"Lav[fc]\s*\d", data) is None
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads


def test_glb_is_still_the_same_mesh():
    back = trimesh.load(io.BytesIO(made("glb")), file_type="glb", force="mesh", process=False)
    assert np.allclose(back.vertices, mesh().vertices)
    assert np.array_equal(back.visual.vertex_colors, mesh().visual.vertex_colors)


def test_ply_keeps_everything_but_the_comment():
    lines = made("ply").split(b"\n", 3)
    assert lines[2].startswith(b"comment atelier {")
    assert b"\n".join([*lines[:2], lines[3]]) == PLY


def test_documents():
    assert encode("data", b"\x00\x01", "a.bin", PROVENANCE, {}) == (b"\x00\x01", "application/octet-stream")
    assert encode("archive", b"PK", "a.zip", PROVENANCE, {}) == (b"PK", "application/zip")
    assert encode("table", "a,b\n", "a.csv", PROVENANCE, {}) == (b"a,b\n", "text/csv")
    rows = [{"b": 1, "a": "x, y"}, {"b": 2, "a": "z"}]
    assert encode("table", rows, "a.csv", PROVENANCE, {})[0] == b'b,a\n1,"x, y"\n2,z\n'
    listed = json.loads(encode("table", rows, "a.json", PROVENANCE, {})[0])
    assert listed == {"data": rows, "provenance": PROVENANCE}


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("image", pixels(4, 4, 3), "a.jpg"),
        ("image", np.zeros((4, 4, 3)), "a.png"),
        ("image", np.zeros((0, 4, 3), np.uint8), "a.png"),
        ("video", pixels(4, 4, 3), "a.mp4"),
        ("video", pixels(2, 4, 4, 4), "a.mp4"),
        ("mesh", mesh(), "a.obj"),
        ("splats", b"not ply", "a.ply"),
        ("data", {"a": 1}, "a.txt"),
        ("sound", b"", "a.wav"),
    ],
)
def test_what_does_not_suit_its_kind_is_a_fault_of_the_engine(kind: str, value: Any, name: str):
    with pytest.raises(ValueError, match="a"):
        encode(kind, value, name, PROVENANCE, {"fps": 8})


def refusal(data: bytes) -> str:
    with pytest.raises((InvalidInput, TooLarge)) as caught:
        read_provenance(data)
    assert caught.value.field == "settings_file"
    assert caught.value.remedy
    return caught.value.message


def outcome(data: bytes) -> Any:
    """What reading gives, or the typed error it raises."""
    try:
        return read_provenance(data)
    except (InvalidInput, TooLarge) as error:
        return error if error.field == "settings_file" else None


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    """A whole PNG of one pixel with further chunks before its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def test_a_whole_file_without_provenance_has_none():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=PngInfo())
    assert read_provenance(buffer.getvalue()) is None
    assert read_provenance(PLY) is None
    assert read_provenance(mesh().export(file_type="glb")) is None
    assert read_provenance(b'{"something": "else"}') is None


def test_a_manifest_is_provenance_itself():
    manifest = {"engine": "e", "params": {"seed": 3}, "files": []}
    assert read_provenance(b"\xef\xbb\xbf \n" + json.dumps(manifest).encode()) == manifest


@pytest.mark.parametrize("ending", VALUES)
def test_a_file_cut_anywhere_is_refused_or_has_none(ending: str):
    data = made(ending)
    for end in [0, 1, 3, 7, 11, *range(12, len(data), max(1, len(data) // 60)), len(data) - 1]:
        found = outcome(data[:end])
        if not isinstance(found, InvalidInput):
            # Only what provenance does not need is missing: points behind a whole header, a newline at the end.
            assert ending in ("ply", "mesh as ply") or end == len(data) - 1 and ending == "json"
            assert found == PROVENANCE


@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data(), ending=st.sampled_from(list(VALUES)))
def test_a_file_with_wrong_bytes_is_refused_or_read_as_json(data: st.DataObject, ending: str):
    broken = bytearray(CACHED[ending])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    found = outcome(bytes(broken))
    assert found is None or isinstance(found, dict | InvalidInput | TooLarge)


CACHED = {ending: made(ending) for ending in VALUES}


def test_a_compressed_text_bomb_is_never_decompressed():
    bomb = zlib.compress(b"x" * 2**26, 9)
    assert "compressed" in refusal(png_with(chunk(b"zTXt", b"atelier\0\0" + bomb)))
    assert "compressed" in refusal(png_with(chunk(b"iTXt", b"atelier\0\1\0\0\0" + bomb)))
    assert read_provenance(png_with(chunk(b"zTXt", b"other\0\0" + bomb))) is None


def test_more_text_than_settings_need_is_refused():
    text = b'{"a":"' + b"x" * MAX_TEXT + b'"}'
    assert "are allowed" in refusal(png_with(chunk(b"tEXt", b"atelier\0" + text)))
    assert "are allowed" in refusal(text)
    assert "no end" in refusal(b"ply\ncomment atelier " + b"x" * 2**22)


def test_uncompressed_international_text_is_read():
    text = json.dumps(PROVENANCE, ensure_ascii=False).encode()
    assert read_provenance(png_with(chunk(b"iTXt", b"atelier\0\0\0en\0Atelier\0" + text))) == PROVENANCE


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"GIF89a" + b"\0" * 100, "type that carries no settings"),
        (b"MZ\x90\0", "type that carries no settings"),
        (b"<html></html>", "type that carries no settings"),
        (made("png") + b"PK\x03\x04evil", "something else follows its end"),
        (made("png") + made("png"), "something else follows its end"),
        (made("glb") + b"<script>", "length or version"),
        (made("mp4")[: made("mp4").index(b"moov") - 4], "no index"),
        (png_with(chunk(b"tEXt", b"atelier\0{}"), chunk(b"tEXt", b"atelier\0{}")), "two sets"),
        (png_with(chunk(b"tEXt", b"atelier\0[1, 2]")), "not a table"),
        (png_with(chunk(b"tEXt", b"atelier\0{oops")), "as JSON"),
        (png_with(chunk(b"tEXt", b'atelier\0{"a": "\xff"}')), "as JSON"),
        (png_with(b"\xff\xff\xff\xfftEXtatelier"), "ends early"),
        (b'{"a":' + b"[" * 100_000, "as JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "as JSON"),
        (b"{", "as JSON"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "not a header"),
        (b"ply\nformat ascii 1.0\n", "no end"),
    ],
)
def test_every_kind_of_corruption_has_its_sentence(data: bytes, says: str):
    assert says in refusal(data)


def test_a_lying_checksum_is_noticed():
    data = bytearray(made("png"))
    data[data.index(b"red ring")] ^= 1
    assert "checksum" in refusal(bytes(data))


def test_files_of_an_archive_and_tensors_come_back():
    with zipfile.ZipFile(io.BytesIO(made("zip"))) as archive:
        assert archive.namelist() == ["provenance.json", "b.txt", "a.bin"]
        assert archive.read("a.bin") == bytes(range(256))
        assert json.loads(archive.read("provenance.json")) == PROVENANCE
    assert len({made("safetensors") for _ in range(8)}) == 1  # the order of a header must not be left to chance
    state = bundle.unpack(made("safetensors"))
    assert state["c"] == [1, "☃"]
    np.testing.assert_array_equal(state["a"]["b"], np.arange(6.0))
    assert trimesh.load(io.BytesIO(made("mesh as ply")), file_type="ply").visual.vertex_colors.shape == (8, 4)


def test_a_foreign_archive_or_tensor_file_has_no_settings():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a")
    assert read_provenance(buffer.getvalue()) is None
    assert read_provenance(safetensors.numpy.save({"a": np.zeros(3)}, {"format": "np"})) is None


@pytest.mark.parametrize("ending", ["zip", "safetensors"])
@given(cut=st.integers(1, 400))
@hypothesis_settings(deadline=None, max_examples=30)
def test_what_is_cut_short_is_refused_or_has_no_settings(ending: str, cut: int):
    try:
        found = read_provenance(made(ending)[:cut])
    except (InvalidInput, TooLarge):
        return
    assert found in (None, PROVENANCE)
