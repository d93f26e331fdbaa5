"""The parts of PNG, GLB and MP4 files, found by their lengths alone: nothing is decoded or decompressed.

Every length is checked against what is there before it is believed. Raises `Broken` with half a sentence that says
where a file stops making sense. Knows layouts, not meanings.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GLB_JSON, GLB_BINARY = 0x4E4F534A, 0x004E4942  # glTF 2.0, 4.4.3
MAX_PARTS = 100_000  # chunks or boxes of one file; a real one has hundreds


class Broken(ValueError):
    """The bytes do not follow the layout they claim to have."""


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(type, content) from IHDR to IEND, checksums verified; nothing may follow."""
    view = memoryview(data)
    if view[:8] != PNG_SIGNATURE:
        raise Broken("it does not begin as a PNG does")
    at, kind = 8, b""
    for number in range(MAX_PARTS):
        if len(data) - at < 12:
            raise Broken("it ends early")
        length, kind = struct.unpack_from(">I4s", data, at)
        content = view[at + 8 : at + 8 + length]
        if len(data) - at < length + 12:
            raise Broken("it ends early")
        if number == 0 and (kind != b"IHDR" or length != 13):
            raise Broken("its first part is not a header")
        if zlib.crc32(view[at + 4 : at + 8 + length]) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise Broken("a checksum is wrong")
        yield kind, content
        at += length + 12
        if kind == b"IEND":
            break
    else:
        raise Broken("it has too many parts")
    if at != len(data):
        raise Broken("something else follows its end")


def glb_chunks(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of a binary glTF 2.0; the first is JSON."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise Broken("it does not begin as a GLB does")
    version, total = struct.unpack_from("<II", data, 4)
    if version != 2 or total != len(data):
        raise Broken("its length or version is wrong")
    at = 12
    for number in range(MAX_PARTS):
        if at == total:
            return
        if total - at < 8:
            break
        length, kind = struct.unpack_from("<II", data, at)
        if length > total - at - 8 or (number == 0 and kind != GLB_JSON):
            break
        yield kind, memoryview(data)[at + 8 : at + 8 + length]
        at += 8 + length
    raise Broken("its parts do not fit its length")


def mp4_boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """(type, content) of the boxes at the top level of `data`, which may itself be the content of a box."""
    view, at = memoryview(data), 0
    for _ in range(MAX_PARTS):
        if at == len(view):
            return
        if len(view) - at < 8:
            raise Broken("it ends early")
        size, kind = struct.unpack_from(">I4s", view, at)
        head = 8
        if size == 1 and len(view) - at >= 16:
            size, head = struct.unpack_from(">Q", view, at + 8)[0], 16
        elif size == 0:
            size = len(view) - at
        if size < head or size > len(view) - at:
            raise Broken("it ends early")
        yield kind, view[at + head : at + size]
        at += size
    raise Broken("it has too many parts")
