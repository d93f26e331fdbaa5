"""Files made to do harm, from a seed: bombs, cut and mixed files, lying headers, endless clips, meshes of nothing.

Each is built from whole files by a few bytes or a few lines, so that it gets past the first check that believes it.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

SIDES = (0, 1, 2, 3, 255, 256, 32_768, 40_000, 65_535, 2**31 - 1, 2**32 - 1)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One part of a PNG, with a right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes = b"", *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size, with whatever pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels or b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body + chunk(b"IEND", b"")


def box(kind: bytes, *content: bytes) -> bytes:
    """One box of an MP4."""
    inner = b"".join(content)
    return struct.pack(">I4s", 8 + len(inner), kind) + inner


def mp4(frames: int, delta: int, scale: int, width: int, height: int, codec: bytes = b"avc1") -> bytes:
    """An MP4 whose index claims whatever it is told, and that has no pictures."""
    entry = struct.pack(">I4s6xH16xHH", 86, codec, 1, width, height) + b"\0" * 50
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stts", struct.pack(">IIII", 0, 1, frames, delta)),
        box(b"stsz", struct.pack(">III", 0, 0, frames)),
        box(b"stco", struct.pack(">II", 0, 0)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">IIIII", 0, 0, 0, scale, 0)),
        box(b"hdlr", b"\0" * 8 + b"vide" + b"\0" * 13),
        box(b"minf", table),
    )
    return box(b"ftyp", b"isom\0\0\0\0") + box(b"moov", box(b"mvhd", b"\0" * 100), box(b"trak", media)) + box(b"mdat")


def glb(tree: object, body: bytes = b"") -> bytes:
    """A binary glTF of a description and bytes."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text
    if body:
        parts += struct.pack("<II", len(body), 0x004E4942) + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts


@cache
def whole_files() -> dict[str, bytes]:
    """Small files that are what they claim to be."""
    from studio.encoders import encode

    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    made = {}
    for style in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "ICO", "PPM"):
        if style in Image.SAVE or style.lower() in Image.registered_extensions().values():
            buffer = io.BytesIO()
            try:
                image.save(buffer, style)
            except (OSError, KeyError):  # a codec this build of Pillow lacks
                continue
            made[style.lower()] = buffer.getvalue()
    source = {"engine": "quick_engine", "params": {"prompt": "a grey square", "seed": 1}}
    clip = np.stack([noise, noise[::-1]] * 3)
    made["result png"] = encode("image", image, "a.png", source, {})[0]
    made["mp4"] = encode("video", clip, "a.mp4", source, {"fps": 4})[0]
    made["manifest"] = json.dumps({"format": 1, **source}).encode()
    tree = {
        "asset": {"version": "2.0", "extras": {"atelier": source}},
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 3}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    made["glb"] = glb(tree, np.arange(9, dtype="<f4").tobytes())
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 3\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    made["ply"] = header.encode() + np.arange(9, dtype="<f4").tobytes()
    made["svg"] = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script></svg>'
    made["html"] = b"<!doctype html><script>alert(document.cookie)</script>"
    made["xml"] = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
    made["pdf"] = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"
    made["zip"] = b"PK\x03\x04" + b"\0" * 26
    made["elf"] = b"\x7fELF" + b"\0" * 60
    made["pickle"] = b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."
    made["playlist"] = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    return made


def cut(chance: random.Random) -> bytes:
    """A whole file that ends early."""
    data = chance.choice(list(whole_files().values()))
    return data[: chance.randrange(len(data) + 1)]


def flipped(chance: random.Random) -> bytes:
    """A whole file with some other bytes, most of them near the front."""
    data = bytearray(chance.choice(list(whole_files().values())))
    for _ in range(chance.randint(1, 12)):
        data[min(len(data) - 1, int(chance.expovariate(8 / len(data))))] = chance.randrange(256)
    return bytes(data)


def mixed(chance: random.Random) -> bytes:
    """Two files in one: the front of one with the other behind it, or inside."""
    first, second = (chance.choice(list(whole_files().values())) for _ in range(2))
    if chance.random() < 0.5:
        return first + second
    at = chance.randrange(len(first) + 1)
    return first[:at] + second + first[at:]


def picture_bomb(chance: random.Random) -> bytes:
    """A picture that is small as a file and large, flat or long otherwise."""
    width, height = chance.choice(SIDES), chance.choice(SIDES)
    ways: list[Callable[[], bytes]] = [
        lambda: png(width, height),
        lambda: png(1, 1, b"\0" * 4),
        lambda: png(40_000, 1, b"\0" * 120_001),
        lambda: png(1500, 1500, b"\0" * (1500 * 4501)),
        lambda: png(16, 16, b"\0" * 2**22),  # many more bytes than pixels
        lambda: png(8, 8, b"", chunk(b"zTXt", b"atelier\0\0" + zlib.compress(b"{" + b" " * 2**23))),
        lambda: png(8, 8, b"", chunk(b"iTXt", b"atelier\0\1\0\0\0" + zlib.compress(b" " * 2**23))),
        lambda: png(8, 8, b"", chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 2**23))),
        lambda: png(8, 8, b"", *[chunk(b"tEXt", b"a\0b")] * chance.randint(1, 5000)),
        lambda: png(8, 8, b"", chunk(b"tEXt", b"atelier\0" + hostile_json(chance))),
        lambda: png(8, 8, depth=chance.randrange(256), colour=chance.randrange(256)),
        lambda: (
            b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", height % 65536, width % 65536) + b"\3" + b"\0" * 20
        ),
        lambda: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (width % 2**24).to_bytes(3, "little") + b"\xff\x3f\0",
        lambda: b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f" + (width % 2**32).to_bytes(4, "little") + b"\0" * 4,
        lambda: b"RIFF" + struct.pack("<I", width % 2**32) + b"WEBPVP8 " + b"\0" * 30,
        lambda: b"GIF89a" + struct.pack("<HH", width % 65536, height % 65536) + b"\0" * 20,
    ]
    return chance.choice(ways)()


def turned(chance: random.Random) -> bytes:
    """A JPEG with an orientation, right or wrong, or with other EXIF."""
    exif = Image.Exif()
    exif[0x0112] = chance.choice([*range(10), 65_535])
    if chance.random() < 0.3:
        exif[0x010E] = "\u202e../" * chance.randint(1, 500)
    buffer = io.BytesIO()
    size = (chance.choice([1, 2, 16, 300]), chance.choice([1, 2, 16, 300]))
    mode = chance.choice(["RGB", "L", "CMYK"])
    Image.new(mode, size).save(
        buffer, "JPEG", exif=exif.tobytes() if chance.random() < 0.8 else b"Exif\0\0" + b"\xff" * 40
    )
    return buffer.getvalue()


def odd_picture(chance: random.Random) -> bytes:
    """A whole picture of a mode or size that code forgets."""
    mode = chance.choice(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
    size = (chance.choice([1, 2, 7, 2000]), chance.choice([1, 2, 7]))
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def endless(chance: random.Random) -> bytes:
    """A clip whose index says that it never ends, is larger than any screen, or divides by nothing."""
    frames = chance.choice([0, 1, 24, 10_000, 2**31, 2**32 - 1])
    delta = chance.choice([0, 1, 1000, 2**32 - 1])
    scale = chance.choice([0, 1, 24_000, 2**32 - 1])
    width, height = chance.choice(SIDES) % 65_536, chance.choice(SIDES) % 65_536
    made = mp4(frames, delta, scale, width, height, chance.choice([b"avc1", b"mp4v", b"text", b"\0\0\0\0"]))
    if chance.random() < 0.3:  # boxes in boxes, or fragments for ever
        deep = b""
        for _ in range(chance.randint(1, 3000)):
            deep = box(chance.choice([b"moov", b"trak", b"udta", b"meta"]), deep)
        made += chance.choice([deep, box(b"moof") * 2000, struct.pack(">I4sQ", 1, b"mdat", 2**63)])
    return made


def mesh_of_nothing(chance: random.Random) -> bytes:
    """A mesh of points that are no numbers, more faces than bytes, or parts in a circle."""
    value = chance.choice([float("nan"), float("inf"), -1e38, 0.0])
    count = chance.choice([0, 3, 4, 2**31, 10**12, -1, 1.5, "3", None])
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [chance.choice([{}, {"uri": "file:///etc/passwd"}, {"uri": "data:,x"}])],
        "bufferViews": [{"buffer": 0, "byteOffset": chance.choice([0, -1, 2**40]), "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": count}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": chance.choice([0, 9])}]}],
        "nodes": [{"children": [chance.choice([0, 1, -1, 99])]}, {"children": [0]}],
    }
    if chance.random() < 0.4:
        style = chance.choice(["ascii", "binary_little_endian", "binary_big_endian", "x"])
        header = f"ply\nformat {style} 1.0\nelement vertex {count}\nproperty float x\nelement face {count}\n"
        header += "property list uchar int vertex_indices\nend_header\n"
        return header.encode() + chance.choice([b"nan\n" * 3, struct.pack("<f", value) * 3, b""])
    return glb(tree, np.full(9, value, "<f4").tobytes())


def hostile_json(chance: random.Random) -> bytes:
    """JSON that is deep, long, twice the same, no JSON after all, or a manifest of the wrong things."""
    depth = chance.choice([10, 1000, 100_000])
    ways: list[Callable[[], bytes]] = [
        lambda: b'{"params": ' + b"[" * depth + b"]" * depth + b"}",
        lambda: b'{"a": ' * depth + b"1" + b"}" * depth,
        lambda: b'{"params": {"seed": ' + b"9" * chance.choice([20, 400, 5000]) + b'}, "engine": "quick_engine"}',
        lambda: b'{"params": {"seed": NaN, "prompt": Infinity}, "engine": "quick_engine"}',
        lambda: b'{"params": {"prompt": "\\ud800\\u0000"}, "engine": "quick_engine"}',
        lambda: b'{"engine": "quick_engine", "params": {"prompt": 1}, "params": {"prompt": [2]}}',
        lambda: b'{"jobs": ' + json.dumps([{"params": {}}] * 2000).encode() + b"}",
        lambda: b'\xef\xbb\xbf  {"engine": ["quick_engine"], "params": "x"}',
        lambda: '{"params": {"ＰＲＯＭＰＴ": "‮"}, "engine": "ültra"}'.encode("utf-16"),
        lambda: b'{"provenance": {"engine": "ultraimage", "params": {"prompt": "' + b"x" * 2**20 + b'"}}}',
        lambda: b"{" + bytes(chance.randrange(256) for _ in range(200)),
    ]
    return chance.choice(ways)()


def whole(chance: random.Random) -> bytes:
    """A file as it should be: refusing everything would be no feat."""
    return chance.choice(list(whole_files().values()))


def tiny(chance: random.Random) -> bytes:
    """Next to nothing, with the front of something."""
    data = chance.choice(list(whole_files().values()))
    return data[: chance.randint(0, 16)] + bytes(chance.randrange(256) for _ in range(chance.randint(0, 8)))


FAMILIES: dict[str, Callable[[random.Random], bytes]] = {
    "whole": whole,
    "cut": cut,
    "flipped": flipped,
    "mixed": mixed,
    "picture bomb": picture_bomb,
    "turned": turned,
    "odd picture": odd_picture,
    "endless video": endless,
    "mesh of nothing": mesh_of_nothing,
    "hostile JSON": hostile_json,
    "tiny": tiny,
}

NAMES = (
    "../../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd",
    "a/../../b.png",
    "con.png",
    ".htaccess",
    "",
    " ",
    ".",
    "..",
    "a\0b.png",
    "a\r\nSet-Cookie: x=1.png",
    "\u202egnp.exe",
    "x" * 300 + ".png",
    "a.png\ud800",
    "<img src=x onerror=alert(1)>.png",
    "'; DROP TABLE job; --.png",
    "%2e%2e%2f%2e%2e%2fsecret",
    "file:///etc/passwd",
    "ｆｕｌｌ.png",
    "😀" * 60,
    '"quoted".png',
)
