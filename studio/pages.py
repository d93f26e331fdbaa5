"""The pages that need no Gradio: the result page behind a share link, and pieces of HTML that the tabs show.

Rendered on the server with autoescape on; scripts and styles are files of ours, so the policy allows nothing inline.
Knows views and templates; every piece is checked for its reader exactly like the JSON of the same name.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from studio.api_results import archive_of, manifest_of, preview_of
from studio.api_schema import LARGEST, JobId, Number, Owner
from studio.errors import AtelierError, NotFound
from studio.exhibits import cover, exhibits, numbers_under, poster_of, seed_of, seeds_of
from studio.rows import FINAL, Job
from studio.services import Services
from studio.views import Links, job_view, metric_rows, senders, shown_bytes, shown_seconds, shown_value, spec_of

TEMPLATES = Path(__file__).parent / "templates"
REFRESH_S = 3  # of the result page of an unfinished job, where scripts are off
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
PER_PAGE = 24


def environment() -> Environment:
    """The templates, with the filters they use."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"bytes": shown_bytes, "seconds": shown_seconds, "value": shown_value, "date": shown_date}
    made.filters |= {"cover": cover, "poster_of": poster_of, "seed_of": seed_of, "seeds_of": seeds_of}
    return made


def shown_date(when: float | None) -> str:
    """Seconds since the epoch as '2026-11-23 09:47 UTC'."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)) if when is not None else ""


class Pages:
    """Templates bound to services: what is rendered, for whom."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.templates = environment()

    def render(self, template: str, *, status: int = 200, forms: bool = False, **values: Any) -> Response:
        """One template as a response that is never cached; with `forms` it may send forms to this site."""
        html = self.templates.get_template(template).render(**values)
        policy = POLICY.replace("form-action 'none'", "form-action 'self'") if forms else POLICY
        kept = {"content-security-policy": policy, "cache-control": "no-store"}
        return HTMLResponse(html, status_code=status, headers=kept)

    def error(self, error: AtelierError) -> Response:
        """A failure as a page."""
        return self.render("error.html", status=error.http_status, error=error)

    def lost(self) -> Response:
        """For an address that nothing answers to."""
        return self.error(NotFound("There is no such page.", "The home page lists what there is."))

    def panel(self, job: Job, links: Links) -> Response:
        """The job as a piece of HTML for its reader."""
        return self.render("panel.html", **self._about(job, links))

    def result(self, job: Job, links: Links) -> Response:
        """The whole page behind a share link; it looks again by itself until the job has ended."""
        return self.render(
            "result.html", refresh=None if job.state in FINAL else REFRESH_S, **self._about(job, links)
        )

    def _about(self, job: Job, links: Links) -> dict[str, Any]:
        view, spec = job_view(self.services, job, links), spec_of(self.services, job.engine)
        rows = metric_rows(view, spec)
        owner = None if links.token else job.owner
        shares = self.services.shares.for_job(job.id, owner) if owner else []
        return {
            "job": view,
            "spec": spec,
            "rows": rows,
            "shown": exhibits(view["outputs"]),
            "numbers": numbers_under(rows, view["outputs"]),
            "fields": parameter_rows(job, spec),
            "senders": {}
            if links.token
            else {item["name"]: senders(self.services, item) for item in view["outputs"]},
            "shares": [share.token for share in shares],
            "guest": bool(links.token),
            "token": links.token,
        }


def parameter_rows(job: Job, spec: Any) -> list[tuple[str, str]]:
    """(title, value) of every parameter that is set, in the order of the spec."""
    known = spec.params.model_fields if spec else {}
    names = [name for name in known if name in job.params] + [name for name in job.params if name not in known]
    shown = ((name, job.params[name]) for name in names)
    return [
        (known[name].title if name in known and known[name].title else name, shown_value(value))
        for name, value in shown
        if value not in (None, "", [], ())
    ]


def create_router(services: Services, pages: Pages) -> APIRouter:
    """The routes of pages and of pieces of pages; none of them is part of the described API."""
    router = APIRouter(include_in_schema=False)
    _result_routes(router, services, pages)
    _piece_routes(router, services, pages)
    return router


def _result_routes(router: APIRouter, services: Services, pages: Pages) -> None:
    def shared(token: str) -> Job:
        try:
            return services.jobs.get(services.shares.resolve(token))
        except NotFound:
            raise NotFound(
                "This link does not lead to a result, or it has been revoked.",
                "Ask whoever sent it for a new one.",
            ) from None

    found = Depends(shared)

    @router.get("/r/{token}")
    def result(token: str, job: Job = found) -> Response:
        return pages.result(job, Links.of_guest(token))

    @router.get("/r/{token}/panel")
    def panel(token: str, job: Job = found) -> Response:
        return pages.panel(job, Links.of_guest(token))

    @router.get("/r/{token}/state")
    def state(token: str, job: Job = found) -> dict[str, Any]:
        return job_view(services, job, Links.of_guest(token))

    @router.get("/r/{token}/manifest")
    def manifest(job: Job = found) -> dict[str, Any]:
        return manifest_of(services, job.id)

    @router.get("/r/{token}/files.zip")
    def archive(role: str = "", job: Job = found) -> Response:
        return archive_of(services, job.id, role)

    @router.get("/r/{token}/previews/{seq}")
    def preview(seq: Number, job: Job = found) -> Response:
        return preview_of(services, job.id, seq)


def _piece_routes(router: APIRouter, services: Services, pages: Pages) -> None:
    @router.get("/api/jobs/{job_id}/panel")
    def panel(job_id: JobId, owner: Owner) -> Response:
        return pages.panel(services.jobs.get(job_id, owner), Links.of_owner(job_id))

    @router.get("/api/lists/{kind}")
    def listed(
        kind: str,
        owner: Owner,
        q: Annotated[str, Query(max_length=500)] = "",
        engine: Annotated[str, Query(max_length=100)] = "",
        before: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
    ) -> Response:
        if kind not in ("jobs", "gallery"):
            raise NotFound(f"There is no list of {kind[:40]!r}.")
        states = ["succeeded"] if kind == "gallery" else None
        found = services.jobs.list(
            owner, states=states, engine=engine or None, search=q, limit=PER_PAGE, before=before
        )
        views = [job_view(services, job, Links.of_owner(job.id)) for job in found]
        last = found[-1].seq if len(found) == PER_PAGE else None
        return pages.render(f"{kind}.html", jobs=views, next=last, filtered=bool(q or engine), first=before is None)
