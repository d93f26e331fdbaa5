"""Uploads: type by content, limits by header, and nothing decoded that was not checked."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from studio import bundle
from studio.errors import InvalidInput, TooLarge
from studio.uploads import Limits, Upload, check_picture, open_picture, sniff
from studio.uploads import check_upload as check_any

LIMITS = {"max_bytes": 2**20, "max_pixels": 1_000_000}


def check_upload(data: bytes, *, max_bytes: int, max_pixels: int, field: str = "file") -> Upload:
    """Any file under the same limits as a picture."""
    return check_any(data, Limits(bytes=max_bytes, pixels=max_pixels), field=field)


def saved(style: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, style, **options)
    return buffer.getvalue()


def animated(style: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, style, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, *more: bytes) -> bytes:
    """A PNG whose header claims a size, with few bytes behind it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body + chunk(b"IEND", b"")


GOOD = {
    "png": (saved("PNG"), "image/png"),
    "grey png": (saved("PNG", mode="L"), "image/png"),
    "jpeg": (saved("JPEG"), "image/jpeg"),
    "progressive jpeg": (saved("JPEG", progressive=True), "image/jpeg"),
    "lossy webp": (saved("WEBP"), "image/webp"),
    "lossless webp": (saved("WEBP", lossless=True), "image/webp"),
    "webp with alpha": (saved("WEBP", mode="RGBA"), "image/webp"),
    "webp with exif": (saved("WEBP", exif=Image.Exif().tobytes() + b"\0" * 8), "image/webp"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_is_known_by_its_content(name: str):
    data, media_type = GOOD[name]
    assert check_upload(data, **LIMITS) == check_picture(data, **LIMITS) == Upload(media_type, 40, 30)
    assert open_picture(data, **LIMITS).size == (40, 30)


def refusal(call: Any, data: bytes, kind: type = InvalidInput, **limits: int) -> str:
    with pytest.raises(kind) as caught:
        call(data, **{**LIMITS, **limits}, field="picture")
    assert caught.value.field == "picture"
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize("style", ["PNG", "WEBP"])
def test_an_animation_is_refused(style: str):
    assert "animated" in refusal(check_picture, animated(style))


@pytest.mark.parametrize(
    "data",
    [
        png_of(100_000, 100_000),
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + b"\0" * 20,
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0",
        b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f\0\0\0\0\0\0",
    ],
    ids=["png", "jpeg", "extended webp", "lossless webp"],
)
def test_a_bomb_is_refused_by_its_header_alone(data: bytes):
    assert "pixels" in refusal(check_picture, data, TooLarge)
    assert "pixels" in refusal(open_picture, data, TooLarge)


def test_the_limits_are_exact():
    data = saved("PNG", (100, 10))
    assert check_picture(data, max_bytes=len(data), max_pixels=1000).width == 100
    assert "100 x 10 pixels" in refusal(check_picture, data, TooLarge, max_pixels=999)
    assert "MB are allowed" in refusal(check_picture, data, TooLarge, max_bytes=len(data) - 1)


def test_a_state_that_was_saved_here_can_come_back():
    kept = bundle.pack({"steps": 3, "provenance": {"engine": "quick"}, "weights": np.zeros((4, 4), np.float32)})
    assert check_any(kept) == Upload("application/vnd.safetensors")
    assert "damaged" in refusal(check_upload, kept[:-1])
    assert "damaged" in refusal(check_upload, kept + b"\0")
    assert "not saved here" in refusal(check_upload, bundle.pack({"weights": np.zeros(3)}))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"GIF89a" + b"\0" * 50, "a GIF file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF file"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 12, "an AVIF file"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 12, "a HEIC file"),
        (b"II*\0", "a TIFF file"),
        (b"\x7fELF", "an unknown type"),
        (b"<!doctype html><script>", "a HTML file"),
        (png_of(0, 5), "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (saved("PNG") + b"<script>alert(1)</script>", "damaged"),
        (saved("PNG")[:-1], "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff\xe0\0\0", "damaged"),
        (b"RIFF\xff\xff\0\0WEBPVP8 ", "damaged"),
        (b"RIFF\x04\0\0\0WEBP", "damaged"),
    ],
)
def test_everything_else_has_its_sentence(data: bytes, says: str):
    assert says in refusal(check_picture, data)
    assert says in refusal(check_upload, data)


def test_result_files_may_be_uploaded_when_they_hold_together():
    manifest = b'{"engine": "e", "params": {}}'
    assert check_upload(manifest, **LIMITS) == Upload("application/json")
    assert "JSON" in refusal(check_upload, manifest[:-1])
    assert "JSON" in refusal(check_picture, manifest)
    assert sniff(b"ply\r\nformat") == "model/ply"


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "lossy webp", "lossless webp", "png"])
def test_a_picture_cut_short_is_refused_at_the_latest_when_opened(name: str):
    data = GOOD[name][0]
    for end in (len(data) - 10, len(data) * 2 // 3, len(data) // 3, 40, 20):
        assert refusal(open_picture, data[:end])


def test_pixels_that_do_not_fit_the_header_are_refused():
    assert "damaged" in refusal(open_picture, png_of(500, 500))


def test_a_text_bomb_inside_a_picture_is_refused():
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * 2**26, 9))
    assert "damaged" in refusal(open_picture, png_of(10, 10, bomb))


def test_a_picture_comes_upright_and_in_plain_colours():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert open_picture(saved("JPEG", exif=exif), **LIMITS).size == (30, 40)
    assert open_picture(saved("PNG", mode="RGBA"), **LIMITS).mode == "RGBA"
    assert open_picture(saved("PNG", mode="P"), **LIMITS).mode == "RGB"
    assert open_picture(saved("JPEG", mode="CMYK"), **LIMITS).mode == "RGB"
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8040, np.uint16)).save(buffer, "PNG")
    assert open_picture(buffer.getvalue(), **LIMITS).getpixel((0, 0)) == (0x80, 0x80, 0x80)


@hypothesis_settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.data(), name=st.sampled_from(list(GOOD)))
def test_wrong_bytes_never_do_more_than_be_refused(data: st.DataObject, name: str):
    broken = bytearray(GOOD[name][0])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, min(len(broken) - 1, 400)))] = data.draw(st.integers(0, 255))
    picture = outcome(bytes(broken))
    if isinstance(picture, Image.Image):
        assert picture.width * picture.height <= LIMITS["max_pixels"]
    else:
        assert picture.field == "image"


def outcome(data: bytes) -> Any:
    """The picture, or the typed error that opening it raises."""
    try:
        return open_picture(data, **LIMITS)
    except (InvalidInput, TooLarge) as error:
        return error


@hypothesis_settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=300), begin=st.sampled_from([value[0][:20] for value in GOOD.values()] + [b""]))
def test_noise_is_refused(data: bytes, begin: bytes):
    assert isinstance(outcome(begin + data), InvalidInput | TooLarge)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def locked() -> bytes:
    data = bytearray(archive_of({"a.png": saved("PNG")}))
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def bomb() -> bytes:
    data = bytearray(archive_of({"a.png": b"x"}))
    at = data.find(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 2**32 - 2)
    return bytes(data)


def of_another_age() -> bytes:
    """Says that a version of the format is needed which the library does not know."""
    data = bytearray(archive_of({"a.png": b"x"}))
    data[data.find(b"PK\x01\x02") + 6] = 200
    return bytes(data)


def test_an_archive_may_be_uploaded():
    assert check_upload(archive_of({"a.png": saved("PNG")}), **LIMITS) == Upload("application/zip")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (archive_of({}) or b"", "type|no files|cannot be used"),
        (archive_of({"a/": b""}), "no files"),
        (archive_of({"a.png": saved("PNG")})[:300], "damaged"),
        (locked(), "password"),
        (bomb(), "allowed"),
        (of_another_age(), "damaged"),
        (archive_of({f"{n}": b"" for n in range(2001)}), "allowed"),
        (archive_of({"a.png": b"x"}) + b"PK\x01\x02" * 4001, "about 4002 files"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_refused(data: bytes, said: str):
    with pytest.raises((InvalidInput, TooLarge), match=said):
        check_upload(data, **LIMITS)
