"""Plain HTTP beside the pages: files, the result page, /healthz, /metrics and /api, in one FastAPI application.

The only place where a failure becomes an answer: typed errors keep their status and their one envelope, a page for
people and JSON for programs; anything unforeseen is a sentence here and a traceback in the log. Knows no Gradio; the
tabs are mounted under this application by app.py.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio import api, health, pages, requests
from studio.api_schema import ErrorEnvelope
from studio.bodies import Bodies
from studio.door import Gate, create_router, new_door
from studio.downloads import readable, stored_file
from studio.errors import AtelierError, InvalidInput, NotFound
from studio.guards import ADDRESS_SHARE, Guard, RateLimiter
from studio.hub_login import HUB_FRAMES, hub_login
from studio.identity import AnonymousCookie, OwnerMiddleware, SessionCookie, load_secret
from studio.metrics import Counted, Metrics, may_look
from studio.mounted import MountedPages, asks_for_page
from studio.services import Services

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHOWN_ASSETS = ("css", "viewers", "examples")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
log = logging.getLogger("atelier.web")


class AsciiJSON(JSONResponse):
    """JSON that repeats whatever was sent: half characters (lone surrogates) have no other encoding."""

    def render(self, content: Any) -> bytes:
        """Escapes where other answers have UTF-8."""
        return json.dumps(content).encode("ascii")


class Contained:
    """What escapes the mounted pages after they have answered is logged once, and goes no further."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            if not begun or scope["type"] != "http":
                raise
            log.error("%s %s failed in the pages", scope["method"], scope["path"][:80], exc_info=error)


class Unforeseen(AtelierError):
    """Something failed that nobody thought of; the traceback is in the log."""

    code = "internal"


def create_api(services: Services, head: str = "") -> FastAPI:
    """All plain routes, with the owner's cookie and the guards in front of them and of whatever is mounted later.

    `head` is markup for the head of every mounted page.
    """
    app = FastAPI(title="Atelier", docs_url=None, redoc_url=None, openapi_url=None)
    shown, metrics, secret = pages.Pages(services), Metrics(services), load_secret(services.settings)
    _small_routes(app, services)
    _figures(app, services, metrics)
    app.include_router(pages.create_router(services, shown))
    app.include_router(api.create_router(services))
    app.include_router(create_router(new_door(services, shown.render, secret, hub_login(services, secret))))
    _unknown_routes(app)
    _failures(app, shown)
    _guards(app, services, shown, head, secret)
    app.add_middleware(Counted, metrics=metrics)
    return app


def _guards(app: FastAPI, services: Services, shown: pages.Pages, head: str, secret: bytes) -> None:
    """What every request passes before a route; the last one added is the first one passed."""
    settings = services.settings
    app.state.limiter = RateLimiter(settings.rate_per_minute, services.clock)
    addresses = RateLimiter(ADDRESS_SHARE * settings.rate_per_minute, services.clock)
    app.add_middleware(Contained)
    app.add_middleware(MountedPages, lost=shown.lost, head=head)
    app.add_middleware(Bodies, upload_bytes=settings.upload_bytes, check_room=lambda: requests.check_disk(services))
    if settings.login == "required":
        app.add_middleware(Gate)
    framed_by = HUB_FRAMES if settings.space else ()
    app.add_middleware(Guard, limiter=app.state.limiter, addresses=addresses, framed_by=framed_by)
    sessions = SessionCookie(services.accounts)
    app.add_middleware(OwnerMiddleware, cookie=AnonymousCookie(secret), recognisers=(sessions,))


def _figures(app: FastAPI, services: Services, metrics: Metrics) -> None:
    """How the house is, for those who look after it; others learn that it answers."""

    @app.get("/healthz", include_in_schema=False)
    def healthz(request: Request) -> dict[str, Any]:
        found = health.look(services).as_dict()  # whatever is wrong with the store is a 503
        return found if may_look(request, services.settings) else {"status": found["status"]}

    @app.get("/metrics", include_in_schema=False)
    def shown(request: Request) -> Response:
        if not may_look(request, services.settings):
            raise NotFound("There is nothing at /metrics.")
        return Response(metrics.text(), media_type=METRICS_TYPE)


def _small_routes(app: FastAPI, services: Services) -> None:
    @app.api_route("/files/{sha}", methods=["GET", "HEAD"], include_in_schema=False)
    def file(request: Request, sha: str, t: str = "", download: str = "") -> Response:
        path = readable(services, request, sha, t)
        kind = services.artifacts.media_type(sha)
        return stored_file(request, path, kind, etag=sha, download=download)

    @app.get("/atelier/{folder}/{name:path}", include_in_schema=False)
    def asset(request: Request, folder: str, name: str) -> Response:
        """Styles, viewers and examples that ship with the project."""
        refusal = NotFound("There is no such file here.")
        if folder not in SHOWN_ASSETS or "\0" in name:
            raise refusal
        root = (ASSETS / folder).resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise refusal
        return FileResponse(path, headers={"cache-control": "no-cache"})

    @app.get("/api/openapi.json", include_in_schema=False)
    def schema() -> JSONResponse:
        return JSONResponse(describe(app))


def describe(app: FastAPI) -> dict[str, Any]:
    """The API in OpenAPI, with the error envelope every route may answer."""
    made = get_openapi(
        title="Atelier",
        version="1",
        summary="Submit jobs, watch them, fetch their results.",
        description="An owner is known by a signed cookie, issued with the first answer; keep it to see your jobs "
        "again. Every failure has the shape `{error: {code, message, remedy, field}}`.",
        routes=app.routes,
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    envelope = ErrorEnvelope.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= envelope.pop("$defs") | {"ErrorEnvelope": envelope}
    return made


def _unknown_routes(app: FastAPI) -> None:
    for area in ("api", "files", "r", "account", "atelier"):
        app.api_route(f"/{area}/{{rest:path}}", methods=_ALL_METHODS, include_in_schema=False)(_nothing)


def _nothing(request: Request) -> Response:
    raise NotFound(f"There is nothing at {request.url.path[:100]}.")


def _failures(app: FastAPI, shown: pages.Pages) -> None:
    def answer(request: Request, error: AtelierError) -> Response:
        if asks_for_page(request) and not request.url.path.startswith("/api/"):
            return shown.error(error)
        return AsciiJSON({"error": error.as_dict()}, status_code=error.http_status)

    @app.exception_handler(AtelierError)
    async def typed(request: Request, error: AtelierError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        field = ".".join(place) or None
        return answer(request, InvalidInput(f"{field or 'The body'}: {first['msg']}.", field=field))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return answer(request, NotFound(f"There is nothing at {request.url.path[:100]}."))
        if error.status_code == 400:
            return answer(request, InvalidInput("The request cannot be read.", "Send JSON in UTF-8."))
        return JSONResponse(
            {"error": {"code": "http", "message": str(error.detail), "remedy": "", "field": None}},
            status_code=error.status_code,
            headers=error.headers,
        )

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(
            request, Unforeseen("Something went wrong here, and it is not your fault.", "Try again in a moment.")
        )
