"""Photos as people have them: turned, transparent, grey, in four inks, broken, or no photos at all."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from engines.rid.album import (
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_UNPACKED,
    Photo,
    Refused,
    opened,
    photos,
    without_previews,
)
from studio.errors import InvalidInput
from tests.engines.rid.tiny import encoded, picture


def held(name: str, data: bytes) -> Photo:
    return Photo(name, lambda: data)


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return buffer.getvalue()


def refusal(found: Photo | Refused) -> InvalidInput:
    """Why a file cannot be used, whether that is seen from outside or when it is opened."""
    if isinstance(found, Refused):
        return found.error
    with pytest.raises(InvalidInput) as caught:
        opened(found)
    return caught.value


def test_a_turned_photo_is_set_upright():
    image = picture(1, 40, 32)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by 90 degrees; maker
    found = opened(held("a.jpg", encoded(image, "JPEG", exif=exif, quality=95)))
    assert found.size == (32, 40)
    kept = Image.Exif()
    kept.load(found.info["exif"])
    assert 0x0112 not in kept
    assert kept[0x010F] == "a camera"


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "RGB", "CMYK", "I;16", "I;16B"])
def test_every_kind_of_colours_can_be_used(mode: str):
    image = picture(2)
    if mode.startswith("I;16"):
        levels = np.asarray(image.convert("L")).astype(np.uint16) << 8 | 0xFF
        image = Image.frombytes(mode, image.size, levels.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    else:
        image = image.convert(mode)
    kind = {"CMYK": "JPEG", "I;16B": "TIFF"}.get(mode, "PNG")
    found = opened(held("a", encoded(image, kind)))
    assert found.mode == ("RGBA" if mode in ("LA", "RGBA") else "RGB")
    assert found.size == (40, 32)
    grey = np.asarray(found.convert("L")).astype(float)
    change = grey - np.asarray(picture(2).convert("L"))
    assert abs(change.mean()) < 6, "dithered or not, it is as bright as before"
    assert np.abs(change).mean() < 14 or mode == "1"


def test_sixteen_bits_of_white_are_white():
    for mode in ("I;16", "I;16B"):
        image = Image.frombytes(mode, (16, 16), b"\xff\xff" * 256)
        assert opened(held("a", encoded(image, "TIFF"))).getpixel((0, 0)) == (255, 255, 255)


def test_a_phones_jpeg_with_a_second_picture_inside_is_a_photo():
    data = encoded(picture(1), "MPO", quality=95, save_all=True, append_images=[picture(2)])
    found = np.asarray(opened(held("a.jpg", data))).astype(int)
    assert np.abs(found - np.asarray(picture(1))).mean() < 4


def camera_data(thumbnail: bytes) -> bytes:
    """EXIF as cameras write it: maker, exposure, place, a maker's note, and a thumbnail in a directory of its own."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x8769] = {0x829A: 0.5, 0x927C: b"note" * 1000}
    exif[0x8825] = {1: "N"}
    head = bytearray(exif.tobytes()[6:])  # TIFF, little or big endian as this machine
    order = "<" if head[:2] == b"II" else ">"
    first = struct.unpack_from(f"{order}I", head, 4)[0]
    following = first + 2 + 12 * struct.unpack_from(f"{order}H", head, first)[0]
    struct.pack_into(f"{order}I", head, following, len(head))
    at = len(head) + 2 + 3 * 12 + 4
    head += struct.pack(f"{order}H", 3)
    for tag, kind, value in ((0x0103, 3, 6), (0x0201, 4, at), (0x0202, 4, len(thumbnail))):
        packed = struct.pack(f"{order}H2x", value) if kind == 3 else struct.pack(f"{order}I", value)
        head += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    return b"Exif\0\0" + bytes(head) + b"\0" * 4 + thumbnail


def test_the_thumbnail_of_the_unprotected_photo_goes_and_the_camera_stays():
    thumbnail = encoded(picture(1, 16, 16), "JPEG")
    exif = camera_data(thumbnail)
    read = Image.Exif()
    read.load(exif)
    assert read.get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(thumbnail), "the example is as cameras write it"
    kept = opened(held("a.jpg", encoded(picture(1), "JPEG", exif=exif))).info["exif"]
    assert thumbnail[:20] not in kept
    assert b"notenote" not in kept
    found = Image.Exif()
    found.load(kept)
    assert found[0x010F] == "a camera"
    assert found.get_ifd(ExifTags.IFD.Exif)[0x829A] == 0.5
    assert found.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


@hypothesis_settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_damaged_camera_data_never_cost_the_photo(data: st.DataObject):
    exif = bytearray(camera_data(b"thumbnail"))
    for _ in range(data.draw(st.integers(1, 4))):
        exif[data.draw(st.integers(0, min(len(exif) - 1, 200)))] = data.draw(st.integers(0, 255))
    assert len(without_previews(bytes(exif))) < 3000


def test_a_colour_profile_stays_with_colours_alone():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = opened(held("a", encoded(picture(), "PNG", icc_profile=profile)))
    assert found.info["icc_profile"] == profile
    assert "icc_profile" not in opened(held("a", encoded(picture().convert("L"), "PNG", icc_profile=profile))).info


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encoded(picture(1), kind, save_all=True, append_images=[picture(2), picture(3)])


def of_32_bits(kind: type) -> bytes:
    return encoded(Image.fromarray(np.full((20, 20), 200, kind)), "TIFF")


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
        (animated("GIF"), "animated"),
        (animated("PNG"), "animated"),
        (animated("WEBP"), "animated"),
        (header_of(16, 3_000_000), "one side is more than 8 times"),
        (header_of(400, 3_201), "one side is more than 8 times"),
        (of_32_bits(np.int32), "32 bits"),
        (of_32_bits(np.float32), "32 bits"),
        (encoded(picture(), "TIFF")[:-100], "damaged"),
        (encoded(picture(), "WEBP")[:-100], "damaged"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "no picture"),
        (b"%PDF-1.7 something", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, said: str):
    with pytest.raises(InvalidInput, match=said) as caught:
        opened(held("a", data))
    assert caught.value.field == "images"
    assert caught.value.remedy


def test_files_of_an_archive_are_called_after_it_and_their_folders():
    one, two = encoded(picture(1)), encoded(picture(2))
    files = {"../../etc/passwd.png": one, "C:\\photos\\b.png": two, "folder/": b"", "__MACOSX/._a.png": b"x"}
    found = list(photos([held("all.zip", archive(files)), held("c.png", one)]))
    assert [photo.name for photo in found] == ["all.zip/etc/passwd.png", "all.zip/C:/photos/b.png", "c.png"]
    assert [photo.read() for photo in found if isinstance(photo, Photo)] == [one, two, one]


def test_one_broken_file_of_an_archive_fails_alone():
    good = encoded(picture(1))
    inner = archive({"x.png": good})
    data = bytearray(archive({"a.png": good, "b.png": encoded(picture(2)), "in.zip": inner}, zipfile.ZIP_STORED))
    at = data.find(encoded(picture(2)))
    data[at + 60] ^= 0xFF  # its check sum no longer fits
    first, broken, inside = photos([held("all.zip", bytes(data))])
    assert isinstance(first, Photo)
    assert opened(first).size == (40, 32)
    assert "damaged" in refusal(broken).message
    assert "archive inside" in refusal(inside).message


def test_a_locked_archive_says_so():
    data = bytearray(archive({"a.png": encoded(picture())}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(magic) + offset] |= 1
    (found,) = photos([held("locked.zip", bytes(data))])
    assert isinstance(found, Refused)
    assert "password" in found.error.message


def test_bombs_are_not_unpacked():
    (found,) = photos([held("bomb.zip", archive({"a.png": b"\0" * (MOST_BYTES + 1)}))])
    assert "more than is allowed" in refusal(found).message
    (many,) = photos([held("many.zip", archive({f"{n}.png": b"" for n in range(MOST_ENTRIES + 1)}))])
    assert isinstance(many, Refused)
    assert many.name == "many.zip"
    (more,) = photos([held("more.zip", archive({}) + b"PK\x01\x02" * (2 * MOST_ENTRIES + 1))])
    assert "more than the" in refusal(more).message


def test_what_archives_hold_is_counted_over_all_of_them():
    full = archive({f"{n}.png": b"" for n in range(MOST_ENTRIES - 1)})
    found = list(photos([held("a.zip", full), held("b.zip", archive({"1": b"", "2": b""})), held("c.zip", full[:0])]))
    assert len(found) == MOST_ENTRIES - 1 + 2
    assert found[-2].name == "b.zip"
    assert "allowed together" in refusal(found[-2]).message
    large = bytearray(archive({"a.png": b"x"}))
    at = large.find(b"PK\x01\x02") + 24
    large[at : at + 4] = struct.pack("<I", MOST_BYTES)  # that is what it says it unpacks to
    found = list(photos(held(f"{n}.zip", bytes(large)) for n in range(MOST_UNPACKED // MOST_BYTES + 2)))
    assert [type(item) for item in found] == [Photo] * (MOST_UNPACKED // MOST_BYTES) + [Refused] * 2
    assert "2 GB" in refusal(found[-1]).message


def test_nothing_is_read_before_its_turn():
    turns = []

    def reader(name: str, data: bytes) -> Photo:
        return Photo(name, lambda: turns.append(name) or data)

    found = photos([reader("a.zip", archive({"x.png": b"1", "y.png": b"2"})), reader("b.png", b"3")])
    first = next(found)
    assert turns == ["a.zip"]
    assert first.read() == b"1"
    assert [item.read() for item in found] == [b"2", b"3"]
    assert turns == ["a.zip", "b.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_cannot_be_unpacked_within_limits_is_refused(method: int):
    (found,) = photos([held("bomb.zip", archive({"a.png": b"\0" * 2**24}, method))])
    assert isinstance(found, Refused)
    assert "Deflate" in found.error.remedy


def test_a_file_that_lies_about_its_size_is_not_unpacked_further():
    data = bytearray(archive({"a.png": b"\0" * 2**26}))
    said = struct.pack("<I", 1000)
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(magic) + offset
        data[at : at + 4] = said
    (found,) = photos([held("bomb.zip", bytes(data))])
    tracemalloc.start()
    assert "damaged" in refusal(found).message
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


def of_another_age() -> bytes:
    """Says that a version of the format is needed which the library does not know."""
    data = bytearray(archive({"a.png": b"x"}))
    data[data.find(b"PK\x01\x02") + 6] = 200
    return bytes(data)


def with_broken_stream() -> bytes:
    data = bytearray(archive({"a.png": bytes(encoded(picture()))}))
    at = data.find(b"a.png") + len("a.png")
    data[at : at + 5] = b"\xff" * 5
    return bytes(data)


def test_a_broken_stream_is_told_by_its_files_name():
    (found,) = photos([held("all.zip", with_broken_stream())])
    assert found.name == "all.zip/a.png"
    assert "damaged" in refusal(found).message


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 and nothing more",
        archive({"a.png": bytes(encoded(picture()))}, zipfile.ZIP_STORED)[:600],
        of_another_age(),
    ],
)
def test_a_broken_archive_is_told_by_its_name(data: bytes):
    (found,) = photos([held("all.zip", data)])
    assert isinstance(found, Refused)
    assert found.name == "all.zip"
    assert "damaged" in found.error.message


def test_an_empty_archive_says_so():
    (found,) = photos([held("none.zip", archive({}))])
    assert isinstance(found, Refused)
    assert "no files" in found.error.message


def test_a_profile_that_is_a_number_is_none():
    """A tag of a TIFF may be of any type; libraries hand over what they find."""
    buffer = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[34675], tags.tagtype[34675] = 7, 3  # the profile's tag, as a short number
    picture(4).save(buffer, "TIFF", tiffinfo=tags)
    found = opened(held("t.tif", buffer.getvalue()))
    assert "icc_profile" not in found.info
    assert found.size == (40, 32)


def test_camera_data_of_wrong_types_are_dropped():
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = bytearray(exif.tobytes())
    place = data.index(bytes([0x01, 0x0F]) if b"MM" in data[:12] else bytes([0x0F, 0x01]))
    for kind in range(13):  # every type there is, for a tag that should be text
        order = slice(place + 2, place + 4)
        data[order] = kind.to_bytes(2, "big" if b"MM" in data[:12] else "little")
        assert isinstance(without_previews(bytes(data)), bytes)
