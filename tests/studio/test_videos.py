"""Videos: limits by the index alone, an index that must fit the bytes, and one frame that a decoder can read."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from studio.encoders import encode
from studio.errors import InvalidInput, TooLarge
from studio.uploads import Limits, check_upload
from studio.videos import Video, check_video, decode_first_frame

LIMITS = {"max_seconds": 10.0, "max_frames": 100, "max_pixels": 10_000}
FRAMES = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
CLIP = encode("video", FRAMES, "clip.mp4", {"engine": "e"}, {"fps": 8})[0]


def changed(path: tuple[bytes, ...], at: int, content: bytes, data: bytes = CLIP) -> bytes:
    """The clip with other bytes at place `at` of the box at `path`."""
    begin, end = 0, len(data)
    for kind in path:
        while data[begin + 4 : begin + 8] != kind:
            begin += struct.unpack_from(">I", data, begin)[0]
            assert begin < end, f"no box {kind!r}"
        end = begin + struct.unpack_from(">I", data, begin)[0]
        begin += 8
    return data[: begin + at] + content + data[begin + at + len(content) :]


def be(value: int) -> bytes:
    return struct.pack(">I", value)


TRACK = (b"moov", b"trak", b"mdia")
TABLE = (*TRACK, b"minf", b"stbl")
# stsd: version and count (8 bytes), then the entry: size, type at 4, width at 32
CODEC, WIDTH = ((*TABLE, b"stsd"), 12), ((*TABLE, b"stsd"), 40)


def test_a_clip_is_measured_by_its_index():
    assert check_video(CLIP, **LIMITS) == Video(48, 32, 12, 1.5)
    decode_first_frame(CLIP, max_pixels=10_000)
    kind = check_upload(CLIP)
    assert (kind.media_type, kind.width, kind.height, kind.frames, kind.seconds) == ("video/mp4", 48, 32, 12, 1.5)


def refusal(data: bytes, kind: type = InvalidInput, **limits: Any) -> str:
    with pytest.raises(kind) as caught:
        check_video(data, **{**LIMITS, **limits}, field="clip")
    assert caught.value.field == "clip"
    assert caught.value.remedy
    return caught.value.message


def test_the_limits_are_exact():
    check_video(CLIP, max_seconds=1.5, max_frames=12, max_pixels=48 * 32)
    assert "1.5 s" in refusal(CLIP, TooLarge, max_seconds=1.49)
    assert "12 frames" in refusal(CLIP, TooLarge, max_frames=11)
    assert "48 x 32 pixels" in refusal(CLIP, TooLarge, max_pixels=48 * 32 - 1)


def test_a_clip_that_never_ends_is_refused_unopened():
    endless = changed((*TABLE, b"stts"), 12, be(2**32 - 1))
    assert "allowed" in refusal(endless, TooLarge)
    many = changed((*TABLE, b"stsz"), 8, be(2**32 - 1), changed((*TABLE, b"stts"), 8, be(2**32 - 1)))
    assert "list of its index ends early" in refusal(many)


def test_a_frame_of_forty_thousand_pixels_a_side_is_refused_unopened():
    assert "pixels" in refusal(changed(*WIDTH, struct.pack(">HH", 40_000, 40_000)), TooLarge)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (CLIP[:-1], "ends early"),
        (CLIP[:200], "ends early"),
        (changed(*CODEC, b"text"), "'text', which cannot be read"),
        (changed((*TRACK, b"hdlr"), 8, b"soun"), "no picture"),
        (changed((*TRACK, b"mdhd"), 12, be(0)), "no length"),
        (changed(*WIDTH, be(0)), "no size"),
        (changed((*TABLE, b"stts"), 8, be(11)), "differ"),
        (changed((*TABLE, b"stts"), 4, be(2**32 - 1)), "list of its index ends early"),
        (changed((*TABLE, b"stsz"), 12, be(2**31)), "more bytes than it has"),
        (changed((*TABLE, b"stco"), 8, be(2**32 - 1)), "beyond its end"),
        (CLIP.replace(b"stts", b"free"), "lacks 'stts'"),
        (CLIP.replace(b"moov", b"free"), "no index"),
        (CLIP + struct.pack(">I4s", 8, b"moof"), "fragments"),
        (b"\0\0\0\x10ftypisom\0\0\0\0", "no index"),
    ],
)
def test_an_index_that_does_not_fit_is_a_sentence(data: bytes, says: str):
    assert says in refusal(data)


def test_what_only_claims_to_be_a_video_is_found_by_the_decoder():
    begin = CLIP.index(b"mdat") + 4
    noise = CLIP[:begin] + b"\x5a" * (len(CLIP) - begin)
    check_video(noise, **LIMITS)
    with pytest.raises(InvalidInput, match="cannot be decoded") as caught:
        check_upload(noise, Limits(), field="clip")
    assert caught.value.field == "clip"


def test_a_stream_larger_than_its_index_is_refused_by_the_decoder():
    lying = changed(*WIDTH, struct.pack(">HH", 8, 8))
    check_video(lying, **{**LIMITS, "max_pixels": 64})
    with pytest.raises(InvalidInput, match="cannot be decoded"):
        decode_first_frame(lying, max_pixels=64)


@hypothesis_settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_wrong_bytes_never_do_more_than_be_refused(data: st.DataObject):
    broken = bytearray(CLIP)
    start = CLIP.index(b"moov")
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(start, start + 700))] = data.draw(st.integers(0, 255))
    found = outcome(bytes(broken))
    if isinstance(found, Video):
        assert found.frames <= LIMITS["max_frames"]
        assert found.seconds <= LIMITS["max_seconds"]
        assert found.width * found.height <= LIMITS["max_pixels"]
    else:
        assert found.field == "video"


def outcome(data: bytes) -> Any:
    """What the index says, or the typed error."""
    try:
        return check_video(data, **LIMITS)
    except (InvalidInput, TooLarge) as error:
        return error
