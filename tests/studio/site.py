"""A site without workers for the tests of routes: a private store, the quick engine, visitors, finished jobs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from studio.accounts import Accounts
from studio.encoders import encode
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web import create_api
from tests.studio.conftest import CHEAP
from tests.studio.results import add_output, set_metrics

ENGINE = "quick_engine"


class Site:
    """One application and its store; `visitor()` is somebody with a cookie of their own."""

    def __init__(self, home: Path, clock: Any, **changes: Any) -> None:
        settings = Settings(home=home, engines=("tests.quick_engine",), disk_reserve=0, **changes)
        opened = open_services(settings, clock=clock)
        self.services: Services = replace(opened, accounts=Accounts(opened.db, clock, cost=CHEAP))
        self.app = create_api(self.services)

    def visitor(self, **more: Any) -> TestClient:
        """A client that keeps its cookie and sees answers as they are."""
        return TestClient(self.app, raise_server_exceptions=False, follow_redirects=False, **more)

    def submit(self, visitor: TestClient, **params: Any) -> dict[str, Any]:
        """A job of the visitor, waiting."""
        answer = visitor.post("/api/jobs", json={"engine": ENGINE, "params": params})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def work(self, job_id: str, colour: int = 120) -> dict[str, str]:
        """Do what a worker does with the next job: two pictures, numbers, manifest. Name -> hash."""
        services, worker = self.services, "w1"
        job = services.jobs.claim(worker, "cpu")
        assert job is not None
        assert job.id == job_id
        services.jobs.progress(job.id, worker, {"step": 1, "total": 2, "message": "Half of it", "eta": 4.0})
        kept = {}
        for name, role, shade in (("plain.png", "baseline", colour), ("method.png", "method", colour + 1)):
            data, kind = encode("image", picture(shade), name, {"engine": ENGINE, "params": job.params}, {})
            kept[name] = services.artifacts.put(data, media_type=kind)
            title = {"method": "The method", "baseline": "The baseline"}[role]
            add_output(services.artifacts, job.id, name, "image", kept[name], {"role": role, "title": title})
            set_metrics(services.artifacts, job.id, name, {"mean": float(shade)})
        services.artifacts.write_manifest(job.id, {"format": 1, "engine": ENGINE, "params": job.params})
        services.jobs.succeed(job.id, worker)
        return kept

    def finished(self, visitor: TestClient, **params: Any) -> tuple[str, dict[str, str]]:
        """(id, name -> hash) of a job that is done."""
        job_id = self.submit(visitor, **params)["id"]
        return job_id, self.work(job_id)

    def share(self, visitor: TestClient, job_id: str) -> str:
        """The token of a new link."""
        return str(visitor.post(f"/api/jobs/{job_id}/shares").json()["token"])

    def stored(self, sha: str) -> bytes:
        """The bytes as they lie on the disk."""
        return Path(self.services.artifacts.path(sha)).read_bytes()


def picture(shade: int, side: int = 8) -> Image.Image:
    """A small picture of one colour."""
    return Image.new("RGB", (side, side), (shade, shade, shade))


def png(shade: int = 9, side: int = 8) -> bytes:
    """The same as a file."""
    buffer = io.BytesIO()
    picture(shade, side).save(buffer, "PNG")
    return buffer.getvalue()
