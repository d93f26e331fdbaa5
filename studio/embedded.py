"""Reading provenance back out of a file somebody brings: PNG, MP4, GLB, PLY, ZIP, safetensors, or a manifest.

The file may be broken or made to do harm. Its layout and the size of the text are checked first, nothing is
decompressed, no picture is decoded, and what comes out is plain JSON that the reader must still validate.
"""

from __future__ import annotations

import json
import re
from typing import Any

from studio.chunks import PNG_SIGNATURE, Broken, glb_chunks, mp4_boxes, png_chunks
from studio.errors import InvalidInput, TooLarge

KEY = "atelier"
MAX_TEXT = 1 << 20  # bytes of JSON; a run's own has a few thousand
MAX_HEADER = 1 << 21  # bytes of a PLY header or of a GLB's JSON part
MAX_TENSORS = 100_000_000  # bytes of a safetensors header: with thousands of tensors it is long
PROVENANCE_FILE = "provenance.json"  # the first file of an archive that was saved here
FIELD = "settings_file"


def read_provenance(data: bytes) -> dict[str, Any] | None:
    """The provenance inside a result file, or None if a whole file has none.

    Raises InvalidInput (field "settings_file") when the file is broken or of another type, TooLarge when the text in
    it is.
    """
    if not data:
        raise _refused("The file is empty.")
    for begins, read in (
        (data.startswith(PNG_SIGNATURE), _from_png),
        (data[4:8] == b"ftyp", _from_mp4),
        (data.startswith(b"glTF"), _from_glb),
        (re.match(rb"ply\r?\n", data) is not None, _from_ply),
        (data.startswith(b"PK\x03\x04"), _from_zip),
        (is_bundle(data), _from_safetensors),
        (data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"), _from_json),
    ):
        if begins:
            try:
                return read(data)
            except Broken as error:
                raise _refused(f"The file is damaged: {error}.") from error
    raise _refused("The file is of a type that carries no settings.")


def is_bundle(data: bytes) -> bool:
    """Whether these are safetensors as they are saved here, see studio/bundle.py, by their first bytes."""
    return data[8:25] == b'{"__metadata__":{'


def _refused(sentence: str) -> InvalidInput:
    remedy = "Choose a PNG, MP4, GLB, PLY, ZIP or safetensors file that was saved here, or a manifest.json."
    return InvalidInput(sentence, remedy, field=FIELD)


def _from_png(data: bytes) -> dict[str, Any] | None:
    found = None
    for kind, content in png_chunks(data):  # to the end, so that a truncated file is noticed
        if kind in (b"tEXt", b"iTXt", b"zTXt") and bytes(content[: len(KEY) + 1]) == KEY.encode() + b"\0":
            if found is not None:
                raise Broken("it holds two sets of settings")
            found = (kind, content[len(KEY) + 1 :])
    if found is None:
        return None
    kind, text = found
    if kind == b"iTXt" and len(text) >= 4 and text[0] == 0:  # not compressed; then language and translated key
        rest = bytes(text[2 : MAX_TEXT + 1024]).split(b"\0", 2)
        return _parsed(rest[2] if len(rest) == 3 else b"")
    if kind != b"tEXt":
        raise Broken("its settings are compressed, which no file saved here has")
    return _parsed(text)


def _from_mp4(data: bytes) -> dict[str, Any] | None:
    """moov / udta / meta / ilst / (c)cmt / data, as the iTunes layout has it."""
    moov = _box(_indexed_boxes(data), b"moov")
    udta = None if moov is None else _box(list(mp4_boxes(moov)), b"udta")
    meta = None if udta is None else _box(list(mp4_boxes(udta)), b"meta")
    ilst = None if meta is None else _box(list(mp4_boxes(meta[4:])), b"ilst")
    item = None if ilst is None else _box(list(mp4_boxes(ilst)), b"\xa9cmt")
    text = None if item is None else _box(list(mp4_boxes(item)), b"data")
    if text is None or bytes(text[8:9]) != b"{":
        return None  # no comment, or somebody else's
    return _parsed(text[8:])


def _indexed_boxes(data: bytes) -> list[tuple[bytes, memoryview]]:
    """The top-level boxes; a file cut short lacks its index, `moov`."""
    boxes = list(mp4_boxes(data))
    if b"moov" not in {kind for kind, _ in boxes}:
        raise Broken("it has no index")
    return boxes


def _box(boxes: list[tuple[bytes, memoryview]], kind: bytes) -> memoryview | None:
    return next((content for name, content in boxes if name == kind), None)


def _from_glb(data: bytes) -> dict[str, Any] | None:
    parts = list(glb_chunks(data))
    tree = _tree(parts[0][1], MAX_HEADER)
    asset = tree.get("asset")
    extras = asset.get("extras") if isinstance(asset, dict) else None
    found = extras.get(KEY) if isinstance(extras, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise Broken("its settings are not a table of values")
    return found


def _from_ply(data: bytes) -> dict[str, Any] | None:
    end = data.find(b"end_header", 0, MAX_HEADER)
    if end < 0:
        raise Broken("its header has no end")
    for line in data[:end].splitlines():
        if line.startswith(b"comment " + KEY.encode() + b" "):
            return _parsed(memoryview(line)[len(b"comment ") + len(KEY) + 1 :])
    return None


def _from_zip(data: bytes) -> dict[str, Any] | None:
    """The first file of the archive, if it is the one that `encoders` writes: by its own header, not compressed."""
    if len(data) < 30:
        raise Broken("it ends within its first entry")
    if data[-22:-18] != b"PK\x05\x06":
        raise Broken("it has no end, or a comment there, which no file saved here has")
    method, size = int.from_bytes(data[8:10], "little"), int.from_bytes(data[22:26], "little")
    name_end = 30 + int.from_bytes(data[26:28], "little")
    if data[30:name_end] != PROVENANCE_FILE.encode() or method != 0:
        return None
    start = name_end + int.from_bytes(data[28:30], "little")
    if start + size > len(data):
        raise Broken("it ends within its settings")
    return _parsed(memoryview(data)[start : start + size])


def _from_safetensors(data: bytes) -> dict[str, Any] | None:
    """The structure of a bundle, in the header's metadata."""
    length = int.from_bytes(data[:8], "little")
    if 8 + length > len(data):
        raise Broken("it ends within its header")
    header = _tree(memoryview(data)[8 : 8 + length], MAX_TENSORS)
    structure = header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values() if isinstance(entry, dict) and _spans(entry)]
    if 8 + length + max(ends, default=0) != len(data):
        raise Broken("it ends within its tensors, or after them")
    text = structure.get("bundle") if isinstance(structure, dict) else None
    kept = _tree(text.encode(), MAX_TENSORS).get("structure") if isinstance(text, str) else None
    found = kept.get("provenance") if isinstance(kept, dict) else None
    return found if isinstance(found, dict) else None


def _spans(entry: dict[str, Any]) -> bool:
    """Whether the entry of a tensor says from where to where it lies."""
    span = entry.get("data_offsets")
    return isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span)


def _from_json(data: bytes) -> dict[str, Any] | None:
    tree = _tree(memoryview(data), MAX_TEXT)
    if isinstance(tree.get("provenance"), dict):
        inner: dict[str, Any] = tree["provenance"]
        return inner
    return tree if isinstance(tree.get("params"), dict) and isinstance(tree.get("engine"), str) else None


def _parsed(text: bytes | memoryview) -> dict[str, Any]:
    return _tree(text, MAX_TEXT)


def _tree(text: bytes | memoryview, limit: int) -> dict[str, Any]:
    """JSON text of at most `limit` bytes as a table. Raises TooLarge or Broken."""
    if len(text) > limit:
        raise TooLarge(
            f"The settings in this file have {len(text)} bytes; {limit} are allowed.",
            "Choose a file that was saved here.",
            field=FIELD,
        )
    try:
        tree = json.loads(bytes(text).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also bad UTF-8 and numbers of thousands of digits
        raise Broken("its settings cannot be read as JSON") from error
    if not isinstance(tree, dict):
        raise Broken("its settings are not a table of values")
    return tree
