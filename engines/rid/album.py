"""What somebody hands over to be protected: photos and zip archives of photos, opened one by one.

Nothing in a file is believed: sizes are looked at before anything is decoded, archives are read to their limits and
no further, and names are shown, never followed. Bytes are read when a photo is opened, and one archive at a time
is held. A file that cannot be used is told apart, so that the others go on. Knows no network and no store.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from studio.errors import DAMAGED_ARCHIVE, DAMAGED_PICTURE, InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
STILLS = ("TIFF", "MPO")  # what may hold several pictures, of which the first is the photo; MPO is a phone's JPEG
LEAST_SIDE = 16  # pixels; below it there is nothing to protect
MOST_PIXELS = 50_000_000
LONGEST = 8  # sides at most as 8:1; a longer picture is no photo, and each of its squares would cost a pass
MOST_ENTRIES = 2000  # of all archives together
MOST_BYTES = 64 * 2**20  # of one file in an archive
MOST_UNPACKED = 2 * 2**30  # of all files in all archives together
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the library unpacks others without any limit on the way
DIRECTORY_ENTRY = b"PK\x01\x02"
CARRIED = 1024  # bytes of one EXIF entry; a preview of the photo does not fit into them
POINTERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop)
NAMED = 5  # files that could not be used and are named in a sentence
FIELD = "images"
CHOOSE = "Choose a PNG, JPEG, WebP, BMP or TIFF photo, or a zip archive of some."


@dataclass(frozen=True)
class Photo:
    """How its owner calls one file, and what reads its bytes."""

    name: str  # in an archive with that and its folders, by which alone two of the same name can be told apart
    read: Callable[[], bytes]  # raises InvalidInput where an archive is damaged


@dataclass(frozen=True)
class Refused:
    """A file that cannot be used, and why."""

    name: str
    error: InvalidInput


@dataclass
class _Left:
    """What archives may still hold, all of those of one pass together."""

    entries: int = MOST_ENTRIES
    unpacked: int = MOST_UNPACKED


def photos(files: Iterable[Photo]) -> Iterator[Photo | Refused]:
    """Every photo of the files, archives taken apart, in their order; nothing is unpacked before it is read.

    What passes depends on what the archives say alone: every pass over the same files yields the same.
    """
    left = _Left()
    for file in files:
        data = file.read()
        if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _unpacked(file.name, data, left)
        else:
            yield Photo(file.name, partial(bytes, data))  # of bytes, `bytes` makes no copy


def refusals(refused: list[str], of: int, listed: str = "") -> str:
    """What is said above the others of files that cannot be used, each with its reason; `listed`: where all are."""
    more = f" And {len(refused) - NAMED} more{listed}." if len(refused) > NAMED else ""
    return f"{len(refused)} of {of} files could not be used. {' '.join(refused[:NAMED])}{more}"


def opened(photo: Photo) -> Image.Image:
    """The picture turned upright, in RGB or RGBA of 8 bits, from 16 pixels a side and at most eight times as long.

    Its colour profile and its EXIF, without previews, stay in `info`. Raises InvalidInput.
    """
    data = photo.read()
    if not data:
        raise _unusable("The file is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _plain(image)
    except Image.DecompressionBombError as error:
        raise _unusable("This picture has far too many pixels.", "Make it smaller.") from error
    except Image.UnidentifiedImageError as error:
        raise _unusable("This is no picture that can be used.") from error
    except (*DAMAGED_PICTURE, MemoryError) as error:
        raise _unusable("The picture is damaged or incomplete.", "Save it again.") from error


def _check(image: Image.Image) -> None:
    """Refuse by the header alone what must not be decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _unusable(
            f"This picture has {width} x {height} pixels; {MOST_PIXELS / 1e6:g} million are allowed.",
            "Make it smaller.",
        )
    if min(width, height) < LEAST_SIDE:
        raise _unusable(
            f"This picture is {width} x {height} pixels: too small to show a face.",
            f"Each side needs at least {LEAST_SIDE} pixels.",
        )
    if max(width, height) > LONGEST * min(width, height):
        raise _unusable(
            f"This picture is {width} x {height} pixels: one side is more than {LONGEST} times the other.",
            "Cut out the part with the person.",
        )
    if image.mode in ("I", "F"):
        raise _unusable(
            "This picture has 32 bits a pixel, and nothing in it says which value is white.",
            "Save it with 8 or 16 bits.",
        )
    if getattr(image, "n_frames", 1) > 1 and image.format not in STILLS:
        raise _unusable("This picture is animated.", "Save one of its frames as a still picture.")


def _plain(image: Image.Image) -> Image.Image:
    """RGB or RGBA of 8 bits; four inks become colours by their own profile, if they carry one."""
    # A tag of a damaged file may hold anything, a number too.
    kept = {name: image.info[name] for name in ("exif", "icc_profile") if isinstance(image.info.get(name), bytes)}
    if "exif" in kept:
        kept["exif"] = without_previews(kept["exif"])
    if image.mode.startswith("I;16"):  # grey, in either order of bytes
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        kept.pop("icc_profile", None)
    elif image.mode in ("CMYK", "LAB"):
        image = _by_profile(image)
        kept.pop("icc_profile", None)
    elif image.mode in ("1", "L", "LA"):
        kept.pop("icc_profile", None)  # it speaks of grey
    mode = "RGBA" if image.has_transparency_data else "RGB"
    made = image if image.mode == mode else image.convert(mode)
    made.info = kept
    return made


def without_previews(exif: bytes) -> bytes:
    """Camera data without anything that could show the photo as it was; nothing where they are damaged.

    The thumbnail has a directory of its own, which is left out; makers' notes and the like are too large to stay.
    """
    try:
        source = Image.Exif()
        source.load(exif)
        kept = Image.Exif()
        for tag, value in _short(source):
            kept[tag] = value
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            found = dict(_short(source.get_ifd(directory)))
            if found:
                kept[directory] = found
        return kept.tobytes() if len(kept) else b""
    except DAMAGED_PICTURE:
        return b""


def _short(directory: Mapping[int, Any]) -> Iterator[tuple[int, Any]]:
    """The entries that stand for themselves and have few bytes; no pointers to other directories."""
    for tag, value in directory.items():
        if tag not in POINTERS and len(value if isinstance(value, bytes | str | tuple) else ()) <= CARRIED:
            yield tag, value


def _by_profile(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that cannot be used is as good as none
    return image.convert("RGB")


def _unpacked(name: str, data: bytes, left: _Left) -> Iterator[Photo | Refused]:
    """The files of an archive; what is wrong with the archive as a whole is told under its own name."""
    try:
        if data.count(DIRECTORY_ENTRY) > 2 * MOST_ENTRIES:  # a list of millions is itself a bomb
            raise _too_many()
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = [entry for entry in archive.infolist() if not _aside(entry)]
        if not entries:
            raise _unusable("The archive holds no files.")
        if len(entries) > left.entries:
            raise _too_many()
    except InvalidInput as error:
        yield Refused(name, error)
        return
    except DAMAGED_ARCHIVE as error:
        yield Refused(name, _broken_archive(error))
        return
    left.entries -= len(entries)
    for entry in entries:
        called = "/".join((name, *(part for part in _parts(entry) if part not in ("/", ".."))))
        try:
            _admit(entry, left)
        except InvalidInput as error:
            yield Refused(called, error)
        else:
            yield Photo(called, partial(_read, archive, entry))


def _aside(entry: zipfile.ZipInfo) -> bool:
    """Folders, and what systems put into archives for themselves."""
    parts = _parts(entry)
    return (
        entry.is_dir() or not parts or parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1] == "Thumbs.db"
    )


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(entry.filename.replace("\\", "/")).parts


def _admit(entry: zipfile.ZipInfo, left: _Left) -> None:
    """Count what a file says it unpacks to; it is not read any further. Raises InvalidInput."""
    if entry.flag_bits & 1:
        raise _unusable("It is locked with a password.", "Make an archive without one.")
    if entry.compress_type not in METHODS:
        raise _unusable("It is compressed in an unusual way.", "Make the archive with the usual one, Deflate.")
    if entry.file_size > MOST_BYTES:
        raise _unusable("It unpacks to more than is allowed.", f"Up to {MOST_BYTES // 2**20} MB a photo are.")
    if entry.file_size > left.unpacked:
        raise _unusable(
            f"The archives unpack to more than the {MOST_UNPACKED // 2**30} GB that are allowed together.",
            "Hand over this file, and those behind it, in another run.",
        )
    left.unpacked -= entry.file_size


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """One file, to the size that its header says and no further. Raises InvalidInput."""
    try:
        with archive.open(entry) as stream:
            data = stream.read(entry.file_size)
    except DAMAGED_ARCHIVE as error:
        raise _broken_archive(error) from error
    if data[:4] == b"PK\x03\x04":
        raise _unusable("It is an archive inside an archive.", "Put the photos into one archive.")
    return data


def _too_many() -> InvalidInput:
    return _unusable(f"The archives hold more than the {MOST_ENTRIES} files that are allowed together.", "Split it.")


def _broken_archive(error: Exception) -> InvalidInput:
    return _unusable(f"The archive is damaged ({type(error).__name__}).", "Make it again.")


def _unusable(sentence: str, remedy: str = CHOOSE) -> InvalidInput:
    return InvalidInput(sentence, remedy, field=FIELD)
