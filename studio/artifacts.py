"""The files of the house: bytes under their hash, who may read them, and which of them are results of which job.

A file is written under a temporary name while it is hashed, synced and renamed, so it is whole or not there; the same
bytes are kept once. What lies under a job's own name is in studio/folders.py. Knows no picture, method or page.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from studio.atomic import sync_folder
from studio.canonical import dumps
from studio.db import Database
from studio.errors import NotFound, StoreUnavailable
from studio.folders import JobFolders

CHUNK = 2**20  # bytes read at a time

_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Output:
    """One result file of a job."""

    name: str  # as the engine called it, with extension
    kind: str  # one of contract.ArtifactKind
    sha: str
    bytes: int
    media_type: str
    attributes: dict[str, Any]
    metrics: dict[str, Any]


class Artifacts(JobFolders):
    """Files under `home`, their rows in `db`. Whatever writes may raise StoreUnavailable."""

    def __init__(self, home: Path, db: Database, clock: Callable[[], float]) -> None:
        self.home = Path(home)
        self._db = db
        self._clock = clock

    def put(self, data: bytes | Path, *, media_type: str, owner: str | None = None, name: str = "") -> str:
        """Keep the bytes (or a copy of the file) durably and return their sha256, in hex.

        With `owner` it is that owner's upload, called `name`. The type of bytes that are already here stays.
        """
        with _disk_errors(self.home), self._staged(data) as (partial, sha, size):
            path = self._file(sha)
            path.parent.mkdir(parents=True, exist_ok=True)
            # The rename lies inside the transaction, as the sweep's removal does: neither comes between the other's.
            with self._db.transaction() as connection:
                partial.replace(path)
                sync_folder(path.parent)
                now = self._clock()
                connection.execute(
                    "INSERT INTO blob (sha, bytes, media_type, touched) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (sha) DO UPDATE SET touched = excluded.touched",
                    (sha, size, media_type, now),
                )
                if owner is not None:
                    connection.execute(
                        "INSERT INTO upload (sha, owner, name, created) VALUES (?, ?, ?, ?) "
                        "ON CONFLICT (sha, owner) DO UPDATE SET name = excluded.name, created = excluded.created",
                        (sha, owner, name, now),
                    )
        return sha

    def path(self, sha: str) -> Path:
        """Where the bytes lie. Raises NotFound."""
        path = self._file(sha)
        if not path.is_file():
            raise _no_file(sha)
        return path

    def media_type(self, sha: str) -> str:
        """As given when the bytes were first put. Raises NotFound."""
        with self._db.read() as connection:
            row = connection.execute("SELECT media_type FROM blob WHERE sha = ?", (sha,)).fetchone()
        if row is None:
            raise _no_file(sha)
        return str(row["media_type"])

    def may_read(self, sha: str, owner: str) -> bool:
        """Whether the owner uploaded these bytes or has a job that gave them."""
        with self._db.read() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM upload WHERE sha = ?1 AND owner = ?2) OR EXISTS (SELECT 1 "
                "FROM output JOIN job ON job.id = output.job WHERE output.sha = ?1 AND job.owner = ?2) AS may",
                (sha, owner),
            ).fetchone()
        return bool(row["may"])

    def outputs(self, job_id: str) -> list[Output]:
        """The results of the job in the order of their first saving."""
        with self._db.read() as connection:
            rows = connection.execute(
                "SELECT output.*, blob.bytes, blob.media_type, metric.content FROM output "
                "JOIN blob ON blob.sha = output.sha "
                "LEFT JOIN metric ON metric.job = output.job AND metric.name = output.name "
                "WHERE output.job = ? ORDER BY output.number",
                (job_id,),
            ).fetchall()
        return [
            Output(
                name=row["name"],
                kind=row["kind"],
                sha=row["sha"],
                bytes=row["bytes"],
                media_type=row["media_type"],
                attributes=json.loads(row["attributes"]),
                metrics=json.loads(row["content"] or "{}"),
            )
            for row in rows
        ]

    def job_metrics(self, job_id: str) -> dict[str, Any]:
        """The numbers of the job as a whole."""
        with self._db.read() as connection:
            return _metrics(connection.execute(_METRIC, (job_id, "")).fetchone())

    def probe(self) -> None:
        """Write a small file and remove it. Raises StoreUnavailable where that is not possible."""
        with _disk_errors(self.home), self._staged(b"probe"):
            pass

    def free_bytes(self) -> int:
        """Free bytes of the disk below `home`."""
        return shutil.disk_usage(self.home).free

    def sweep(self, now: float, retention_days: float = 0.0) -> dict[str, int]:
        """Remove what has had its time; see studio.retention."""
        from studio.retention import sweep

        return sweep(self, self._db, now, retention_days)

    def _file(self, sha: str) -> Path:
        if not _SHA.fullmatch(sha):
            raise _no_file(sha)
        return self.home / "files" / sha[:2] / sha

    @contextmanager
    def _staged(self, data: bytes | Path) -> Iterator[tuple[Path, str, int]]:
        """A synced temporary file with the bytes, their hash and number; gone at the end unless it was renamed."""
        folder = self.home / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{secrets.token_hex(8)}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with partial.open("xb") as target:
                for chunk in _chunks(data):
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            yield partial, digest.hexdigest(), size
        finally:
            partial.unlink(missing_ok=True)


_METRIC = "SELECT content FROM metric WHERE job = ? AND name = ?"


def _metrics(row: Any) -> dict[str, Any]:
    return {} if row is None else cast(dict[str, Any], json.loads(row["content"]))


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _no_file(sha: str) -> NotFound:
    return NotFound(f"There is no file {sha[:16]!r} here.", "Upload it again, or open the result it belongs to.")


_DISK_SENTENCES = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EFBIG: "The file is larger than this system lets one be",
    errno.EROFS: "The disk is read-only",
    errno.EACCES: "The folder of the store may not be written",
    errno.EPERM: "The folder of the store may not be written",
    errno.ENOTDIR: "The folder of the store is blocked by a file",
    errno.EEXIST: "The folder of the store is blocked by a file",
    errno.EIO: "The disk failed",
}


@contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    """Turn errors of the disk under `home` into StoreUnavailable; others pass."""
    try:
        yield
    except OSError as error:
        sentence = _DISK_SENTENCES.get(error.errno or 0)
        if sentence is None:
            raise
        raise StoreUnavailable(
            f"{sentence}; the file was not stored under {home}.",
            "Free some space or make it writable; then try again.",
        ) from error


def write_output(
    connection: sqlite3.Connection, job_id: str, name: str, kind: str, sha: str, attributes: Mapping[str, Any]
) -> None:
    """Name stored bytes as a result of the job; a name given again points to the new bytes, at its old place.

    Raises NotFound for bytes that were not put.
    """
    if connection.execute("SELECT 1 FROM blob WHERE sha = ?", (sha,)).fetchone() is None:
        raise _no_file(sha)
    connection.execute(
        "INSERT INTO output (job, name, kind, sha, attributes) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (job, name) DO UPDATE SET kind = excluded.kind, sha = excluded.sha, "
        "attributes = excluded.attributes",
        (job_id, name, kind, sha, dumps(attributes)),
    )


def write_metrics(connection: sqlite3.Connection, job_id: str, name: str, values: Mapping[str, Any]) -> None:
    """Attach numbers to the result `name`, or with "" to the whole job; they are added to those already there."""
    known = _metrics(connection.execute(_METRIC, (job_id, name)).fetchone())
    connection.execute(
        "INSERT OR REPLACE INTO metric (job, name, content) VALUES (?, ?, ?)",
        (job_id, name, dumps({**known, **values})),
    )
