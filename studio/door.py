"""The door: pages to log in, to see who one is, and to log out; and the gate where everybody is asked to log in.

Forms work without scripts. Each carries a signed token that is bound to its reader, beside the origin check that
every request passes. What the anonymous visitor of this browser has made comes along into the account unless they say
otherwise. Knows accounts and sessions through `Services`; knows no job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from fastapi import APIRouter, Request
from itsdangerous import BadSignature, TimestampSigner
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.accounts import SESSION_S
from studio.errors import AtelierError, Conflict, InvalidInput
from studio.guards import RateLimiter
from studio.identity import SESSION_COOKIE, AnonymousCookie, SessionCookie, cookie_line, owner_of, sha256
from studio.mounted import asks_for_page
from studio.services import Services

FORM_AGE_S = 12 * 3600
TRIES_PER_MINUTE = 10  # logins for one name, and from one address
# What is open to all where logging in is asked for: the door, share links, and what pages are made of.
OPEN = ("/account/", "/r/", "/atelier/", "/healthz", "/metrics", "/assets/", "/static/", "/favicon.ico", "/theme.css")

Render = Callable[..., Response]


class ElsewhereLogin(Protocol):
    """A login at another place that sends the visitor back with a proof, such as the Hugging Face hub's."""

    title: str

    def address(self, request: Request, owner: str) -> str:
        """Where to send the visitor; what comes back is bound to `owner`, who asks now."""
        ...

    def finish(self, request: Request, owner: str) -> tuple[str, str]:
        """(owner, name) of who has come back. Raises AtelierError; may wait for the other place."""
        ...


class LoginNeeded(AtelierError):
    """This server answers only those who have logged in."""

    code = "login_needed"
    http_status = 401


@dataclass(frozen=True)
class Door:
    """What the routes of the door share."""

    services: Services
    render: Render  # (template, status=, **values)
    sessions: SessionCookie
    anonymous: AnonymousCookie
    signer: TimestampSigner
    names: RateLimiter
    addresses: RateLimiter
    elsewhere: ElsewhereLogin | None = None

    def page(
        self, request: Request, *, error: AtelierError | None = None, name: str = "", then: str = ""
    ) -> Response:
        """The page of the account, or the one to log in."""
        session = self.sessions.session(request)
        values = {
            "session": session,
            "local": session is not None and session.owner.startswith("user:"),
            "jobs": 0 if session else len(self.services.jobs.list(owner_of(request), limit=100)),
            "accounts": self.services.accounts.any(),
            "elsewhere": self.elsewhere.title if self.elsewhere else "",
            "form": self.signer.sign(owner_of(request)).decode(),
            "next": local_address(then or request.query_params.get("next", "")),
            "error": error,
            "name": name,
        }
        return self.render("account.html", forms=True, status=error.http_status if error else 200, **values)

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form that this server gave to this reader. Raises InvalidInput."""
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise InvalidInput("This is not the form of the page.", "Open the page and use its form.")
        async with request.form(max_fields=10) as found:
            fields = {key: value for key, value in found.items() if isinstance(value, str)}
        try:
            bound = self.signer.unsign(fields.get("form", ""), max_age=FORM_AGE_S).decode()
        except (BadSignature, UnicodeError):
            bound = ""
        if bound != owner_of(request):
            raise InvalidInput(
                "The form is too old, or this browser keeps no cookies.", "Allow cookies, reload the page, try again."
            )
        return fields

    def enter(self, request: Request, owner: str, name: str, *, bring: bool, then: str) -> Response:
        """A new session, with what the anonymous visitor made if they want it."""
        if bring:
            self.services.accounts.take_over(self.anonymous.owner(request) or "", owner)
        token = self.services.accounts.begin(owner, name)
        answer = RedirectResponse(then or "/jobs", status_code=303)
        line = cookie_line(SESSION_COOKIE, token, request.url.scheme, SESSION_S)
        answer.headers.append("set-cookie", line)
        return answer


def new_door(services: Services, render: Render, secret: bytes, elsewhere: ElsewhereLogin | None = None) -> Door:
    """The door of one application; `secret` signs its forms."""
    signer = TimestampSigner(secret, salt="atelier.form", key_derivation="hmac", digest_method=sha256)
    return Door(
        services=services,
        render=render,
        sessions=SessionCookie(services.accounts),
        anonymous=AnonymousCookie(secret),
        signer=signer,
        names=RateLimiter(TRIES_PER_MINUTE, services.clock),
        addresses=RateLimiter(TRIES_PER_MINUTE, services.clock),
        elsewhere=elsewhere,
    )


def create_router(door: Door) -> APIRouter:
    """All routes under /account; none is part of the described API."""
    router = APIRouter(include_in_schema=False)
    _page_routes(router, door)
    _form_routes(router, door)
    _elsewhere_routes(router, door)
    return router


def _page_routes(router: APIRouter, door: Door) -> None:
    @router.get("/account")
    def account(request: Request) -> Response:
        return door.page(request)

    @router.get("/account/state")
    def state(request: Request) -> dict[str, Any]:
        """What the head of every page shows."""
        session = door.sessions.session(request)
        return {
            "name": session.name if session else None,
            "login": door.elsewhere is not None or door.services.accounts.any(),
        }


def _form_routes(router: APIRouter, door: Door) -> None:
    accounts = door.services.accounts

    @router.post("/account/login")
    async def log_in(request: Request) -> Response:
        fields: dict[str, str] = {}
        try:
            fields = await door.form(request)
            name, password = fields.get("name", ""), fields.get("password", "")
            door.addresses.take(request.client.host if request.client else "unknown")
            door.names.take(name.strip().lower()[:100])
            account = await run_in_threadpool(accounts.log_in, name, password)
        except AtelierError as error:
            said = {"name": fields.get("name", "")[:100], "then": fields.get("next", "")}
            return await run_in_threadpool(door.page, request, error=error, **said)
        then, bring = local_address(fields.get("next", "")), fields.get("bring") == "yes"
        return await run_in_threadpool(door.enter, request, account.owner, account.name, bring=bring, then=then)

    @router.post("/account/password")
    async def password(request: Request) -> Response:
        try:
            fields = await door.form(request)
            session = door.sessions.session(request)
            if session is None or not session.owner.startswith("user:"):
                raise Conflict("You are not logged in with an account of this server.", "Log in first.")
            door.names.take(session.name)
            await run_in_threadpool(accounts.log_in, session.name, fields.get("old", ""))
            await run_in_threadpool(accounts.set_password, session.name, fields.get("new", ""))
        except AtelierError as error:
            return await run_in_threadpool(door.page, request, error=error)
        # All sessions have ended, those of a thief as well; this one begins anew.
        return await run_in_threadpool(door.enter, request, session.owner, session.name, bring=False, then="/account")

    @router.post("/account/logout")
    async def log_out(request: Request) -> Response:
        try:
            await door.form(request)
        except AtelierError as error:
            return await run_in_threadpool(door.page, request, error=error)
        await run_in_threadpool(accounts.end, request.cookies.get(SESSION_COOKIE, ""))
        # The next person at this browser finds no pictures of the last one, not even by going back.
        answer = RedirectResponse("/account", status_code=303, headers={"clear-site-data": '"cache"'})
        answer.headers.append("set-cookie", cookie_line(SESSION_COOKIE, "", request.url.scheme, 0))
        return answer


def _elsewhere_routes(router: APIRouter, door: Door) -> None:
    elsewhere = door.elsewhere
    if elsewhere is None:
        return

    @router.get("/account/elsewhere")
    def begin(request: Request) -> Response:
        return RedirectResponse(elsewhere.address(request, owner_of(request)), status_code=303)

    @router.get("/account/back")
    def back(request: Request) -> Response:
        try:
            door.addresses.take(request.client.host if request.client else "unknown")
            owner, name = elsewhere.finish(request, owner_of(request))
        except AtelierError as error:
            return door.page(request, error=error)
        return door.enter(request, owner, name, bring=True, then="/jobs")


def local_address(text: str) -> str:
    """`text` if it is the path of a page here, else "": nobody is sent to another site after logging in."""
    plain = text.isascii() and text.isprintable() and "\\" not in text
    return text if plain and text.startswith("/") and not text.startswith("//") else ""


class Gate:
    """Lets only those in who have logged in; others reach the door, share links and what pages are made of."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["state"]["owner"].startswith("anon:") or _open(scope):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        error = LoginNeeded("Only those who have logged in can do this.", "Log in at /account.")
        answer: Response = JSONResponse({"error": error.as_dict()}, status_code=error.http_status)
        if asks_for_page(request):
            query = f"?{request.url.query}" if request.url.query else ""
            answer = RedirectResponse(f"/account?next={quote(request.url.path + query, safe='')}", status_code=303)
        await answer(scope, receive, send)


def _open(scope: Scope) -> bool:
    path: str = scope["path"]
    with_token = path.startswith("/files/") and b"t=" in scope["query_string"]  # which is checked where files are
    return with_token or path == "/account" or path.startswith(OPEN)
