"""What lies under a job's own name: its manifest, the previews while it runs, and its checkpoints.

All files are whole or not there. The manifest is written last: its existence proves a result whole. Job ids come from
outside and never lead out of the home folder. Knows neither the store's tables nor what is inside a checkpoint.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from studio.atomic import read_file, remove_file, write_file
from studio.canonical import pretty
from studio.errors import NotFound

PREVIEWS_KEPT = 2  # a reader may still be fetching the last but one

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class JobFolders:
    """The folders of jobs under `home`. Whatever writes may raise StoreUnavailable."""

    home: Path

    def write_manifest(self, job_id: str, manifest: Mapping[str, Any]) -> Path:
        """Declare the job's result whole. Call it last."""
        path = self._manifest_path(job_id)
        write_file(path, pretty(manifest).encode())
        return path

    def manifest(self, job_id: str) -> dict[str, Any] | None:
        """What `write_manifest` wrote, or None while the result is not whole."""
        data = read_file(self._manifest_path(job_id))
        return None if data is None else cast(dict[str, Any], json.loads(data))

    def drop_manifest(self, job_id: str) -> None:
        """The result is no longer whole, e.g. because it will be made again."""
        remove_file(self._manifest_path(job_id))

    def save_preview(self, job_id: str, seq: int, png: bytes) -> Path:
        """Keep a picture of the unfinished result; only the newest two stay."""
        path = self._folder("previews", job_id) / f"{seq}.png"
        write_file(path, png)
        for older in _numbered(path.parent, ".png")[:-PREVIEWS_KEPT]:
            remove_file(older)
        return path

    def preview_path(self, job_id: str, seq: int) -> Path:
        """Where preview `seq` lies. Raises NotFound when it never was or has been replaced by a newer one."""
        path = self._folder("previews", job_id) / f"{int(seq)}.png"
        if not path.is_file():
            raise NotFound(f"There is no preview {seq} of this job any more.", "Look at the newest one.")
        return path

    def clear_previews(self, job_id: str) -> None:
        """The job has ended: nobody needs them any more."""
        shutil.rmtree(self._folder("previews", job_id), ignore_errors=True)

    def checkpoint_path(self, job_id: str, step: int) -> Path:
        """Where the checkpoint of `step` lies or is to be written (atomically, see studio.atomic)."""
        return self._folder("checkpoints", job_id) / f"{int(step)}.safetensors"

    def newest_checkpoint(self, job_id: str) -> Path | None:
        """The whole checkpoint of the highest step, or None."""
        found = _numbered(self._folder("checkpoints", job_id), ".safetensors")
        return found[-1] if found else None

    def drop_checkpoints(self, job_id: str) -> None:
        """The job has ended: nobody will resume it."""
        shutil.rmtree(self._folder("checkpoints", job_id), ignore_errors=True)

    def drop_files(self, job_id: str) -> None:
        """Remove everything kept under the job's name; the bytes of its results go at the next sweep."""
        for kind in ("results", "previews", "checkpoints"):
            shutil.rmtree(self._folder(kind, job_id), ignore_errors=True)

    def _folder(self, kind: str, job_id: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise NotFound(f"There is no job {job_id[:40]!r} here.")
        return self.home / kind / job_id

    def _manifest_path(self, job_id: str) -> Path:
        return self._folder("results", job_id) / "manifest.json"


def _numbered(folder: Path, ending: str) -> list[Path]:
    """The files of `folder` whose names are a number, in the order of the numbers."""
    found = [path for path in folder.glob(f"*{ending}") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))
