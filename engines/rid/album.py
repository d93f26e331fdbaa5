"""What somebody hands over to be protected: photos and zip archives of photos, opened one by one.

Nothing in a file is believed: sizes are looked at before anything is decoded, an archive is read to its limits and no
further, and of a name only its last part is used. A file that cannot be used is told apart, so that the others go on.
Knows no network and no store.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, ImageCms, ImageOps

from studio.errors import InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
LEAST_SIDE = 16  # pixels; below it there is nothing to protect
MOST_PIXELS = 50_000_000
MOST_ENTRIES = 2000  # of an archive
MOST_BYTES = 64 * 2**20  # of one file in an archive
MOST_UNPACKED = 2 * 2**30  # of all files in an archive together
FIELD = "images"
CHOOSE = "Choose a PNG, JPEG, WebP, BMP or TIFF photo, or a zip archive of some."


@dataclass(frozen=True)
class Photo:
    """The bytes of one file and how its owner calls it."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Refused:
    """A file that cannot be used, and why."""

    name: str
    error: InvalidInput


def photos(files: Iterable[Photo]) -> Iterator[Photo | Refused]:
    """Every photo of the files, archives unpacked, in their order."""
    for file in files:
        if file.data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _unpacked(file)
        else:
            yield file


def opened(photo: Photo) -> Image.Image:
    """The picture turned upright, in RGB or RGBA; its colour profile and EXIF stay in `info`. Raises InvalidInput."""
    if not photo.data:
        raise _unusable("The file is empty.")
    try:
        with Image.open(io.BytesIO(photo.data), formats=FORMATS) as image:
            _check(image)
            image.load()
            return _plain(ImageOps.exif_transpose(image))
    except InvalidInput:
        raise
    except Image.DecompressionBombError as error:
        raise _unusable("This picture has far too many pixels.", "Make it smaller.") from error
    except Image.UnidentifiedImageError as error:
        raise _unusable("This is no picture that can be used.") from error
    except (
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
        MemoryError,
    ) as error:  # what Pillow raises for broken files
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
    if getattr(image, "n_frames", 1) > 1 and image.format != "TIFF":
        raise _unusable("This picture is animated.", "Save one of its frames as a still picture.")


def _plain(image: Image.Image) -> Image.Image:
    """RGB or RGBA of 8 bits; four inks become colours by their own profile, if they carry one."""
    kept = {name: image.info[name] for name in ("exif", "icc_profile") if name in image.info}
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.point(lambda level: level / 256).convert("L")
    if image.mode in ("CMYK", "LAB"):
        image = _by_profile(image)
        kept.pop("icc_profile", None)
    elif image.mode in ("1", "L", "LA"):
        kept.pop("icc_profile", None)  # it speaks of grey
    made = image.convert("RGBA" if image.has_transparency_data else "RGB")
    made.info = kept
    return made


def _by_profile(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile that cannot be used is as good as none
    return image.convert("RGB")


def _unpacked(file: Photo) -> Iterator[Photo | Refused]:
    """The files of an archive; what is wrong with the archive as a whole is told under its own name."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(file.data))
    except (zipfile.BadZipFile, NotImplementedError, IndexError, ValueError, OSError, struct.error) as error:
        yield Refused(file.name, _broken_archive(error))
        return
    with archive:
        entries = [entry for entry in archive.infolist() if not _aside(entry)]
        if len(entries) > MOST_ENTRIES:
            told = f"The archive holds {len(entries)} files; {MOST_ENTRIES} are allowed."
            yield Refused(file.name, _unusable(told, "Split it."))
            return
        if not entries:
            yield Refused(file.name, _unusable("The archive holds no files."))
        left = MOST_UNPACKED
        for entry in entries:
            name = PurePosixPath(entry.filename.replace("\\", "/")).name
            try:
                data = _read(archive, entry, min(MOST_BYTES, left))
            except InvalidInput as error:
                yield Refused(name, error)
                continue
            left -= len(data)
            yield Photo(name, data)


def _aside(entry: zipfile.ZipInfo) -> bool:
    """Folders, and what systems put into archives for themselves."""
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    return (
        entry.is_dir() or not parts or parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1] == "Thumbs.db"
    )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """One file, read to `most` bytes whatever its header says. Raises InvalidInput."""
    if entry.flag_bits & 1:
        raise _unusable("It is locked with a password.", "Make an archive without one.")
    try:
        with archive.open(entry) as stream:
            data = stream.read(most + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _broken_archive(error) from error
    if len(data) > most:
        raise _unusable("It unpacks to more than is allowed.", f"Up to {MOST_BYTES // 2**20} MB a photo are.")
    if data[:4] == b"PK\x03\x04":
        raise _unusable("It is an archive inside an archive.", "Put the photos into one archive.")
    return data


def _broken_archive(error: Exception) -> InvalidInput:
    return _unusable(f"The archive is damaged ({type(error).__name__}).", "Make it again.")


def _unusable(sentence: str, remedy: str = CHOOSE) -> InvalidInput:
    return InvalidInput(sentence, remedy, field=FIELD)
