"""What a request may carry: how many bytes, and of the mounted pages' files only those that its sender brought.

The pages' framework checks paths only where it was launched by itself. Mounted into another application, as here, it
lets any request name any file of this machine, or an address for the server to fetch, and hands an uploaded file to
whoever names it. So it is checked here, before the framework sees it. Knows owners and paths, no store and no page.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import AtelierError, InvalidInput, NotFound, TooLarge
from studio.guards import FILE_ROUTES, SAFE_METHODS, Forbidden

log = logging.getLogger("atelier.pages")

MAX_BODY = 2**20  # bytes of any body that is no upload
FILES_AT_ONCE = 4  # a form may bring several files; all together at most so many times the largest one
PAGES = "/gradio_api/"
BRINGS_FILES = ("/gradio_api/upload", "/gradio_api/upload/")
UPLOADS = ("/api/uploads", *BRINGS_FILES)  # these count what they read themselves

# A file in an answer of the framework: {"path": "/tmp/gradio/...", ...}. Inside a string the quotes are escaped.
_FILE_IN_ANSWER = re.compile(rb'"path":\s*("(?:[^"\\]|\\.)*")')


class Brought:
    """Who brought which file to the pages; forgets the oldest beyond `keep`, and then nobody may name it."""

    def __init__(self, keep: int = 20_000) -> None:
        self._keep = keep
        self._owners: OrderedDict[str, set[str]] = OrderedDict()  # path -> owners; equal bytes share a path
        self._lock = threading.Lock()

    def add(self, owner: str, path: str) -> None:
        """`owner` brought, or was shown, the file at `path`."""
        with self._lock:
            self._owners.setdefault(path, set()).add(owner)
            self._owners.move_to_end(path)
            while len(self._owners) > self._keep:
                self._owners.popitem(last=False)

    def by(self, owner: str, path: str) -> bool:
        """Whether `owner` brought it."""
        with self._lock:
            return owner in self._owners.get(path, ())


class Bodies:
    """Refuses bodies that are too large or name files that are not the sender's; remembers who brings which."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int, check_room: Callable[[], None]) -> None:
        """`check_room` raises StoreUnavailable while the disk has no room for uploads."""
        self.app = app
        self.largest_form = FILES_AT_ONCE * upload_bytes + MAX_BODY
        self.check_room = check_room
        self.brought = Brought()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, owner = scope["path"], str(scope["state"]["owner"])
        try:
            if path.startswith(FILE_ROUTES):
                self._check_file(path, owner)
            elif scope["method"] not in SAFE_METHODS and path in BRINGS_FILES:
                self._check_form(Headers(scope=scope))
            elif scope["method"] not in SAFE_METHODS and path not in UPLOADS:
                body = await whole_body(receive)
                if path.startswith(PAGES):
                    self._check_named(body, owner)
                receive = _replayed(body, receive)
        except AtelierError as error:
            answer = JSONResponse({"error": error.as_dict()}, status_code=error.http_status)
            await answer(scope, receive, send)
            return
        if path.startswith(PAGES) and scope["method"] not in SAFE_METHODS:
            send = _said(self._remembering(send, owner, listed=path in BRINGS_FILES), path)
        await self.app(scope, receive, send)

    def _check_file(self, path: str, owner: str) -> None:
        """Only who brought a file gets it back. Raises NotFound."""
        name = next(path[len(start) :] for start in FILE_ROUTES if path.startswith(start))
        if not self.brought.by(owner, name):
            raise NotFound("There is no such file here.", "Upload it again.")

    def _check_form(self, headers: Headers) -> None:
        """Raises TooLarge, InvalidInput for a form of unknown size, StoreUnavailable."""
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise InvalidInput("The upload does not say how large it is.", "Send it with its length.", field="file")
        if int(length) > self.largest_form:
            raise TooLarge(
                f"The files have {int(length) / 2**20:.0f} MB together.",
                f"Send at most {self.largest_form / 2**20:.0f} MB at once.",
                field="file",
            )
        self.check_room()

    def _check_named(self, body: bytes, owner: str) -> None:
        """Raises Forbidden where the body names a file its sender did not bring, or an address."""
        try:
            tree = json.loads(body) if body.strip() else None
            json.dumps(
                tree, ensure_ascii=False
            ).encode()  # the framework repeats texts, so they must have an encoding
        except (ValueError, RecursionError) as error:
            raise InvalidInput("The request cannot be read.", "Reload the page and try again.") from error
        if not all(self.brought.by(owner, path) for path in named_files(tree)):
            raise Forbidden("The request names a file that you did not upload here.", "Upload it again.")

    def _remembering(self, send: Send, owner: str, *, listed: bool) -> Send:
        """`send`, which notes the files of the answer as the owner's: the list of an upload, or those shown."""
        parts: list[bytes] = []

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.body":
                part = message.get("body", b"")
                if listed:
                    parts.append(part)
                for found in _FILE_IN_ANSWER.findall(part):
                    self.brought.add(owner, json.loads(found))
                if listed and not message.get("more_body", False):
                    for path in _strings(b"".join(parts)):
                        self.brought.add(owner, path)
            await send(message)

        return noting


def _said(send: Send, path: str) -> Send:
    """`send`, which says refusals of the framework as the house does.

    Handlers of the pages catch whatever they meet; so a 500 of the framework means values that no page sends.
    """
    refused = 0

    async def saying(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start":
            refused = message["status"] if message["status"] >= 400 else 0
        if not refused:
            await send(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            log.warning("the framework refused a request with %d", refused, extra={"told": {"path": path[:80]}})
            error = InvalidInput("This page cannot use what was sent to it.", "Reload it and try again.")
            status = error.http_status if refused in (400, 422) or refused >= 500 else refused
            answer = JSONResponse({"error": error.as_dict()}, status_code=status)
            await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
            await send({"type": "http.response.body", "body": bytes(answer.body)})

    return saying


async def whole_body(receive: Receive, most: int = MAX_BODY) -> bytes:
    """The body. Raises TooLarge as soon as it is known to have more than `most` bytes."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > most:
            raise TooLarge(f"The request has more than {most // 1024} kB.", "Files go to /api/uploads.")
    return b"".join(parts)


def named_files(tree: Any) -> Iterator[str]:
    """Every path in JSON from a page, as the framework writes it: {"path": "...", ...}, however deep."""
    left = [tree]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if isinstance(item.get("path"), str):
                yield item["path"]
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)


def _strings(data: bytes) -> list[str]:
    """The strings of a JSON list; nothing for an answer that is none, such as a refusal."""
    try:
        tree = json.loads(data)
    except ValueError:
        return []
    return [item for item in tree if isinstance(item, str)] if isinstance(tree, list) else []


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once and then whatever comes, such as the disconnect."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
