"""Videos that somebody uploads: duration, frames and pixels from the container's own index, before any decoder runs.

An MP4 or QuickTime file says in its index how many samples each track has, how long each lasts and where its bytes
lie (ISO/IEC 14496-12). All of it is checked against the limits and against the bytes that are there. Only then does
a decoder see the first frame, in a process of its own with bounded time, and with no way to open anything else.
Raises InvalidInput or TooLarge with the field. Knows no store.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.chunks import Broken, mp4_boxes
from studio.errors import InvalidInput, TooLarge

CODECS = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"mp4v"})
DECODE_S = 20.0  # for one frame; a healthy one takes a tenth of a second
CHOOSE = "Save it as an MP4 with H.264."


@dataclass(frozen=True)
class Video:
    """What the index of a video says."""

    width: int  # pixels
    height: int
    frames: int
    seconds: float


def check_video(data: bytes, *, max_seconds: float, max_frames: int, max_pixels: int, field: str = "video") -> Video:
    """Size, length and layout of a video, by its index alone. Raises InvalidInput or TooLarge."""
    try:
        video = _indexed(data, field)
    except (Broken, struct.error, IndexError) as error:
        said = str(error) if isinstance(error, Broken) else "its index is incomplete"
        raise InvalidInput(f"The video is damaged: {said}.", CHOOSE, field=field) from error
    shorter = "Cut it shorter and upload it again."
    if video.seconds > max_seconds:
        raise TooLarge(
            f"This video lasts {video.seconds:.4g} s; {max_seconds:g} s are allowed.", shorter, field=field
        )
    if video.frames > max_frames:
        raise TooLarge(f"This video has {video.frames} frames; {max_frames} are allowed.", shorter, field=field)
    if video.width * video.height > max_pixels:
        raise TooLarge(
            f"This video has {video.width} x {video.height} pixels; {max_pixels / 1e6:g} million are allowed.",
            "Make it smaller and upload it again.",
            field=field,
        )
    return video


def decode_first_frame(data: bytes, *, max_pixels: int, field: str = "video") -> None:
    """Let the decoder try one frame of a video that `check_video` has passed. Raises InvalidInput."""
    from imageio_ffmpeg import get_ffmpeg_exe

    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        source = Path(folder, "video.mp4")
        source.write_bytes(data)
        # The demuxer is named, so that no playlist is taken for a video; only files may be opened; and a stream that
        # is larger than its index says is refused by the decoder itself.
        command = [get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-threads", "1"]
        command += ["-max_pixels", str(max_pixels), "-protocol_whitelist", "file", "-f", "mov"]
        command += ["-i", str(source), "-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=DECODE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise InvalidInput("The video cannot be decoded in time.", CHOOSE, field=field) from error
    if done.returncode != 0 or done.stderr.strip():
        raise InvalidInput("The video cannot be decoded.", CHOOSE, field=field)


def _indexed(data: bytes, field: str) -> Video:
    boxes = list(mp4_boxes(data))
    kinds = [kind for kind, _ in boxes]
    if b"moov" not in kinds:
        raise Broken("it has no index")
    moov = boxes[kinds.index(b"moov")][1]
    if b"moof" in kinds or _child(moov, b"mvex") is not None:
        raise InvalidInput("This video is stored in fragments.", CHOOSE, field=field)
    tracks = [content for kind, content in mp4_boxes(moov) if kind == b"trak"]
    shown = [track for track in tracks if bytes(_needed(track, b"mdia", b"hdlr")[8:12]) == b"vide"]
    if not shown:
        raise InvalidInput("There is no picture in this video.", CHOOSE, field=field)
    return _track(shown[0], len(data), field)


def _track(track: memoryview, size: int, field: str) -> Video:
    """The first track with pictures; `size` is the number of bytes of the file."""
    table = (b"mdia", b"minf", b"stbl")
    entry = _needed(track, *table, b"stsd")[8:]
    codec = bytes(entry[4:8])
    if codec not in CODECS:
        raise InvalidInput(f"This video is encoded as {_shown(codec)}, which cannot be read.", CHOOSE, field=field)
    width, height = struct.unpack_from(">HH", entry, 32)
    header = _needed(track, b"mdia", b"mdhd")
    scale = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]
    times = _entries(_needed(track, *table, b"stts"), ">u4", 2)  # (how many samples, how long each)
    if not scale or not width or not height or not len(times):
        raise Broken("it has no length or no size")
    counts, lasting = times[:, 0].astype(float), times[:, 1].astype(float)
    frames = int(counts.sum())
    _check_bytes(track, table, frames, size)
    return Video(width, height, frames, float((counts * lasting).sum()) / scale)


def _check_bytes(track: memoryview, table: tuple[bytes, ...], frames: int, size: int) -> None:
    """The samples are as many as the times say, and lie in the file. Raises Broken."""
    sizes = _needed(track, *table, b"stsz")
    each, samples = struct.unpack_from(">II", sizes, 4)
    if samples != frames:
        raise Broken("its lists of times and of frames differ")
    total = each * samples if each else int(_column(sizes[12:], samples).sum())
    if total > size:
        raise Broken("its frames have more bytes than it has")
    if (wide := _child_of(track, *table, b"co64")) is not None:
        starts = _entries(wide, ">u8", 1)
    else:
        starts = _entries(_needed(track, *table, b"stco"), ">u4", 1)
    if len(starts) and int(starts.max()) >= size:
        raise Broken("its frames lie beyond its end")


def _entries(content: memoryview, kind: str, columns: int) -> np.ndarray:
    """The rows of a table: version and flags, their number, then that many. Raises Broken if they are not there."""
    count = struct.unpack_from(">I", content, 4)[0]
    width = np.dtype(kind).itemsize * columns
    if count * width > len(content) - 8:
        raise Broken("a list of its index ends early")
    return np.frombuffer(content[8 : 8 + count * width], kind).reshape(count, columns)


def _column(content: memoryview, count: int) -> np.ndarray:
    if count * 4 > len(content):
        raise Broken("a list of its index ends early")
    return np.frombuffer(content[: count * 4], ">u4").astype(np.uint64)


def _needed(content: memoryview, *path: bytes) -> memoryview:
    found = _child_of(content, *path)
    if found is None:
        raise Broken(f"its index lacks {_shown(path[-1])}")
    return found


def _child_of(content: memoryview, *path: bytes) -> memoryview | None:
    found: memoryview | None = content
    for kind in path:
        found = _child(found, kind) if found is not None else None
    return found


def _child(content: memoryview, kind: bytes) -> memoryview | None:
    return next((inner for name, inner in mp4_boxes(content) if name == kind), None)


def _shown(kind: bytes) -> str:
    return repr("".join(chr(byte) if 32 < byte < 127 else "?" for byte in kind))
