"""The HTTP server's life: it says when it answers, and whatever ends it lets the workers be stopped first.

Knows no route; uvicorn does the serving.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

CLOSING_S = 3  # seconds that open connections have when the server stops


class Server(uvicorn.Server):
    """Calls `ready` once it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve_until_stopped(app: Any, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve `app` until Ctrl-C or SIGTERM; returns after either, so that the caller can clean up."""
    # uvicorn raises the signal that stopped it once more after closing; SIGTERM would by default end us right there.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=CLOSING_S)
    try:
        Server(config, ready).run(sockets=[listening])
    except KeyboardInterrupt:
        return
