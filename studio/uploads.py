"""What somebody uploads: its type by content, its limits from its header, and only then its pixels.

A file's name and declared type are never believed. Sizes are read from the first bytes before any decoder sees the
file, so a small file that unfolds into a huge picture is refused unopened. Raises InvalidInput or TooLarge with the
field, the value and the remedy. Knows no store and no owner.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from studio.chunks import PNG_SIGNATURE, Broken, png_chunks
from studio.embedded import is_bundle, read_provenance
from studio.errors import DAMAGED_ARCHIVE, DAMAGED_PICTURE, InvalidInput, TooLarge
from studio.meshes import check_mesh
from studio.videos import check_video, decode_first_frame

PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}  # media type -> Pillow's name
CHOOSE = "Choose a PNG, JPEG or WebP picture."
ARCHIVE_FILES, ARCHIVE_BYTES = 2000, 2 * 2**30  # of a zip archive: files, and bytes of all of them unpacked


@dataclass(frozen=True)
class Upload:
    """What a checked file is."""

    media_type: str
    width: int | None = None  # pixels, of pictures and videos
    height: int | None = None
    frames: int | None = None  # of videos
    seconds: float | None = None


@dataclass(frozen=True)
class Limits:
    """What an upload may have at most."""

    bytes: int = 64 * 2**20
    pixels: int = 50_000_000  # of a picture, or of one frame
    seconds: float = 120.0
    frames: int = 3_600
    faces: int = 2_000_000  # or vertices, or points


def sniff(data: bytes) -> str:
    """The media type by the first bytes; "application/octet-stream" if none is known."""
    for at, magic, media_type in _MAGIC:
        if data[at : at + len(magic)] == magic:
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if is_bundle(data):
        return _STATE
    if data[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"heic": "image/heic", b"mif1": "image/heic"}.get(data[8:12], "video/mp4")
    return "application/json" if data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else _UNKNOWN


def check_upload(data: bytes, limits: Limits = Limits(), *, field: str = "file") -> Upload:  # noqa: B008 - frozen
    """A picture, video, mesh, archive, manifest or state that was saved here, whose layout holds together.

    Raises InvalidInput or TooLarge.
    """
    _check_size(data, limits.bytes, field)
    media_type = sniff(data)
    if media_type in PICTURES:
        return check_picture(data, max_bytes=limits.bytes, max_pixels=limits.pixels, field=field)
    if media_type == "application/zip":
        check_archive(data, field=field)
        return Upload(media_type)
    if media_type not in _RESULTS:
        raise InvalidInput(f"This is {_words(media_type)}, which cannot be used here.", CHOOSE, field=field)
    try:
        told = read_provenance(data)
    except (InvalidInput, TooLarge) as error:
        raise type(error)(error.message, error.remedy, field=field) from error
    if media_type == _STATE and told is None:
        raise InvalidInput("These tensors were not saved here.", "Use a file that a result came with.", field=field)
    if media_type == "video/mp4":
        found = check_video(
            data,
            max_seconds=limits.seconds,
            max_frames=limits.frames,
            max_pixels=limits.pixels,
            field=field,
        )
        decode_first_frame(data, max_pixels=limits.pixels, field=field)
        return Upload(media_type, found.width, found.height, found.frames, found.seconds)
    if media_type.startswith("model/"):

        def texture(inner: bytes) -> object:
            return check_picture(inner, max_bytes=limits.bytes, max_pixels=limits.pixels, field=field)

        check_mesh(data, max_faces=limits.faces, check_picture=texture, field=field)
    return Upload(media_type)


def check_picture(data: bytes, *, max_bytes: int, max_pixels: int, field: str = "image") -> Upload:
    """Type, size and pixels of a still picture, from its header alone. Raises InvalidInput or TooLarge."""
    _check_size(data, max_bytes, field)
    media_type = sniff(data)
    if media_type not in PICTURES:
        raise InvalidInput(f"This is {_words(media_type)}, not a picture that can be used.", CHOOSE, field=field)
    try:
        width, height, animated = _HEADERS[media_type](data)
    except (Broken, IndexError, struct.error) as error:
        raise _damaged(field) from error
    if width < 1 or height < 1:
        raise _damaged(field)
    if animated:
        raise InvalidInput("This picture is animated.", "Save one of its frames as a still picture.", field=field)
    if width * height > max_pixels:
        raise TooLarge(
            f"This picture has {width} x {height} pixels; {max_pixels / 1e6:g} million are allowed.",
            "Make it smaller and upload it again.",
            field=field,
        )
    return Upload(media_type, width, height)


def check_archive(data: bytes, *, field: str = "file") -> None:
    """Whether a zip archive can be unpacked, by its list of contents alone. Raises InvalidInput or TooLarge."""
    listed = data.count(b"PK\x01\x02")  # a list of millions is itself a bomb; photos may hold a few by chance
    if listed > 2 * ARCHIVE_FILES:
        raise TooLarge(
            f"The archive holds about {listed} files; {ARCHIVE_FILES} are allowed.", "Split it.", field=field
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except DAMAGED_ARCHIVE as error:
        raise InvalidInput("The archive is damaged or incomplete.", "Make it again.", field=field) from error
    if not entries:
        raise InvalidInput("The archive holds no files.", "Put some into it.", field=field)
    if any(entry.flag_bits & 1 for entry in entries):
        raise InvalidInput("The archive is locked with a password.", "Make one without.", field=field)
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > ARCHIVE_FILES or unpacked > ARCHIVE_BYTES:
        raise TooLarge(
            f"The archive holds {len(entries)} files of {unpacked / 2**20:.0f} MB together; {ARCHIVE_FILES} files of "
            f"{ARCHIVE_BYTES / 2**20:.0f} MB are allowed.",
            "Split it.",
            field=field,
        )


def open_picture(data: bytes, *, max_bytes: int, max_pixels: int, field: str = "image") -> Image.Image:
    """The picture in RGB or RGBA, turned upright, after all checks. Raises InvalidInput or TooLarge."""
    checked = check_picture(data, max_bytes=max_bytes, max_pixels=max_pixels, field=field)
    try:
        with Image.open(io.BytesIO(data), formats=[PICTURES[checked.media_type]]) as opened:
            if opened.size != (checked.width, checked.height):
                raise _damaged(field)
            opened.load()
            return _plain_colours(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise TooLarge(f"This picture is too large: {error}", "Make it smaller.", field=field) from error
    except DAMAGED_PICTURE as error:
        raise _damaged(field) from error


def _plain_colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    see_through = "A" in image.mode or "transparency" in image.info
    return image.convert("RGBA" if see_through else "RGB")


def _check_size(data: bytes, max_bytes: int, field: str) -> None:
    if not data:
        raise InvalidInput("The file is empty.", CHOOSE, field=field)
    if len(data) > max_bytes:
        raise TooLarge(
            f"The file has {len(data) / 2**20:.1f} MB; {max_bytes / 2**20:.1f} MB are allowed.",
            "Make it smaller and upload it again.",
            field=field,
        )


def _damaged(field: str) -> InvalidInput:
    return InvalidInput("The picture is damaged or was not transferred completely.", "Save it again.", field=field)


def _png_header(data: bytes) -> tuple[int, int, bool]:
    """(width, height, animated); walks to the end, so that a file cut short or followed by another is noticed."""
    width = height = 0
    animated = pixels = False
    for kind, content in png_chunks(data):
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", content)
        animated |= kind == b"acTL"
        pixels |= kind == b"IDAT"
    if not pixels:
        raise Broken("it has no pixels")
    return width, height, animated


# Frame headers of JPEG; C4, C8 and CC among them are tables (ITU T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_header(data: bytes) -> tuple[int, int, bool]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise Broken("a marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height, False
        if marker in (0xD9, 0xDA):
            raise Broken("it has no frame header")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without content
            at += 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        if length < 2:
            raise Broken("a length is wrong")
        at += 2 + length


def _webp_header(data: bytes) -> tuple[int, int, bool]:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise Broken("it ends early")
    kind = data[12:16]
    if kind == b"VP8X":  # canvas less one in 24 bits each; flag 2: animation
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height, bool(data[20] & 2)
    if kind == b"VP8L" and data[20] == 0x2F:  # two times 14 bits, less one
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, False
    raise Broken("it has no frame header")


_HEADERS = {"image/png": _png_header, "image/jpeg": _jpeg_header, "image/webp": _webp_header}
_STATE = "application/vnd.safetensors"
_RESULTS = frozenset({"video/mp4", "model/gltf-binary", "model/ply", "application/json", _STATE})
_UNKNOWN = "application/octet-stream"
_MAGIC = (
    (0, PNG_SIGNATURE, "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"glTF", "model/gltf-binary"),
    (0, b"ply\n", "model/ply"),
    (0, b"ply\r\n", "model/ply"),
    (0, b"%PDF", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"<svg", "image/svg+xml"),
    (0, b"<?xml", "text/xml"),
    (0, b"<", "text/html"),
)
_NAMES = {
    _UNKNOWN: "a file of an unknown type",
    "image/svg+xml": "an SVG drawing",
    "image/avif": "an AVIF file",
    "application/json": "a JSON file",
    "text/xml": "an XML file",
    "video/mp4": "an MP4 video",
    "model/ply": "a PLY file",
}


def _words(media_type: str) -> str:
    return _NAMES.get(media_type, f"a {media_type.rpartition('/')[2].split('+')[0].split('-')[0].upper()} file")
