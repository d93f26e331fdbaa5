"""Photos as people have them: turned, transparent, grey, in four inks, broken, or no photos at all."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from engines.rid.album import MOST_BYTES, MOST_ENTRIES, Photo, Refused, opened, photos
from studio.errors import InvalidInput
from tests.engines.rid.tiny import encoded, picture


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return buffer.getvalue()


def test_a_turned_photo_is_set_upright():
    image = picture(1, 40, 32)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by 90 degrees; maker
    found = opened(Photo("a.jpg", encoded(image, "JPEG", exif=exif, quality=95)))
    assert found.size == (32, 40)
    kept = Image.Exif()
    kept.load(found.info["exif"])
    assert 0x0112 not in kept
    assert kept[0x010F] == "a camera"


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "RGB", "CMYK", "I;16"])
def test_every_kind_of_colours_can_be_used(mode: str):
    image = picture(2)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    else:
        image = image.convert(mode)
    found = opened(Photo("a", encoded(image, "JPEG" if mode == "CMYK" else "PNG")))
    assert found.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    assert found.size == (40, 32)
    grey = np.asarray(found.convert("L")).astype(float)
    change = grey - np.asarray(picture(2).convert("L"))
    assert abs(change.mean()) < 6, "dithered or not, it is as bright as before"
    assert np.abs(change).mean() < 14 or mode == "1"


def test_a_colour_profile_stays_with_colours_alone():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = opened(Photo("a", encoded(picture(), "PNG", icc_profile=profile)))
    assert found.info["icc_profile"] == profile
    assert "icc_profile" not in opened(Photo("a", encoded(picture().convert("L"), "PNG", icc_profile=profile))).info


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def animated() -> bytes:
    return encoded(picture(1), "GIF", save_all=True, append_images=[picture(2), picture(3)])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"plain text", "no picture"),
        (encoded(picture())[:200], "damaged"),
        (encoded(picture(), "JPEG")[:300], "damaged"),
        (encoded(picture(0, 1, 1)), "too small"),
        (encoded(picture(0, 200, 4)), "too small"),
        (header_of(10_000, 10_000), "million"),
        (header_of(100_000, 100_000), "too many pixels"),
        (animated(), "animated"),
        (b"%PDF-1.7 something", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, said: str):
    with pytest.raises(InvalidInput, match=said) as caught:
        opened(Photo("a", data))
    assert caught.value.field == "images"
    assert caught.value.remedy


def test_an_archive_is_unpacked_by_the_last_part_of_each_name():
    one, two = encoded(picture(1)), encoded(picture(2))
    files = {"../../etc/passwd.png": one, "C:\\photos\\b.png": two, "folder/": b"", "__MACOSX/._a.png": b"x"}
    found = list(photos([Photo("all.zip", archive(files)), Photo("c.png", one)]))
    assert [photo.name for photo in found] == ["passwd.png", "b.png", "c.png"]
    assert [photo.data for photo in found if isinstance(photo, Photo)] == [one, two, one]


def test_one_broken_file_of_an_archive_fails_alone():
    good = encoded(picture(1))
    inner = archive({"x.png": good})
    data = bytearray(archive({"a.png": good, "b.png": encoded(picture(2)), "in.zip": inner}, zipfile.ZIP_STORED))
    at = data.find(encoded(picture(2)))
    data[at + 60] ^= 0xFF  # its check sum no longer fits
    found = list(photos([Photo("all.zip", bytes(data))]))
    assert isinstance(found[0], Photo)
    assert [type(item) for item in found] == [Photo, Refused, Refused]
    assert "damaged" in found[1].error.message
    assert "archive inside" in found[2].error.message


def test_a_locked_archive_says_so():
    data = bytearray(archive({"a.png": encoded(picture())}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(magic) + offset] |= 1
    (found,) = photos([Photo("locked.zip", bytes(data))])
    assert isinstance(found, Refused)
    assert "password" in found.error.message


def test_bombs_are_not_unpacked():
    (found,) = photos([Photo("bomb.zip", archive({"a.png": b"\0" * (MOST_BYTES + 1)}))])
    assert isinstance(found, Refused)
    assert "more than is allowed" in found.error.message
    (many,) = photos([Photo("many.zip", archive({f"{n}.png": b"" for n in range(MOST_ENTRIES + 1)}))])
    assert isinstance(many, Refused)
    assert many.name == "many.zip"


def of_another_age() -> bytes:
    """Says that a version of the format is needed which the library does not know."""
    data = bytearray(archive({"a.png": b"x"}))
    data[data.find(b"PK\x01\x02") + 6] = 200
    return bytes(data)


def with_broken_lzma() -> bytes:
    data = bytearray(archive({"a.png": bytes(encoded(picture()))}, zipfile.ZIP_LZMA))
    at = data.find(b"a.png") + len("a.png") + 4  # behind the header of the compressed stream
    data[at : at + 5] = b"\xff" * 5
    return bytes(data)


def test_a_broken_stream_is_told_by_its_files_name():
    (found,) = photos([Photo("all.zip", with_broken_lzma())])
    assert isinstance(found, Refused)
    assert found.name == "a.png"
    assert "damaged" in found.error.message


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 and nothing more",
        archive({"a.png": bytes(encoded(picture()))}, zipfile.ZIP_STORED)[:600],
        of_another_age(),
    ],
)
def test_a_broken_archive_is_told_by_its_name(data: bytes):
    (found,) = photos([Photo("all.zip", data)])
    assert isinstance(found, Refused)
    assert found.name == "all.zip"
    assert "damaged" in found.error.message


def test_an_empty_archive_says_so():
    (found,) = photos([Photo("none.zip", archive({}))])
    assert isinstance(found, Refused)
    assert "no files" in found.error.message
