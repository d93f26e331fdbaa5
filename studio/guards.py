"""What every request passes before a route sees it: origin check, rate limit, closed doors, security headers.

Plain ASGI, so that streams stay streams. Knows no route beyond path prefixes and no store.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import AtelierError, LimitReached

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
NEVER_KEPT = ("/api/", "/r/", "/account")  # answers that no cache may keep: a link may be revoked, a session end
COUNTED = ("/api/", "/account/", "/gradio_api/upload")  # changes that the rate limit counts
ADDRESS_SHARE = 5  # an address may send so many times what one owner may: a new cookie is no new allowance
CLOSED = ("/gradio_api/proxy=", "/proxy=", "/gradio_api/vibe", "/gradio_api/run-history", "/gradio_api/deep_link")
FILE_ROUTES = ("/gradio_api/file=", "/file=", "/gradio_api/file/")

# The pages' framework builds its templates with inline scripts and eval; everything still comes from here alone.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
FILE_POLICY = "sandbox; default-src 'none'"  # a file somebody brought never acts as a page of this site


class Forbidden(AtelierError):
    """A request that this server never answers, e.g. one sent by another site's page."""

    code = "forbidden"
    http_status = 403


class RateLimiter:
    """At most `per_minute` in any minute on average per key, in bursts of the same size (a token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float], *, keys: int = 10_000) -> None:
        self._capacity = float(per_minute)
        self._clock = clock
        self._keys = keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, time)
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count one request. Raises LimitReached with the seconds to wait."""
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(key, (self._capacity, now))
            tokens = min(self._capacity, tokens + max(0.0, now - then) * self._capacity / 60)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if allowed else tokens, now)
            while len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - tokens) * 60 / self._capacity)
            raise LimitReached(
                f"More than {self._capacity:.0f} requests came within a minute.", f"Try again in {wait} s."
            )


def caller(connection: HTTPConnection) -> str:
    """Whom a request counts for: its owner, or the address of somebody who brought no owner."""
    state = connection.scope.get("state", {})
    return address(connection) if state.get("newcomer", True) else str(state["owner"])


def address(connection: HTTPConnection) -> str:
    """Where a request comes from, as a key."""
    return f"address:{connection.client.host if connection.client else 'unknown'}"


def foreign_origin(headers: Headers) -> bool:
    """Whether a browser says that another site's page sent this. Programs send no Origin and pass."""
    if headers.get("sec-fetch-site", "same-origin") == "cross-site":
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    # A page of another site cannot set X-Forwarded-Host without our consent, so it may be believed here.
    own = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    return urlsplit(origin).netloc not in own


class Guard:
    """Refuses what must not reach a route, and adds the headers every answer carries.

    `framed_by` are the other sites whose pages may hold ours in a frame.
    """

    def __init__(
        self, app: ASGIApp, limiter: RateLimiter, addresses: RateLimiter, framed_by: Sequence[str] = ()
    ) -> None:
        self.app = app
        self.limiter = limiter
        self.addresses = addresses
        self.policy = " ".join((PAGE_POLICY, *framed_by))  # the ancestors stand last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except AtelierError as error:
            answer = JSONResponse({"error": error.as_dict()}, status_code=error.http_status)
            await answer(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _secure(MutableHeaders(scope=message), scope["path"], self.policy)
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        path = unquote(scope["path"])
        inner = path.partition("=")[2] if path.startswith(FILE_ROUTES) else ""
        if path.startswith(CLOSED) or inner.lower().startswith(("http:", "https:", "ftp:", "//")):
            raise Forbidden("This address is closed here.", "Files are served under /files.")
        if scope["method"] not in SAFE_METHODS:
            if foreign_origin(Headers(scope=scope)):
                raise Forbidden(
                    "The request came from a page of another site.", "Open Atelier in this browser and try again."
                )
            if path.startswith(COUNTED):
                connection = HTTPConnection(scope)
                self.addresses.take(address(connection))
                self.limiter.take(caller(connection))


def _secure(headers: MutableHeaders, path: str, policy: str) -> None:
    headers.setdefault("x-content-type-options", "nosniff")
    headers.setdefault("referrer-policy", "same-origin")
    if path.startswith(NEVER_KEPT):
        headers.setdefault("cache-control", "no-store")
    if path.startswith(FILE_ROUTES):
        headers["content-security-policy"] = FILE_POLICY
        headers["cache-control"] = "private, no-cache"
    elif headers.get("content-type", "").startswith("text/html"):
        headers.setdefault("content-security-policy", policy)
