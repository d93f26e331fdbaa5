"""One attempt at one job: the engine's run between its parameters and its manifest.

Knows what a complete result is; every failure passes through to the worker, which is the error boundary.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio import devices
from studio.contract import Estimate
from studio.errors import NotFound, OutOfMemory
from studio.jobs import Job, Jobs
from studio.measure import is_out_of_memory
from studio.models import ModelCache
from studio.provenance import MANIFEST_FORMAT, provenance
from studio.pulse import Pulse
from studio.requests import parse
from studio.run_context import JobContext, Kept
from studio.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What a worker brings to every job: its name, its device, its models and its pulse."""

    worker: str
    device: str
    cache: ModelCache
    pulse: Pulse
    jobs: Jobs
    threads: int = 1


def whole(job: Job, services: Services) -> dict[str, Any] | None:
    """The manifest, if an earlier attempt wrote it, and so everything before it, but could not say so."""
    manifest = services.artifacts.manifest(job.id)
    if manifest is None:
        return None
    try:
        found = all(services.artifacts.path(file["sha256"]).exists() for file in manifest["files"])
    except NotFound:
        return None
    return manifest if found else None


def plan_for(job: Job, services: Services, bench: Bench) -> tuple[Any, Estimate]:
    """The job's parameters and what they will cost on this device now. Raises InvalidInput."""
    spec = services.catalog.spec(job.engine)
    params = parse(spec, job.params)
    facts = devices.facts(bench.device, bench.cache.evictable(bench.device))
    estimate = spec.estimate(params, facts)
    if estimate.plan not in spec.plans:
        raise ValueError(f"engine {spec.name} estimates for plan {estimate.plan!r}, which is not among {spec.plans}")
    return params, estimate


def attempt(job: Job, services: Services, bench: Bench, params: Any, estimate: Estimate, plan: str) -> None:
    """Run the engine, write the manifest, and call the job done. Raises whatever the engine raises."""
    run = services.catalog.run(job.engine)
    devices.settle_torch(bench.threads)
    services.jobs.set_plan(job.id, bench.worker, plan)
    context = JobContext(job, services, bench.cache, bench.pulse, worker=bench.worker, device=bench.device, plan=plan)
    memory, begun = devices.PeakMemory(bench.device), time.monotonic()
    try:
        run(context, params)
    except Kept:
        if not context.keep():
            raise
    seconds = time.monotonic() - begun
    context.flush()
    bench.cache.remember(job.model_key, context.borrowed.keys)
    # A heartbeat just before the last write: a result is only announced by the worker that holds the job.
    services.jobs.heartbeat(job.id, bench.worker)
    services.artifacts.write_manifest(
        job.id, _manifest(job, services, bench, context, plan=plan, seconds=seconds, peak=memory.bytes())
    )
    kept = context.stopped_at is not None
    services.jobs.succeed(job.id, bench.worker, kept=kept)
    if context.resumed_from is None and not kept:
        computing = seconds - context.borrowed.loading_s
        services.jobs.record_timing(job.engine, devices.device_kind(bench.device), estimate.work, computing)


def attempt_within_memory(job: Job, services: Services, bench: Bench) -> None:
    """One attempt; where memory runs out, more with an empty cache and the next thriftier plans, down to the last."""
    params, estimate = plan_for(job, services, bench)
    plans = services.catalog.spec(job.engine).plans
    thriftier = plans[plans.index(estimate.plan) + 1 :] or plans[-1:]  # of the last once more: the cache was full
    shortage: OutOfMemory | None = None
    for plan in (estimate.plan, *thriftier):
        shortage = _short_of_memory(lambda plan=plan: attempt(job, services, bench, params, estimate, plan), bench)  # type: ignore[misc]
        if shortage is None:
            return
        freed = bench.cache.evict_all()
        log.warning("plan %s ran out of memory (%s); %d bytes of models evicted", plan, shortage.message, freed)
    assert shortage is not None
    raise shortage


def _short_of_memory(run: Callable[[], None], bench: Bench) -> OutOfMemory | None:
    """Why memory ran out in `run`, or None. The exception itself ends here: it holds the run's tensors alive."""
    try:
        run()
    except OutOfMemory as error:
        return OutOfMemory(error.message, error.remedy)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return OutOfMemory(
            f"The memory of {bench.device} did not suffice for these settings, even with the thriftiest plan.",
            "Choose a smaller size, or close other programs that use this device.",
        )
    return None


def clear_up(job: Job, services: Services) -> None:
    """Let go of what only a running job needs."""
    services.artifacts.drop_checkpoints(job.id)
    services.artifacts.clear_previews(job.id)


def _manifest(
    job: Job, services: Services, bench: Bench, context: JobContext, *, plan: str, seconds: float, peak: int
) -> dict[str, Any]:
    outputs = services.artifacts.outputs(job.id)
    return {
        "format": MANIFEST_FORMAT,
        "job": job.id,
        **provenance(job.engine, job.params, context.model_rows, bench.device),
        "device_name": devices.facts(bench.device).name,
        "threads": bench.threads,
        "plan": plan,
        "attempt": job.attempts,
        "resumed_from_step": context.resumed_from,
        "stopped_at": context.stopped_at,
        "created": job.created,
        "started": job.started,
        "ended": services.clock(),
        "seconds": round(context.seconds_before + seconds, 3),
        "seconds_loading": round(context.borrowed.loading_s, 3),
        "stages": context.stages,
        "peak_memory_bytes": peak,
        "files": [
            {
                "name": output.name,
                "kind": output.kind,
                "sha256": output.sha,
                "bytes": output.bytes,
                "media_type": output.media_type,
                "attributes": output.attributes,
                "metrics": output.metrics,
            }
            for output in outputs
        ],
        "metrics": services.artifacts.job_metrics(job.id),
    }
