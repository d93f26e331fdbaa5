"""The commands that look after a store: submit, jobs, models, worker, backup, ...; each returns an exit code.

They work beside a running server, on the same store, as a trusted owner. Knows no flags; `__main__` reads them.
"""

from __future__ import annotations

import secrets
import signal
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from studio import logs
from studio import settings as all_settings
from studio.backup import back_up
from studio.backup import restore as bring_back
from studio.errors import AtelierError, NotFound, WeightsMissing
from studio.executors.local import LocalExecutor
from studio.inputs import with_files
from studio.jobs import Job
from studio.measure import gib
from studio.requests import submit
from studio.services import open_services
from studio.settings import Settings

OWNER = "command-line"
PICKLED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.msgpack"]
ACTIONS = ("cancel", "stop", "pause", "resume", "retry")


def submit_job(settings: Settings, engine: str, values: list[dict[str, Any]], options: Namespace) -> int:
    """Queue one job for each of `values` in the server's store."""
    services = open_services(settings)
    spec = services.catalog.spec(engine)
    for each in values:
        ready = with_files(services, spec, each, options.owner)
        print(submit(services, engine, ready, owner=options.owner, priority=options.priority).id)
    return 0


def jobs(settings: Settings, options: Namespace) -> int:
    """List jobs, show one, or do something to it."""
    queue = open_services(settings).jobs
    action, job_id = options.action, options.job
    if action == "list":
        for job in queue.list(
            options.owner, states=options.state, engine=options.engine, limit=min(options.limit, 10**9)
        ):
            print(_row(job))
    elif action in ("pause-queue", "resume-queue"):
        queue.pause_queue() if action == "pause-queue" else queue.resume_queue()
        print("The queue is paused." if queue.queue_paused else "The queue runs.")
    elif job_id is None:
        raise NotFound(f"jobs {action} needs the id of a job.", "`python -m studio jobs` lists them.")
    elif action == "show":
        _show(queue.get(job_id))
        for event in queue.events(job_id):
            print(f"  {event.seq:4d}  {_clock(event.time)}  {event.kind:10s} {_short(event.payload)}")
    elif action == "priority":
        print(_row(queue.set_priority(job_id, options.priority)))
    else:
        print(_row(getattr(queue, action)(job_id)))
    return 0


def models(settings: Settings, options: Namespace, root: Path) -> int:
    """List what models there are on this machine, or download one."""
    if options.action == "download":
        return _download(settings, options)
    for title, found in (
        ("Shipped with Atelier", _folders(root / "assets" / "pocket")),
        (f"In {settings.weights or 'ATELIER_WEIGHTS (not set)'}", _folders(settings.weights)),
        ("In the hub's cache", _hub_cache()),
    ):
        print(f"{title}:")
        for name, size in found:
            print(f"  {gib(size):>9s}  {name}")
        if not found:
            print("  nothing")
    for row in open_services(settings).jobs.workers():
        for model in row.facts.get("models", {}).get("models", []):
            print(f"Loaded by {row.id}: {gib(model['bytes'])} {model['key']} on {model['place']}")
    return 0


def worker(settings: Settings, options: Namespace) -> int:
    """Serve one device, or with --all every device of the settings, without a page."""
    from studio.worker import main

    if options.all:
        return _serve_all(settings)
    main(
        settings,
        options.device,
        options.id or f"own-{options.device}-{secrets.token_hex(8)}",
        supervised=options.supervised,
    )
    return 0


def show_settings(settings: Settings) -> int:
    """Every setting, its value now and what it means."""
    values = settings.environ()
    for variable, default, text in all_settings.table():
        print(f"{variable}={values.get(variable, '')}\n    {text} [{default}]")
    return 0


def sweep(settings: Settings) -> int:
    """Delete what the retention time lets go."""
    services = open_services(settings)
    counts: Any = services.artifacts.sweep(services.clock(), settings.retention_days)
    print(counts)
    return 0


def backup(settings: Settings, options: Namespace) -> int:
    """Everything that cannot be made again, in one file; a server may go on meanwhile."""
    amount = back_up(settings, options.file)
    print(f"{options.file}: {amount.jobs} jobs, {amount.files} files, {gib(amount.bytes)}.")
    return 0


def restore(settings: Settings, options: Namespace) -> int:
    """A backup becomes the store of this home folder."""
    amount = bring_back(settings, options.file)
    print(f"{settings.home}: {amount.files} files, {gib(amount.bytes)}. Start Atelier as usual.")
    return 0


def _serve_all(settings: Settings) -> int:
    services = open_services(settings, exclusive=True)
    logs.configure(settings.home, "supervisor")
    executor, stop = LocalExecutor(settings), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    executor.start()
    print(f"Serving the store in {settings.home}; Ctrl-C ends it.", flush=True)
    stop.wait()
    executor.stop(settings.grace)
    services.close()
    return 0


def _download(settings: Settings, options: Namespace) -> int:
    """The one command that goes to the network, and only when it is asked to."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = settings.weights / options.repo.replace("/", "--") if settings.weights else None
    try:
        path = snapshot_download(
            options.repo,
            revision=options.revision,
            local_dir=folder,
            ignore_patterns=None
            if options.every_file
            else ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.msgpack"],
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise WeightsMissing(
            f"{options.repo} could not be downloaded: {str(error).splitlines()[0][:300]}",
            "Check the name and the connection; some models ask you to accept their licence on the hub first.",
        ) from error
    print(path)
    return 0


def _folders(place: Path | None) -> list[tuple[str, int]]:
    if place is None or not place.is_dir():
        return []
    return [(path.name, _size(path)) for path in sorted(place.iterdir()) if path.is_dir()]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _hub_cache() -> list[tuple[str, int]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    return sorted((repo.repo_id, repo.size_on_disk) for repo in cache.repos)


def _row(job: Job) -> str:
    progress = job.progress or {}
    share = f"{progress['step']}/{progress['total']}" if job.state == "running" and progress.get("total") else ""
    return f"{job.id}  {job.state:9s} {share:8s} {job.priority:4d}  {_clock(job.created)}  {job.engine}"


def _show(job: Job) -> None:
    print(_row(job))
    for name, value in job.params.items():
        print(f"  {name} = {value!r}")
    if job.error:
        print(f"  {job.error['message']} {job.error['remedy']}")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _short(payload: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {value}" for key, value in payload.items() if value not in (None, "", [], {}))
    return text if len(text) <= 100 else text[:99] + "…"


def sentence(error: AtelierError) -> str:
    """A failure as the terminal says it."""
    return f"{error.message}\n{error.remedy}".rstrip()
