"""Requests to an ASGI application of this process: as fast as a call, with streams cut off, and nothing interpreted.

Unlike a test client it ends an endless stream by hanging up, sends paths exactly as given, and keeps no cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

T = TypeVar("T")

PATIENCE_S = 120.0  # for the whole answer: a busy disk may take its time to keep a file
LINGER_S = 1.0  # how long an endless stream is listened to after it has begun


@dataclass
class Answer:
    """What came back. `status` is 0 where nothing did."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    crash: BaseException | None = None  # what left the application, past all its handlers

    def header(self, name: str) -> str:
        """The first header of that name, or ""."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies that were set, by name."""
        lines = [value.split(";")[0] for key, value in self.headers if key == "set-cookie"]
        return dict(line.split("=", 1) for line in lines)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Application:
    """An ASGI application that has been started, on an event loop and a thread of its own; a context manager.

    Of its own, because a browser that is driven from the same thread keeps a loop running there.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.runner = asyncio.Runner()
        self.thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Application:
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self.thread.submit(self.runner.close).result()
        self.thread.shutdown()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.thread.submit(self.runner.run, work).result()

    def ask(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        body: bytes | None = None,
        data: Any = None,
        client: str = "127.0.0.1",
    ) -> Answer:
        """One request; `data` is sent as JSON, `target` is path and query as they stand on the wire."""
        lines = {"host": "testserver", **{name.lower(): value for name, value in (headers or {}).items()}}
        if cookies:
            lines["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if data is not None:
            body = json.dumps(data).encode()
            lines.setdefault("content-type", "application/json")
        if body is not None:
            lines.setdefault("content-length", str(len(body)))
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path, errors="replace"),
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": query.encode("utf-8", "replace"),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in lines.items()],
            "client": (client, 50_000),
            "server": ("testserver", 80),
            "state": {},
        }
        return self._run(self._ask(scope, body or b""))

    async def _ask(self, scope: dict[str, Any], body: bytes) -> Answer:
        answer, sent = Answer(), False
        begun, ended = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await begun.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LINGER_S)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                begun.set()
                answer.headers = [
                    (name.decode().lower(), value.decode("latin-1")) for name, value in message["headers"]
                ]
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")
                if not message.get("more_body", False):
                    ended.set()

        try:
            await asyncio.wait_for(self.app(scope, receive, send), PATIENCE_S)
        except TimeoutError:
            pass
        except Exception as error:  # starlette's outermost handler answers and then raises what it answered
            answer.crash = error
        return answer

    async def _start(self) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._life = asyncio.create_task(self.app(scope, self._heard.get, self._said.put))
        await self._heard.put({"type": "lifespan.startup"})
        begun = await self._said.get()
        assert begun["type"] == "lifespan.startup.complete", begun

    async def _stop(self) -> None:
        await self._heard.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(self._life, PATIENCE_S)
