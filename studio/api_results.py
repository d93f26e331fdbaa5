"""The routes under /api for what a job leaves behind: files, manifest, previews, links; and for what it starts from.

Every route checks the owner through the store. Knows no queue.
"""

from __future__ import annotations

import tempfile
import threading
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from studio.api_schema import JobId, Number, Owner
from studio.archive import zipped
from studio.downloads import safe_name
from studio.errors import NotFound, StoreUnavailable, TooLarge
from studio.requests import check_disk
from studio.services import Services
from studio.uploads import Limits, check_upload
from studio.views import Links, job_view

IN_MEMORY = 2**20  # bytes of an upload that are not on the disk while it comes in
AT_ONCE = 4  # uploads that are checked at the same time, each wholly in memory
_checking = threading.BoundedSemaphore(AT_ONCE)


def add_results(router: APIRouter, services: Services) -> None:
    """The routes of results, links and uploads."""
    _parts(router, services)
    _shares(router, services)
    _files(router, services)


def _parts(router: APIRouter, services: Services) -> None:
    @router.get("/jobs/{job_id}/artifacts", tags=["results"], summary="The files of a job")
    def artifacts(job_id: JobId, owner: Owner) -> dict[str, Any]:
        view = job_view(services, services.jobs.get(job_id, owner), Links.of_owner(job_id))
        return {"outputs": view["outputs"], "metrics": view["metrics"]}

    @router.get("/jobs/{job_id}/manifest", tags=["results"], summary="What makes the result repeatable")
    def manifest(job_id: JobId, owner: Owner) -> dict[str, Any]:
        return manifest_of(services, services.jobs.get(job_id, owner).id)

    @router.get(
        "/jobs/{job_id}/files.zip",
        tags=["results"],
        summary="The files of a job as one archive",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}},
    )
    def archive(job_id: JobId, owner: Owner, role: Annotated[str, Query(max_length=40)] = "") -> Response:
        return archive_of(services, services.jobs.get(job_id, owner).id, role)

    @router.get(
        "/jobs/{job_id}/previews/{seq}",
        tags=["results"],
        summary="A picture of the unfinished result",
        responses={200: {"content": {"image/png": {}}}, 204: {"description": "A newer one has replaced it."}},
        response_class=Response,
    )
    def preview(job_id: JobId, seq: Number, owner: Owner) -> Response:
        return preview_of(services, services.jobs.get(job_id, owner).id, seq)


def archive_of(services: Services, job_id: str, role: str = "") -> Response:
    """All results of a job, or those of one role, in one zip archive. Raises NotFound where there are none."""
    chosen = [
        (output.name, services.artifacts.path(output.sha))
        for output in services.artifacts.outputs(job_id)
        if not role or output.attributes.get("role") == role
    ]
    if not chosen:
        raise NotFound("This job has no such results.", "They are there when it has made some.")
    headers = {
        "content-disposition": f'attachment; filename="{role or "results"}-{job_id[:8]}.zip"',
        "cache-control": "private, no-store",
    }
    return StreamingResponse(zipped(chosen), media_type="application/zip", headers=headers)


def manifest_of(services: Services, job_id: str) -> dict[str, Any]:
    """The manifest of a finished job. Raises NotFound before it is whole."""
    manifest = services.artifacts.manifest(job_id)
    if manifest is None:
        raise NotFound("This job has no manifest yet.", "It is written when the result is whole.")
    return dict(manifest)


def preview_of(services: Services, job_id: str, seq: int) -> Response:
    """One preview of a job that runs; 204 for one that newer ones, or the result, have replaced."""
    try:
        data = services.artifacts.preview_path(job_id, seq).read_bytes()
    except (NotFound, FileNotFoundError):  # the worker throws them away at any moment
        return Response(status_code=204)
    return Response(data, media_type="image/png", headers={"cache-control": "private, no-store"})


def _shares(router: APIRouter, services: Services) -> None:
    @router.get("/jobs/{job_id}/shares", tags=["shares"], summary="The links to a job")
    def shares(job_id: JobId, owner: Owner) -> dict[str, Any]:
        services.jobs.get(job_id, owner)
        return {"shares": [_share_view(share.token) for share in services.shares.for_job(job_id, owner)]}

    @router.post("/jobs/{job_id}/shares", status_code=201, tags=["shares"], summary="Make a link to a job")
    def share(job_id: JobId, owner: Owner) -> dict[str, Any]:
        """Whoever has the link sees progress, result and manifest, until it is revoked."""
        services.jobs.get(job_id, owner)
        return _share_view(services.shares.create(job_id, owner))

    @router.delete("/shares/{token}", status_code=204, tags=["shares"], summary="Revoke a link")
    def revoke(token: str, owner: Owner) -> Response:
        services.shares.revoke(token, owner)
        return Response(status_code=204)


def _share_view(token: str) -> dict[str, str]:
    return {"token": token, "url": f"/r/{token}"}


def _files(router: APIRouter, services: Services) -> None:
    binary = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}

    @router.post(
        "/uploads",
        status_code=201,
        tags=["files"],
        summary="Upload a file as the request's body",
        openapi_extra=binary,
    )
    async def upload(
        request: Request, owner: Owner, name: Annotated[str, Query(max_length=200)] = ""
    ) -> dict[str, Any]:
        """Its type is read from its content; the answer's `sha256` is what parameters refer to."""
        check_disk(services)
        try:
            with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
                await receive_into(file, request, services.settings.upload_bytes)
                return await run_in_threadpool(_keep, services, file, owner, name)
        except OSError as error:
            raise StoreUnavailable(
                f"The upload cannot be kept: {error.strerror}.",
                "Free some space for temporary files; then try again.",
            ) from error


def _keep(services: Services, file: IO[bytes], owner: str, name: str) -> dict[str, Any]:
    with _checking:
        file.seek(0)
        data = file.read()
        kind = check_upload(data, limits_of(services))
        sha = services.artifacts.put(data, media_type=kind.media_type, owner=owner, name=safe_name(name))
    return {
        "sha256": sha,
        "bytes": len(data),
        "media_type": kind.media_type,
        "width": kind.width,
        "height": kind.height,
        "frames": kind.frames,
        "seconds": kind.seconds,
        "url": f"/files/{sha}",
    }


def limits_of(services: Services) -> Limits:
    """What an upload to this server may have at most."""
    said = services.settings
    return Limits(said.upload_bytes, said.upload_pixels, said.upload_seconds, said.upload_frames, said.upload_faces)


async def receive_into(file: IO[bytes], request: Request, most: int) -> None:
    """Write the body to `file`; it is refused as soon as it is known to be larger than `most` bytes. Raises TooLarge.

    On the disk, as many slow senders would otherwise fill the memory.
    """
    refusal = TooLarge(
        f"The file is larger than {most / 2**20:.0f} MB.", "Send a smaller one, or raise ATELIER_UPLOAD_BYTES."
    )
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise refusal
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise refusal
        file.write(part)
