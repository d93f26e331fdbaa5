"""From raw values to a queued job: the one way in that pages, HTTP and the command line share.

Builds the engine's frozen parameters, says what a run will cost, refuses what cannot work with a sentence at the
field, and submits. Knows no widget and no protocol.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from studio import devices
from studio.contract import DeviceFacts, EngineSpec, Estimate, Params
from studio.errors import InvalidInput, StoreUnavailable
from studio.inputs import check_files
from studio.jobs import Job
from studio.measure import gib
from studio.rows import encodable
from studio.services import Services

log = logging.getLogger("atelier.requests")

SHOWN = 60  # characters of a bad value that a sentence repeats
FRESH_S = 60.0  # a worker not seen for longer tells nothing about its device


def submit(
    services: Services,
    engine: str,
    values: Mapping[str, Any],
    *,
    owner: str,
    token: str | None = None,
    priority: int = 0,
) -> Job:
    """Queue a job of `engine` for `owner`.

    Raises InvalidInput at the field, NotFound, LimitReached or StoreUnavailable.
    """
    spec = services.catalog.spec(engine)
    params = parse(spec, values)
    check_files(services, params, owner)
    spec.estimate(params, device_facts(services, engine))
    check_disk(services)
    job = services.jobs.submit(
        engine,
        params.model_dump(mode="json"),
        owner=owner,
        model_key=spec.model_key(params),
        priority=priority,
        token=token,
    )
    log.info("submitted", extra={"job": job.id, "told": {"engine": engine, "owner": owner}})
    if services.executor is not None:
        services.executor.wake()
    return job


def estimate(services: Services, engine: str, values: Mapping[str, Any]) -> Estimate:
    """What a run with these values will cost. Raises InvalidInput, e.g. with the largest size that fits."""
    spec = services.catalog.spec(engine)
    return spec.estimate(parse(spec, values), device_facts(services, engine))


def parse(spec: EngineSpec, values: Mapping[str, Any]) -> Any:
    """The engine's frozen parameters. Raises InvalidInput with the field, the value and what is allowed."""
    try:
        params = spec.params.model_validate(dict(values))
    except ValidationError as error:
        raise _first_fault(spec.params, error) from error
    for name, value in params.model_dump().items():
        if not _writable(value):
            title = spec.params.model_fields[name].title or name
            raise InvalidInput(f"{title} has a broken character.", "Type that place again.", field=name)
    spec.validate(params)
    return params


def device_facts(services: Services, engine: str) -> DeviceFacts:
    """The roomiest device that a living worker reported, else this machine's; with the engine's measured speed."""
    now = services.clock()
    known = {item.name for item in fields(DeviceFacts)}
    reported = [
        DeviceFacts(**{name: value for name, value in row.facts.items() if name in known})
        for row in services.jobs.workers()
        if now - row.seen < FRESH_S and row.facts.get("memory_total")
    ]
    facts = max(reported, key=lambda item: (item.kind == "cuda", item.memory_total), default=None)
    facts = facts or devices.facts("cpu")
    return replace(facts, speed=services.jobs.speed(engine, facts.kind))


def check_disk(services: Services) -> None:
    """Refuse work that could not be stored. Raises StoreUnavailable."""
    if (left := disk_short(services)) is not None:
        raise StoreUnavailable(
            f"The disk under {services.settings.home} has only {gib(left)} left, too little for a new result.",
            "Free some space and try again; nothing that is stored was lost.",
        )


def disk_short(services: Services) -> int | None:
    """Free bytes of the store's disk if they are fewer than the reserve, else None."""
    free = shutil.disk_usage(services.settings.home).free
    return free if free < services.settings.disk_reserve else None


def _writable(value: Any) -> bool:
    """Whether all text within can be written down: half characters (lone surrogates) have no encoding."""
    if isinstance(value, Mapping):
        return all(_writable(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_writable, value))
    return not isinstance(value, str) or encodable(value) == value


def _first_fault(params: type[Params], error: ValidationError) -> InvalidInput:
    """The first of pydantic's findings as a sentence with the value, and the allowed range as the remedy."""
    fault = error.errors(include_url=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else ""
    info = params.model_fields.get(name)
    if info is None:
        choices = ", ".join(params.model_fields)
        return InvalidInput(f"There is no parameter {name[:SHOWN]!r}.", f"The parameters are: {choices}.", field=name)
    title = info.title or name
    if fault["type"] == "missing":
        return InvalidInput(f"{title} is missing.", _allowed(info, fault["msg"]), field=name)
    shown = repr(fault["input"])
    shown = shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
    return InvalidInput(f"{title} cannot be {shown}.", _allowed(info, fault["msg"]), field=name)


def _allowed(info: FieldInfo, message: str) -> str:
    """What a field takes: its bounds, where it has any, else what pydantic says."""
    bounds = {name: getattr(item, name) for item in info.metadata for name in _BOUNDS if hasattr(item, name)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is not None and high is not None:
        return f"Choose a value from {low} to {high}."
    if low is not None or high is not None:
        return f"Choose a value of at {f'least {low}' if high is None else f'most {high}'}."
    return message.removeprefix("Value error, ").rstrip(".") + "."


_BOUNDS = ("ge", "gt", "le", "lt")
