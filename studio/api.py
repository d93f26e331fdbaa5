"""The routes under /api: the same jobs that the pages show, for programs. Described by /api/openapi.json.

Every route checks the owner through the store. Bodies are small and closed; a wrong one is answered with the field.
Knows no HTML: the pieces of pages live in studio.pages.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from studio import requests
from studio.api_results import add_results
from studio.api_schema import ERRORS, LARGEST, JobId, Owner, Priority, Submission, Wanted
from studio.errors import NotFound
from studio.identity import still_there
from studio.rows import FINAL, Event, State
from studio.services import Services
from studio.views import Links, job_view

STREAM_PAUSE_S = 0.5  # between looks at the store while events are streamed


def create_router(services: Services) -> APIRouter:
    """All routes under /api."""
    router = APIRouter(prefix="/api", responses=ERRORS)
    for add in (_engines, _jobs, _changes, add_results):
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
        before: Annotated[int | None, Query(ge=0, le=LARGEST, description="`next` of the page before.")] = None,
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
        after: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Any:
        """JSON, or a stream of server-sent events for `Accept: text/event-stream`."""
        found = await run_in_threadpool(services.jobs.events, job_id, after, owner, limit)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return {"events": [_event_view(event) for event in found]}
        stream = _stream(services, request, job_id, owner, after)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


def _event_view(event: Event) -> dict[str, Any]:
    return {"seq": event.seq, "time": event.time, "kind": event.kind, "payload": event.payload}


async def _stream(services: Services, request: Request, job_id: str, owner: str, after: int) -> AsyncIterator[str]:
    """Server-sent events until the job has ended, the reader has left or logged out, or the job is another's."""
    while not await request.is_disconnected() and await run_in_threadpool(still_there, request):
        try:
            job = await run_in_threadpool(services.jobs.get, job_id, owner)
            found = await run_in_threadpool(services.jobs.events, job_id, after, owner)
        except NotFound:
            return
        for event in found:
            after = event.seq
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(_event_view(event))}\n\n"
        if job.state in FINAL:
            return
        await asyncio.sleep(STREAM_PAUSE_S)


def _changes(router: APIRouter, services: Services) -> None:
    for action, summary in (
        ("cancel", "Stop a job: at once if it waits, else at its next step"),
        ("stop", "Stop a running job at its next step and keep the best result so far"),
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
        if services.executor is not None:  # hints; without them the worker looks a little later by itself
            if job.wish:
                services.executor.interrupt(job_id)
            elif job.state == "queued":
                services.executor.wake()
        return job_view(services, job, Links.of_owner(job_id))

    return change
