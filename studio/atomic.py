"""Files that are either whole or not there: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from studio.errors import StoreUnavailable


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` durably, replacing what was there. Raises StoreUnavailable."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # what stopped the writing may stop this too; a sweep takes it later
            partial.unlink(missing_ok=True)
        raise StoreUnavailable(
            f"A file could not be written under {path.parent}: {error.strerror}.",
            "Free some space or make the folder writable, and try again.",
        ) from error


def remove_file(path: Path) -> None:
    """Remove the file, if it is there. Raises StoreUnavailable."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"A file could not be removed from {path.parent}: {error.strerror}.",
            "Make the folder writable, and try again.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(path: Path) -> bytes | None:
    """The bytes at `path`, or None if nothing is there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
