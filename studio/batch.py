"""A batch: jobs of one engine run here and now, without a server, their files and one manifest in a plain folder.

The queue lies in a private store inside the folder, so a batch that was killed goes on where it was when the same
command is given again, and what has succeeded is not run a second time. Knows no flags.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from studio.atomic import read_file, write_file
from studio.canonical import dumps, pretty
from studio.devices import expand
from studio.errors import InvalidInput
from studio.inputs import with_files
from studio.jobs import Job
from studio.provenance import versions
from studio.requests import parse, submit
from studio.services import Services, open_services
from studio.settings import Settings
from studio.worker import Worker

STORE = ".atelier"
MANIFEST = "manifest.json"
OWNER = "command-line"
_NO_CAP = 1_000_000_000


class Batch:
    """Jobs of `engine`, one for each of `values`, with results in `out`."""

    def __init__(self, engine: str, values: Sequence[dict[str, Any]], out: Path, settings: Settings) -> None:
        if out.exists() and not out.is_dir():
            raise InvalidInput(f"{out} is not a folder.", "Choose another one with --out.", field="out")
        self.out = out
        private = settings.replace(home=out / STORE, waiting_cap=_NO_CAP, running_cap=_NO_CAP, retention_days=0.0)
        self.services: Services = open_services(private, exclusive=True)
        try:
            self.ids = self._queue(engine, values)
        except BaseException:
            self.close()
            raise
        self._rows: dict[str, dict[str, Any]] = {}  # of the jobs whose files are in the folder
        self._names: set[str] = set()
        self._worker = Worker(self.services, worker=f"batch-{self.ids[0]}", device=expand(settings.devices)[0])

    def run(self, on_end: Callable[[Job], None]) -> None:
        """Run what has not succeeded yet; `on_end` hears of every job that ends, its files already in place."""
        self._export()

        def ended(job: Job) -> None:
            self._export()
            on_end(job)

        self._worker.run(until_empty=True, on_end=ended)

    def stop(self) -> None:
        """Stop at the next step; the same batch can go on later."""
        self._worker.stop()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was asked for."""
        return self._worker.pulse.stopping.is_set()

    def jobs(self) -> list[Job]:
        """The batch's jobs as they are now, in order."""
        return [self.services.jobs.get(job_id) for job_id in self.ids]

    def notices(self, job: Job) -> list[str]:
        """What a job that succeeded says of its results, such as which files could not be used."""
        found = [file["attributes"].get("notice") for file in self._rows.get(job.id, {}).get("files", [])]
        return [str(notice) for notice in found if notice]

    def close(self) -> None:
        """Let go of the folder."""
        self.services.close()

    def _queue(self, engine: str, values: Sequence[dict[str, Any]]) -> list[str]:
        """Submit all, or find them as an earlier run left them; whatever else waits in the folder is set aside."""
        jobs = self.services.jobs
        for job in jobs.list(states=["running"], limit=_NO_CAP):
            jobs.reclaim(job.worker or "")  # we hold the folder: its worker is dead
        spec = self.services.catalog.spec(engine)
        ids = [self._submit(engine, with_files(self.services, spec, each, OWNER)).id for each in values]
        for job in jobs.list(states=["queued"], limit=_NO_CAP):
            if job.id not in set(ids):
                jobs.cancel(job.id)
        return ids

    def _submit(self, engine: str, values: dict[str, Any]) -> Job:
        """One job. The same values under the same versions are the same job; one that failed is tried again."""
        whole = parse(self.services.catalog.spec(engine), values).model_dump(mode="json")  # defaults said or not
        token = hashlib.sha256(dumps([engine, whole, versions()]).encode()).hexdigest()
        job = submit(self.services, engine, values, owner=OWNER, token=token)
        if job.state in ("failed", "cancelled"):
            return self.services.jobs.retry(job.id)
        return self.services.jobs.resume(job.id) if job.state == "paused" else job

    def _export(self) -> None:
        """Copy the results of jobs that succeeded into the folder, and write the manifest that lists them last."""
        jobs = self.jobs()
        for job in jobs:
            if job.state == "succeeded" and job.id not in self._rows:
                self._rows[job.id] = self._export_job(job)
        failed = {job.id: {"job": job.id, "params": job.params, "error": job.error} for job in jobs if job.error}
        rows = [row for job in jobs if (row := self._rows.get(job.id) or failed.get(job.id)) is not None]
        manifest = {"format": 1, "complete": len(self._rows) == len(jobs), "jobs": rows}
        write_file(self.out / MANIFEST, pretty(manifest).encode())

    def _export_job(self, job: Job) -> dict[str, Any]:
        manifest = dict(self.services.artifacts.manifest(job.id) or {})
        files = []
        for file in manifest.get("files", []):
            name = _free_name(file["name"], job.params.get("seed"), self._names)
            self._names.add(name)
            data = self.services.artifacts.path(file["sha256"]).read_bytes()
            if read_file(self.out / name) != data:
                write_file(self.out / name, data)
            files.append({**file, "file": name})
        return {**manifest, "files": files}


def unfinished(engine: str, out: Path, settings: Settings) -> list[dict[str, Any]]:
    """The parameters of the jobs of `engine` in a batch's folder that were begun and have not succeeded, in order."""
    if not (out / STORE).is_dir():
        return []
    services = open_services(settings.replace(home=out / STORE), exclusive=True)
    try:
        jobs = services.jobs.list(engine=engine, limit=_NO_CAP)
        return [dict(job.params) for job in sorted(jobs, key=lambda job: job.created) if job.state != "succeeded"]
    finally:
        services.close()


def _free_name(name: str, seed: Any, taken: set[str]) -> str:
    """`name`, or with the seed in it where another job of the batch has a file of the same name."""
    path = PurePath(PurePath(name).name)
    number, free = 0, path.name
    while free in taken:
        free = f"{path.stem}-{seed}{f'-{number}' if number else ''}{path.suffix}"
        number += 1
    return free
