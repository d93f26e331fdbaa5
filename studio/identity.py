"""Who is asking: every visitor is an owner, known by a signed cookie until a way to log in says otherwise.

A way to recognise somebody is a `Recogniser`: it reads a request and returns an owner or None. The anonymous cookie
is the last resort and always succeeds; local accounts and a Hugging Face login are further recognisers put before it.
This module knows no job and no page. Owners are opaque strings whose prefix names the way they were recognised.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Protocol

from itsdangerous import BadSignature, Signer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.accounts import Accounts, Session
from studio.errors import StoreUnavailable
from studio.settings import Settings

COOKIE = "atelier_owner"
SESSION_COOKIE = "atelier_session"
COOKIE_AGE_S = 2 * 365 * 24 * 3600
SECRET_BYTES = 32
ISSUED_UNDER = ("/api/", "/gradio_api/")  # besides pages; static files and share links leave no cookie


class Recogniser(Protocol):
    """One way to know who sends a request."""

    def owner(self, connection: HTTPConnection) -> str | None:
        """The owner, or None if this way does not know them."""
        ...


def load_secret(settings: Settings) -> bytes:
    """The key that signs cookies: from the settings, else made once in `home/secret` for its user's eyes only."""
    if settings.secret:
        return settings.secret.encode()
    path = settings.home / "secret"
    try:
        if not path.exists():
            _make_secret(path)
        path.chmod(0o600)
        secret = path.read_bytes().strip()
    except OSError as error:
        raise StoreUnavailable(
            f"The secret in {path} cannot be read or made: {error.strerror}.", "Check the folder's permissions."
        ) from error
    if len(secret) < SECRET_BYTES:
        raise StoreUnavailable(f"The secret in {path} is too short.", "Delete the file; a new one is made.")
    return secret


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_urlsafe(SECRET_BYTES).encode())
    try:
        os.link(fresh, path)  # whoever comes first wins, and nobody ever sees half a secret
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


class SessionCookie:
    """Somebody who has logged in: a random token in a cookie, whose session the store knows."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def owner(self, connection: HTTPConnection) -> str | None:
        """The owner of the session, or None without one, or once it has ended."""
        found = self.session(connection)
        return found.owner if found else None

    def session(self, connection: HTTPConnection) -> Session | None:
        """The session in the cookie."""
        token = connection.cookies.get(SESSION_COOKIE, "")
        return self._accounts.session(token) if token else None


class AnonymousCookie:
    """A random owner in a signed cookie: enough to come back to one's own jobs, worth nothing if forged."""

    def __init__(self, secret: bytes) -> None:
        self._signer = Signer(secret, salt="atelier.owner", key_derivation="hmac", digest_method=sha256)

    def owner(self, connection: HTTPConnection) -> str | None:
        """The owner in the cookie, or None without one or with a signature that is not ours."""
        signed = connection.cookies.get(COOKIE, "")
        try:
            return self._signer.unsign(signed).decode()
        except (BadSignature, UnicodeDecodeError):
            return None

    def issue(self) -> tuple[str, str]:
        """(owner, cookie value) for somebody new."""
        owner = "anon:" + secrets.token_urlsafe(16)
        return owner, self._signer.sign(owner).decode()


def sha256(data: bytes = b"") -> Any:
    """What signs cookies and forms."""
    return hashlib.sha256(data)


def owner_of(request: Request) -> str:
    """The owner of a request that came through `OwnerMiddleware`."""
    return str(request.scope["state"]["owner"])


def recognised(ways: Sequence[Recogniser], connection: HTTPConnection) -> str | None:
    """The owner by the first way that knows them."""
    found = (way.owner(connection) for way in ways)
    return next((name for name in found if name), None)


def still_there(request: Request) -> bool:
    """Whether who sent the request is still known as the same owner; a stream asks, as sessions end while it runs."""
    return bool(request.scope["state"]["still"]())


class OwnerMiddleware:
    """Puts the owner into every request's state and hands newcomers their cookie."""

    def __init__(self, app: ASGIApp, cookie: AnonymousCookie, recognisers: Sequence[Recogniser] = ()) -> None:
        self.app = app
        self.cookie = cookie
        self.recognisers = (*recognisers, cookie)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            if SESSION_COOKIE in connection.cookies:  # asks the store, which may have to wait
                owner = await run_in_threadpool(recognised, self.recognisers, connection)
            else:
                owner = recognised(self.recognisers, connection)
        except StoreUnavailable as error:
            answer = JSONResponse({"error": error.as_dict()}, status_code=error.http_status)
            await answer(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["still"] = lambda: recognised(self.recognisers, connection) == state["owner"]
        state["newcomer"] = owner is None
        fresh = ""
        if owner is None:
            owner, fresh = self.cookie.issue()
        state["owner"] = owner

        async def send_with_cookie(message: Message) -> None:
            if fresh and message["type"] == "http.response.start" and _takes_cookie(scope, message):
                line = cookie_line(COOKIE, fresh, scope["scheme"], COOKIE_AGE_S)
                MutableHeaders(scope=message).append("set-cookie", line)
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def _takes_cookie(scope: Scope, message: Message) -> bool:
    """Pages and the API identify people; static files and share links need not, so they leave nothing behind."""
    path = scope["path"]
    if path.startswith(("/r/", "/files/")):
        return False
    kind = MutableHeaders(scope=message).get("content-type", "")
    return path.startswith(ISSUED_UNDER) or kind.startswith("text/html")


def cookie_line(name: str, value: str, scheme: str, age_s: float) -> str:
    """The value of a Set-Cookie header: for this site alone, out of reach of scripts; an age of 0 deletes it."""
    jar: SimpleCookie = SimpleCookie({name: value})
    jar[name].update({"path": "/", "max-age": str(int(age_s)), "samesite": "Lax"})
    jar[name]["httponly"] = True
    if scheme == "https":
        jar[name]["secure"] = True
    return jar[name].OutputString()
