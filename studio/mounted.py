"""What is done to the pages of the framework that is mounted under our routes: a head of ours, and a page for a 404.

The framework writes its pages in the browser and would load our styles only then; with them in the head that the
server sends, nothing jumps. Knows HTML as bytes, no route and no store.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Not the framework's pages.
OWN = ("/api/", "/files/", "/r/", "/account", "/atelier/", "/healthz", "/metrics", "/gradio_api/")
_FOREIGN_META = re.compile(rb'<meta[^>]*(?:property="og:|name="twitter:)[^>]*>\s*')  # names other hosts


def asks_for_page(request: Request) -> bool:
    """Whether a person's browser asks for a page, so that a failure is told as one."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


class MountedPages:
    """Gives mounted pages `head`, and turns their bare 404 into the page that `lost` makes."""

    def __init__(self, app: ASGIApp, lost: Callable[[], Response], head: str = "") -> None:
        self.app = app
        self.lost = lost
        self.head = head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN) or not asks_for_page(Request(scope)):
            await self.app(scope, receive, send)
            return
        packed = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._answer(start, bytes(body), packed)(scope, receive, send)

        await self.app({**scope, "headers": plain}, receive, collect)

    def _answer(self, start: Message, body: bytes, packed: bool) -> Response:
        if start["status"] == 404:
            return self.lost()
        answer = Response(body, status_code=start["status"])
        answer.raw_headers = list(start["headers"])
        headers = MutableHeaders(raw=answer.raw_headers)
        if not headers.get("content-type", "").startswith("text/html"):
            return answer
        answer.body = _FOREIGN_META.sub(b"", body).replace(b"</head>", self.head + b"</head>", 1)
        if packed:
            answer.body = gzip.compress(answer.body, compresslevel=5, mtime=0)
            headers["content-encoding"] = "gzip"
        headers["vary"] = "accept-encoding"
        headers["content-length"] = str(len(answer.body))
        return answer
