"""Values as files: each kind in one lasting format, with its provenance inside, and the same bytes every time.

PNG carries provenance in the text chunk "atelier", MP4 in its comment, GLB in `asset.extras`, PLY in a comment, JSON
and safetensors under the key "provenance", an archive of named files in a file of its own; CSV and archives that come
as bytes have no place for it and stand in the manifest alone. No time, date or
chance enters a file. This module knows nothing of jobs, and tensors reach it as NumPy arrays.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio import bundle
from studio.canonical import dumps, plain, pretty
from studio.chunks import GLB_JSON, glb_chunks
from studio.embedded import KEY, PROVENANCE_FILE, read_provenance

__all__ = ["KEY", "encode", "read_provenance"]

CRF = 16  # constant quality of H.264: finer than the eye sees at normal speed

_MEDIA_TYPES = {
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".glb": "model/gltf-binary",
    ".ply": "model/ply",
    ".json": "application/json",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".zip": "application/zip",
}
_ENDINGS = {"image": (".png",), "video": (".mp4",), "mesh": (".glb",), "splats": (".ply",)}
_PIXEL_MODES = ("L", "LA", "RGB", "RGBA", "I;16")


def encode(
    kind: str, value: Any, name: str, provenance: Mapping[str, Any], attributes: Mapping[str, Any]
) -> tuple[bytes, str]:
    """The bytes and media type of `value` as the file `name`. See `contract.Context.save` for the kinds.

    Raises ValueError or TypeError for a value or a name that does not suit the kind: a fault of the engine.
    """
    ending = PurePath(name).suffix.lower()
    if ending not in _ENDINGS.get(kind, (ending,)):
        raise ValueError(f"{name!r}: a file of kind {kind} ends in {' or '.join(_ENDINGS[kind])}")
    media_type = _MEDIA_TYPES.get(ending, "application/octet-stream")
    if kind == "image":
        return _png(value, provenance, attributes.get("carries", ())), media_type
    if kind == "video":
        return _mp4(value, float(attributes["fps"]), provenance), media_type
    if kind == "mesh":
        return _glb(value, provenance), media_type
    if kind == "splats":
        return _ply(value, provenance), media_type
    if kind in ("table", "archive", "data"):
        return _document(value, ending, provenance), media_type
    raise ValueError(f"artifact kind {kind!r} is not known")


def _png(value: Any, provenance: Mapping[str, Any], carries: Sequence[str] = ()) -> bytes:
    """A lossless PNG of a PIL image or of uint8 [H, W], [H, W, 3] or [H, W, 4].

    `carries` names what of an image's `info` goes into the file: "icc_profile", "exif".
    """
    image = value if isinstance(value, Image.Image) else Image.fromarray(_bytes_array(value, (2, 3)))
    if image.mode not in _PIXEL_MODES:
        image = image.convert("RGBA" if "transparency" in image.info or "A" in image.mode else "RGB")
    # Only the pixels, and what was asked for: whatever else an image remembers of its origin is nobody's business.
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    text = PngInfo()
    text.add_text(KEY, dumps(provenance))
    buffer = io.BytesIO()
    kept = {name: image.info[name] for name in ("icc_profile", "exif") if name in carries and image.info.get(name)}
    bare.save(buffer, "PNG", pnginfo=text, compress_level=6, **kept)
    return buffer.getvalue()


def _mp4(value: Any, fps: float, provenance: Mapping[str, Any]) -> bytes:
    """H.264, 4:2:0, BT.709, of uint8 [T, H, W, 3]; odd sides are widened by repeating the last line."""
    from imageio_ffmpeg import get_ffmpeg_exe

    frames = _bytes_array(value, (4,))
    if frames.shape[-1] != 3 or not len(frames) or not fps > 0:
        raise ValueError(f"a video of shape {frames.shape} at {fps} fps: expected [T, H, W, 3] and fps above 0")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        comment, target = Path(folder, "comment.txt"), Path(folder, "video.mp4")
        comment.write_text(f";FFMETADATA1\ncomment={_metadata_text(dumps(provenance))}\n", encoding="ascii")
        command = [get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frames.shape[2]}x{frames.shape[1]}"]
        command += ["-r", f"{fps:.6g}", "-i", "pipe:0", "-f", "ffmetadata", "-i", str(comment)]
        command += [*_MP4_OPTIONS, str(target)]
        done = subprocess.run(command, input=np.ascontiguousarray(frames).data, capture_output=True, check=False)
        if done.returncode != 0:
            raise OSError(f"the video encoder failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
        return target.read_bytes()


# One thread and bit-exact arithmetic: the same frames give the same file on every machine with this encoder.
_MP4_OPTIONS = (
    *("-map", "0:v", "-map_metadata", "1", "-an", "-c:v", "libx264", "-preset", "medium", "-crf", str(CRF)),
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+bitexact", "-pix_fmt", "yuv420p"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
    *("-threads", "1", "-x264-params", "threads=1:lookahead-threads=1", "-filter_threads", "1"),
    *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"),
)


def _metadata_text(text: str) -> str:
    return "".join("\\" + letter if letter in "=;#\\\n" else letter for letter in text)


def _glb(value: Any, provenance: Mapping[str, Any]) -> bytes:
    """Binary glTF of a trimesh mesh or scene, or of GLB bytes, with its JSON written canonically."""
    data = value if isinstance(value, bytes) else value.export(file_type="glb")
    parts = list(glb_chunks(data))
    tree = json.loads(bytes(parts[0][1]))
    tree["asset"]["extras"] = {**tree["asset"].get("extras", {}), KEY: plain(provenance)}
    text = dumps(tree).encode("ascii")
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), GLB_JSON) + text
    for kind, content in parts[1:]:
        body += struct.pack("<II", len(content), kind) + bytes(content)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def _ply(value: Any, provenance: Mapping[str, Any]) -> bytes:
    """PLY bytes with the comment after the line that names the format."""
    data = bytes(value)
    head, line, rest = data[:4], *_second_line(data)
    if head != b"ply\n" or not line.startswith(b"format "):
        raise ValueError("these bytes do not begin as a PLY file does")
    return head + line + f"comment {KEY} {dumps(provenance)}\n".encode("ascii") + rest


def _second_line(data: bytes) -> tuple[bytes, bytes]:
    end = data.find(b"\n", 4, 200) + 1
    return data[4:end], data[end:]


def _document(value: Any, ending: str, provenance: Mapping[str, Any]) -> bytes:
    """Bytes and text as they are; other values as JSON with their provenance, or rows of mappings as CSV."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8")
    if ending == ".csv":
        return _csv(value)
    if ending == ".ply" and hasattr(value, "export"):
        return _ply(value.export(file_type="ply"), provenance)
    if ending == ".zip" and isinstance(value, Mapping):
        return _zip(value, provenance)
    if ending == ".safetensors" and isinstance(value, Mapping):
        return bundle.pack({**value, "provenance": json.loads(dumps(provenance))})
    if ending != ".json":
        raise ValueError(f"a {type(value).__name__} can be kept as .json, not as {ending or 'a file without ending'}")
    tree = dict(value) if isinstance(value, Mapping) else {"data": value}
    return pretty({**tree, "provenance": provenance}).encode("utf-8")


def _zip(files: Mapping[str, bytes], provenance: Mapping[str, Any]) -> bytes:
    """Files by name in one archive, the provenance first and not compressed; all of the same, earliest time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entries = {PROVENANCE_FILE: pretty(provenance).encode(), **files}
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name == PROVENANCE_FILE else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def _csv(rows: Any) -> bytes:
    """Rows as mappings; the columns are those of the first row, in its order."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _bytes_array(value: Any, dimensions: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim not in dimensions or 0 in array.shape:
        raise ValueError(f"pixels of type {array.dtype} and shape {array.shape}: expected uint8 of {dimensions} axes")
    return array
