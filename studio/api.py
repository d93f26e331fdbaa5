"""The routes under /api: the same jobs that the pages show, for programs. Described by /api/openapi.json.

Every route checks the owner through the store. Bodies are small and closed; a wrong one is answered with the field.
Knows no HTML: the pieces of pages live in studio.pages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response, StreamingResponse

from studio import requests
from studio.errors import NotFound, TooLarge
from studio.identity import owner_of
from studio.rows import FINAL, Event, State
from studio.services import Services
from studio.views import Links, job_view

JobId = Annotated[str, Path(max_length=100, description="Id of a job, as given at its submission.")]
Owner = Annotated[str, Depends(owner_of)]
STREAM_PAUSE_S = 0.5  # between looks at the store while events are streamed

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }
    for code, text in (
        (404, "There is no such thing, or it is somebody else's."),
        (409, "The state of the job does not allow it."),
        (422, "A value cannot be used; `field` names it."),
        (429, "Too many requests or waiting jobs."),
        (503, "The store cannot be used right now."),
    )
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """What went wrong, and what to do about it."""

    code: str = Field(description="A stable word, e.g. invalid_input.")
    message: str = Field(description="A sentence that says what happened.")
    remedy: str = Field(description="What to do about it; may be empty.")
    field: str | None = Field(description="The parameter where it happened.")


class ErrorEnvelope(BaseModel):
    """The one shape of every failure."""

    error: ErrorBody


class Wanted(_Body):
    """What to run."""

    engine: str = Field(max_length=100, description="Name of an engine, see /api/engines.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its parameters; those left out have defaults.")


class Submission(Wanted):
    """What to run, and when."""

    token: str | None = Field(
        None, max_length=200, description="Sending the same token again gives the same job instead of a second one."
    )
    priority: int = Field(0, description="Among your own jobs; larger is sooner.")


class Priority(_Body):
    """Where a job stands among its owner's."""

    priority: int = Field(description="Larger is sooner.")


def create_router(services: Services) -> APIRouter:
    """All routes under /api."""
    router = APIRouter(prefix="/api", responses=ERRORS)
    for add in (_engines, _jobs, _changes, _parts, _shares, _files):
        add(router, services)
    return router


def _engines(router: APIRouter, services: Services) -> None:
    @router.get("/engines", tags=["engines"], summary="List the engines")
    def engines() -> list[dict[str, Any]]:
        return [_engine_view(services, name) for name in services.catalog.names]

    @router.get("/engines/{name}", tags=["engines"], summary="Describe an engine and its parameters")
    def engine(name: str) -> dict[str, Any]:
        return _engine_view(services, name)

    @router.post("/estimate", tags=["engines"], summary="Say what a run would cost, without running it")
    def estimate(body: Wanted) -> dict[str, Any]:
        cost = requests.estimate(services, body.engine, body.params)
        return {
            "seconds": cost.seconds,
            "memory_bytes": cost.memory_bytes,
            "work": cost.work,
            "plan": cost.plan,
            "note": cost.note,
        }


def _engine_view(services: Services, name: str) -> dict[str, Any]:
    spec = services.catalog.spec(name)
    return {
        "name": spec.name,
        "title": spec.title,
        "tagline": spec.tagline,
        "summary": spec.summary,
        "paper": vars(spec.paper),
        "licence": spec.licence,
        "accepts": spec.accepts,
        "produces": spec.produces,
        "presets": {title: dict(values) for title, values in spec.presets.items()},
        "metrics": {metric: vars(about) for metric, about in spec.metrics.items()},
        "params": spec.params.model_json_schema(),
    }


def _jobs(router: APIRouter, services: Services) -> None:
    @router.post("/jobs", status_code=201, tags=["jobs"], summary="Submit a job")
    def submit(body: Submission, owner: Owner) -> dict[str, Any]:
        job = requests.submit(
            services, body.engine, body.params, owner=owner, token=body.token, priority=body.priority
        )
        return job_view(services, job, Links.of_owner(job.id))

    @router.get("/jobs", tags=["jobs"], summary="List your jobs, newest first")
    def list_jobs(
        owner: Owner,
        state: Annotated[list[State] | None, Query(description="Only these states.")] = None,
        engine: Annotated[str | None, Query(max_length=100)] = None,
        q: Annotated[str, Query(max_length=500, description="Words that must all occur in the parameters.")] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[int | None, Query(description="`next` of the page before.")] = None,
    ) -> dict[str, Any]:
        found = services.jobs.list(owner, states=state or None, engine=engine, search=q, limit=limit, before=before)
        views = [job_view(services, job, Links.of_owner(job.id)) for job in found]
        return {"jobs": views, "next": found[-1].seq if len(found) == limit else None}

    @router.get("/jobs/{job_id}", tags=["jobs"], summary="Look at a job")
    def job(job_id: JobId, owner: Owner) -> dict[str, Any]:
        return job_view(services, services.jobs.get(job_id, owner), Links.of_owner(job_id))

    @router.get("/jobs/{job_id}/events", tags=["jobs"], summary="What happened since event `after`")
    async def events(
        request: Request,
        job_id: JobId,
        owner: Owner,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Any:
        """JSON, or a stream of server-sent events for `Accept: text/event-stream`."""
        found = await run_in_threadpool(services.jobs.events, job_id, after, owner, limit)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return {"events": [_event_view(event) for event in found]}
        stream = _stream(services, request, job_id, after)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


def _event_view(event: Event) -> dict[str, Any]:
    return {"seq": event.seq, "time": event.time, "kind": event.kind, "payload": event.payload}


async def _stream(services: Services, request: Request, job_id: str, after: int) -> AsyncIterator[str]:
    """Server-sent events until the job has ended or the reader has left."""
    while not await request.is_disconnected():
        job = await run_in_threadpool(services.jobs.get, job_id)
        for event in await run_in_threadpool(services.jobs.events, job_id, after):
            after = event.seq
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(_event_view(event))}\n\n"
        if job.state in FINAL:
            return
        await asyncio.sleep(STREAM_PAUSE_S)


def _changes(router: APIRouter, services: Services) -> None:
    for action, summary in (
        ("cancel", "Stop a job: at once if it waits, else at its next step"),
        ("pause", "Hold a job: at once if it waits, else at its next step"),
        ("resume", "Let a paused job go on"),
        ("retry", "Put a failed or cancelled job back into the queue"),
    ):
        router.post(f"/jobs/{{job_id}}/{action}", tags=["jobs"], summary=summary, name=action)(
            _change(services, action)
        )

    @router.post("/jobs/{job_id}/again", status_code=201, tags=["jobs"], summary="Run the same parameters again")
    def again(job_id: JobId, owner: Owner) -> dict[str, Any]:
        old = services.jobs.get(job_id, owner)
        job = requests.submit(services, old.engine, old.params, owner=owner, priority=old.priority)
        return job_view(services, job, Links.of_owner(job.id))

    @router.post("/jobs/{job_id}/priority", tags=["jobs"], summary="Move a waiting job among your own")
    def priority(job_id: JobId, body: Priority, owner: Owner) -> dict[str, Any]:
        job = services.jobs.set_priority(job_id, body.priority, owner)
        return job_view(services, job, Links.of_owner(job_id))


def _change(services: Services, action: str) -> Callable[..., dict[str, Any]]:
    def change(job_id: JobId, owner: Owner) -> dict[str, Any]:
        job = getattr(services.jobs, action)(job_id, owner)
        return job_view(services, job, Links.of_owner(job_id))

    return change


def _parts(router: APIRouter, services: Services) -> None:
    @router.get("/jobs/{job_id}/artifacts", tags=["results"], summary="The files of a job")
    def artifacts(job_id: JobId, owner: Owner) -> dict[str, Any]:
        view = job_view(services, services.jobs.get(job_id, owner), Links.of_owner(job_id))
        return {"outputs": view["outputs"], "metrics": view["metrics"]}

    @router.get("/jobs/{job_id}/manifest", tags=["results"], summary="What makes the result repeatable")
    def manifest(job_id: JobId, owner: Owner) -> dict[str, Any]:
        return manifest_of(services, services.jobs.get(job_id, owner).id)

    @router.get("/jobs/{job_id}/previews/{seq}", tags=["results"], summary="A picture of the unfinished result")
    def preview(job_id: JobId, seq: int, owner: Owner) -> Response:
        return preview_of(services, services.jobs.get(job_id, owner).id, seq)


def manifest_of(services: Services, job_id: str) -> dict[str, Any]:
    """The manifest of a finished job. Raises NotFound before it is whole."""
    manifest = services.artifacts.manifest(job_id)
    if manifest is None:
        raise NotFound("This job has no manifest yet.", "It is written when the result is whole.")
    return dict(manifest)


def preview_of(services: Services, job_id: str, seq: int) -> Response:
    """One preview of a job that runs; 204 for one that newer ones, or the result, have replaced."""
    try:
        path = services.artifacts.preview_path(job_id, seq)
    except NotFound:
        return Response(status_code=204)
    return FileResponse(path, media_type="image/png", headers={"cache-control": "private, no-store"})


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
        data = await read_body(request, services.settings.upload_bytes)
        return await run_in_threadpool(_keep, services, data, owner, name)


def _keep(services: Services, data: bytes, owner: str, name: str) -> dict[str, Any]:
    return {}


async def read_body(request: Request, most: int) -> bytes:
    """The body, refused as soon as it is known to be larger than `most` bytes. Raises TooLarge."""
    refusal = TooLarge(
        f"The file is larger than {most / 2**20:.0f} MB.", "Send a smaller one, or raise ATELIER_UPLOAD_BYTES."
    )
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise refusal
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise refusal
        parts.append(part)
    return b"".join(parts)
