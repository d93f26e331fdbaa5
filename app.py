"""The front door: settings, services, plain routes, pages, one server. Only assembles; `python app.py --help`."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # nearly all that a start makes stays: looking for garbage in it took a quarter of the start

import argparse
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from studio import logs, requests
from studio.embedded import read_provenance
from studio.errors import StoreUnavailable
from studio.executors.local import LocalExecutor
from studio.guards import caller
from studio.identity import owner_of
from studio.imports import absent, without
from studio.retention import Sweeper
from studio.services import Services, open_services
from studio.serving import serve_until_stopped
from studio.settings import Settings, SettingsError, quiet_libraries
from studio.web import create_api


def settings_of(arguments: list[str] | None = None) -> Settings:
    """The environment's settings, with what the command line says on top. Raises SettingsError."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve Atelier on this machine.")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860; 0: a free one)")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--home", type=Path, help="folder of all data (default ~/.atelier)")
    said = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Settings.from_env().replace(**said)


def create_app(services: Services) -> FastAPI:
    """Plain routes and pages as one application."""
    warnings.filterwarnings("ignore", message="SSR mode is not supported")  # nor asked for
    quiet_libraries()  # before the pages' framework is imported, which would report its use
    # Else each start writes stubs for editors, and spends half a second on two companions that no page uses.
    with without("gradio.component_meta", "create_or_modify_pyi"), absent("IPython", "mcp"):
        import gradio as gr

    from demos import build_pages
    from demos.panel import Desk, WorkerView
    from demos.theme import HEAD, theme

    api = create_api(services, head=HEAD)

    def submit(request: Any, engine: str, values: Any, token: str | None) -> Any:
        inner: Request = request.request
        api.state.limiter.take(caller(inner))
        return requests.submit(services, engine, values, owner=owner_of(inner), token=token)

    desk = Desk(
        specs={name: services.catalog.spec(name) for name in services.catalog.names},
        submit=submit,
        estimate=lambda engine, values: requests.estimate(services, engine, values),
        check=requests.parse,
        job=lambda request, job_id: services.jobs.get(job_id, owner_of(request.request)),
        shared=lambda token: services.jobs.get(services.shares.resolve(token)),
        read_settings=read_provenance,
        retention_days=services.settings.retention_days,
        workers=lambda: [
            WorkerView(row.device, max(0.0, services.clock() - row.seen), row.facts)
            for row in services.jobs.workers()
        ],
    )
    return gr.mount_gradio_app(
        api,
        build_pages(desk),
        path="/",
        theme=theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        blocked_paths=[str(services.settings.home.resolve())],
        max_file_size=services.settings.upload_bytes,
        show_error=False,
    )


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises StoreUnavailable, e.g. where another server has the store; OSError."""
    executor = LocalExecutor(settings)
    services = open_services(settings, executor=executor, exclusive=True)
    logs.configure(settings.home, "server")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.create_server((settings.host, settings.port), family=family)
    host, port = listening.getsockname()[:2]

    sweeper = Sweeper(lambda: services.artifacts.sweep(services.clock(), settings.retention_days))

    def ready() -> None:
        gc.freeze()
        gc.enable()
        shown = f"[{host}]" if ":" in host else host
        print(f"Atelier is at http://{shown}:{port}  (data: {settings.home}, stop: Ctrl-C)", flush=True)
        executor.start()
        sweeper.start()

    try:
        serve_until_stopped(create_app(services), listening, ready)
    finally:
        sweeper.stop()
        executor.stop(settings.grace)


if __name__ == "__main__":
    try:
        serve(settings_of())
    except (SettingsError, StoreUnavailable, OSError) as error:
        sys.exit(f"Atelier cannot start. {error}")
