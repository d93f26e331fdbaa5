"""A backup: one file with everything that cannot be made again, taken while the studio runs, and the way back.

A tar archive of the store, the files, the manifests, the checkpoints of open jobs and the secret. Files are never
changed once written, so they are copied first, then the store as it is at one moment, then what came meanwhile. Knows
the layout of the home folder and no method.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from studio.atomic import sync_folder
from studio.db import Database, copy_store
from studio.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from studio.jobs import Jobs
from studio.services import lock_store, unlock_store
from studio.settings import Settings

STORE = "atelier.db"
SECRET = "secret"
CHUNK = 2**20

# Whatever else an archive may hold is not taken out of it.
_FILE = re.compile(r"files/[0-9a-f]{2}/([0-9a-f]{64})")
_OTHERS = re.compile(
    rf"{re.escape(STORE)}|{SECRET}|results/[A-Za-z0-9_-]{{1,64}}/manifest\.json"
    r"|checkpoints/[A-Za-z0-9_-]{1,64}/[0-9]+\.safetensors"
)


@dataclass
class Amount:
    """What was copied."""

    jobs: int = 0
    files: int = 0
    bytes: int = 0


def back_up(settings: Settings, target: Path) -> Amount:
    """Write everything under `settings.home` to the new file `target`, which only its owner may read.

    Raises NotFound where there is no store, Conflict if `target` exists, StoreUnavailable if it cannot be written.
    """
    home = settings.home
    if not (home / STORE).is_file():
        raise NotFound(f"There is no store in {home}.", "Set ATELIER_HOME to the folder of the running Atelier.")
    if target.exists():
        raise Conflict(f"{target} exists already.", "Choose another name; a backup replaces nothing.")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(partial, "xb", opener=_private) as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                amount = _pack(archive, home, partial.with_suffix(".db"))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"The backup could not be written to {target}: {error.strerror}.", "Choose a folder with enough room."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return amount


def restore(settings: Settings, source: Path) -> Amount:
    """Bring a backup to `settings.home`, which must not have a store yet. Jobs that ran wait for their turn again.

    The store comes last: an interrupted restore is begun again. Raises Conflict, InvalidInput or StoreUnavailable.
    """
    home = settings.home
    if (home / STORE).exists():
        raise Conflict(f"There is a store in {home} already.", "Move it away, or set ATELIER_HOME to another folder.")
    lock_store(home)
    try:
        _remove(home / f".restored-{STORE}")  # of a restore that was interrupted
        with _reading(source) as archive:
            amount, store = _unpack(archive, home, source)
        if store is None:
            raise InvalidInput(f"{source} is no backup of Atelier.", "Name a file that `backup` wrote.")
        _settle(store, settings)
        store.replace(home / STORE)
        _remove(store)
        sync_folder(home)
    except OSError as error:
        raise StoreUnavailable(
            f"The backup could not be restored to {home}: {error.strerror}.", "Free some space and try again."
        ) from error
    finally:
        unlock_store(home)
    return amount


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pack(archive: tarfile.TarFile, home: Path, copy: Path) -> Amount:
    """Files, then the store, then the files that the store names and that were not there before."""
    amount, packed = Amount(), set[str]()

    def add(path: Path) -> None:
        name = path.relative_to(home).as_posix()
        if name not in packed:
            with suppress(FileNotFoundError):  # gone since it was listed: then nothing in the store needs it
                archive.add(path, name, recursive=False)
                packed.add(name)
                amount.files += 1
                amount.bytes += path.stat().st_size

    for pattern in ("files/??/*", "results/*/manifest.json"):
        for path in sorted(home.glob(pattern)):
            add(path)
    try:
        copy_store(home / STORE, copy)
        archive.add(copy, STORE)
        shas, jobs = _named_in(copy)
    finally:
        _remove(copy)
    amount.jobs = len(jobs)
    for sha in shas:
        add(home / "files" / sha[:2] / sha)
    for job_id, state in jobs:
        if state == "succeeded":
            add(home / "results" / job_id / "manifest.json")
        else:
            for path in sorted((home / "checkpoints" / job_id).glob("*.safetensors")):
                add(path)
    add(home / SECRET)
    return amount


def _named_in(store: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """The hashes of all files, and id and state of all jobs. Brings a copy of an older store up to date."""
    db = Database(store)
    try:
        with db.read() as connection:
            shas = [str(row["sha"]) for row in connection.execute("SELECT sha FROM blob")]
            return shas, [(row["id"], row["state"]) for row in connection.execute("SELECT id, state FROM job")]
    finally:
        db.close()


def _remove(store: Path) -> None:
    """A store and the files that SQLite and its users keep beside it."""
    for path in store.parent.glob(f"{store.name}*"):
        path.unlink(missing_ok=True)


@contextmanager
def _reading(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, FileNotFoundError, IsADirectoryError) as error:
        raise InvalidInput(f"{source} cannot be read as a backup: {error}.", "Name another, whole one.") from error


def _unpack(archive: tarfile.TarFile, home: Path, source: Path) -> tuple[Amount, Path | None]:
    """Write every member that belongs into a home folder; the store under another name, which is returned."""
    amount, store = Amount(), None
    for member in archive:
        named = _FILE.fullmatch(member.name)
        data = archive.extractfile(member) if member.isfile() else None
        if data is None or not (named or _OTHERS.fullmatch(member.name)):
            continue
        path = home / (f".restored-{STORE}" if member.name == STORE else member.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _write(data, path)
        if named and digest != named[1]:
            path.unlink()
            raise InvalidInput(f"{source} is damaged: {named[1][:16]} has other bytes.", "Use another backup.")
        if member.name == STORE:
            store = path
        else:
            amount.files += 1
            amount.bytes += member.size
    return amount, store


def _write(data: IO[bytes], path: Path) -> str:
    """Copy an archived file to `path` durably; the sha256 of what was written."""
    digest = hashlib.sha256()
    with open(path, "wb", opener=_private) as target:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _settle(store: Path, settings: Settings) -> None:
    """Forget the workers of the moment of the backup, which may live on elsewhere, and give their jobs back."""
    db = Database(store)
    try:
        jobs = Jobs(db, clock=db.clock, settings=settings)
        for job in jobs.list(states=["running"], limit=1_000_000):
            jobs.release(job.id, str(job.worker))
        for row in jobs.workers():
            jobs.worker_gone(row.id)
    finally:
        db.close()
