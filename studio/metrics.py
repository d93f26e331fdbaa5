"""Metrics in Prometheus' format: what this server has answered, and what its store says at the moment of asking.

Counters of jobs live in the store, so they survive restarts and the deletion of old jobs. Labels have few values: no
owner, no path and no job is among them. Knows who may read them; the route is in studio.web.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio import health, logs
from studio.services import Services
from studio.settings import Settings

AREAS = ("api", "files", "r", "account", "atelier", "gradio_api", "healthz", "metrics")  # others are pages
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LOOPBACK = ("127.", "::1")
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")  # behind a proxy nobody is local
BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)  # seconds
_JOB = re.compile(r"/api/jobs/(j[\w-]{22})")

log = logging.getLogger("atelier.http")


class Metrics:
    """The registry of one application."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "atelier_http_requests",
            "Requests answered.",
            ("area", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "atelier_http_seconds",
            "Time until the head of the answer was sent.",
            ("area",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.registry.register(StoreCollector(services))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return bytes(generate_latest(self.registry))


class StoreCollector:
    """What the store says whenever it is asked."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> list[Metric]:
        """Nothing beforehand, so that registering asks no store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Queue, workers, models, disk, and all jobs that have ended."""
        found = health.look(self._services)
        yield _gauge("atelier_jobs", "Jobs that have not ended.", "state", {
            "queued": found.waiting, "running": found.running, "paused": found.paused
        })  # fmt: skip
        for name, text, value in (
            ("atelier_queue_oldest_wait_seconds", "How long the next job of all has waited.", found.oldest_wait),
            ("atelier_queue_held_back", "1 while the operator holds the queue back.", found.queue_paused),
            ("atelier_workers", "Workers that live.", len(found.workers)),
            ("atelier_workers_missing", "Workers that fell silent.", found.missing),
            ("atelier_disk_free_bytes", "Free bytes under the home folder.", found.disk_free),
            ("atelier_disk_reserve_bytes", "Below it no job is taken.", found.disk_reserve),
            ("atelier_store_bytes", "Size of the database.", found.store),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield _gauge("atelier_models_warm", "Models ready for the next job.", "device", found.warm)
        memory = GaugeMetricFamily("atelier_models_bytes", "Memory of loaded models.", labels=("device", "place"))
        for row in found.workers:
            for place in ("ram", "vram"):
                told = float(health.models_of(row).get(f"{place}_bytes", 0))
                memory.add_metric((row.device, place), told)
        yield memory
        yield from self._ended()

    def _ended(self) -> Iterator[Metric]:
        labels = ("engine", "state")
        count = CounterMetricFamily("atelier_jobs_ended", "Jobs that have ended.", labels=labels)
        seconds = CounterMetricFamily("atelier_jobs_ended_seconds", "Time they ran.", labels=labels)
        for row in health.tallies(self._services):
            count.add_metric((row["engine"], row["state"]), row["jobs"])
            seconds.add_metric((row["engine"], row["state"]), row["seconds"])
        yield count
        yield seconds


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        made.add_metric((key,), float(value))
    return made


def may_look(request: Request, settings: Settings) -> bool:
    """Whether who asks may see the figures of the house: by the token, from this machine, or where all may."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    wanted = settings.metrics_token
    if wanted and scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), wanted.encode()):
        return True
    if settings.metrics == "local":
        host = request.client.host if request.client else ""
        return host.startswith(LOOPBACK) and not any(name in request.headers for name in FORWARDED)
    return settings.metrics == "public"


class Counted:
    """Counts requests and marks the log lines of each with the job it is about; what changes something is a line."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self.app = app
        self.metrics = metrics
        self.timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, path, method = self.timer(), scope["path"], scope["method"]
        about = _JOB.match(path)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(method, path, message["status"], self.timer() - begun)
            await send(message)

        with logs.about(about[1] if about else None):
            await self.app(scope, receive, noting)

    def _note(self, method: str, path: str, status: int, seconds: float) -> None:
        area = path.split("/", 2)[1]
        area = area if area in AREAS else "page"
        method = method if method in METHODS else "other"
        self.metrics.requests.labels(area, method, str(status)).inc()
        self.metrics.seconds.labels(area).observe(seconds)
        if area in ("api", "account") and method not in ("GET", "HEAD", "OPTIONS"):
            log.info("answered", extra={"told": {"method": method, "area": area, "status": status,
                                                 "ms": round(seconds * 1000, 1)}})  # fmt: skip
