"""The API against its own description: schemathesis makes calls from the OpenAPI document, right ones and wrong ones.

    python -m benchmarks.api_contract [--examples 100] [--out contract.jsonl]

Every operation, in this process. An answer must have a status and a shape that the description names; what the
description forbids must be refused; nothing is a 5xx. With `--out` a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.rows import append_row, read_rows
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web import create_api, describe

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@dataclass
class Report:
    """What came of it."""

    calls: int = 0
    operations: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For people."""
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        lines = [f"{self.operations} operations, {self.calls} calls ({codes})", f"faults: {len(self.faults)}"]
        return "\n".join([*lines, *self.faults])


def run(app: Any, services: Services, *, examples: int, out: Path | None = None) -> Report:
    """`examples` right and as many wrong calls of every operation, half of them about things that are there.

    Operations with a row in `out` are not tried again; each is added there as soon as it has been.
    """
    done = {row["operation"]: row for row in read_rows(out)}
    schema = schemathesis.openapi.from_dict(describe(app))
    schema.app = app
    cookies, there = _settled(app, services)
    report = Report()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.label not in done:
            done[operation.label] = {"operation": operation.label, **_tried(operation, cookies, there, examples)}
            if out:
                append_row(out, done[operation.label])
        row = done[operation.label]
        report.operations += 1
        report.calls += row["calls"]
        report.codes.update({int(code): count for code, count in row["codes"].items()})
        report.faults += row["faults"]
    return report


def _tried(operation: Any, cookies: dict[str, str], there: dict[str, Any], examples: int) -> dict[str, Any]:
    """What came of one operation, for JSON."""
    report = Report()
    names = {parameter.name for parameter in operation.path_parameters}
    for mode in MODES:
        for known in ({}, there):
            values = {name: value for name, value in known.items() if name in names}
            if values or not known:
                _try(operation, mode, values, cookies, examples, report)
    return {"calls": report.calls, "codes": report.codes, "faults": report.faults}


def _try(
    operation: Any, mode: Any, values: dict[str, Any], cookies: dict[str, str], examples: int, report: Report
) -> None:
    """Calls of one operation; the first fault of a kind is reported with the call that shows it."""
    try:
        strategy = operation.as_strategy(generation_mode=mode, **({"path_parameters": values} if values else {}))

        @hypothesis_settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def call(case: Any) -> None:
            answer = case.call(cookies=cookies)
            report.calls += 1
            report.codes[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        call()
    except Unsatisfiable:
        if mode is GenerationMode.POSITIVE:  # in others there may be nothing that could be wrong
            report.faults.append(f"{operation.label}: no right call can be made from the description")
    except BaseExceptionGroup as group:
        report.faults += [f"{operation.label} ({mode.value}): {error}" for error in group.exceptions]


def _settled(app: Any, services: Services) -> tuple[dict[str, str], dict[str, Any]]:
    """Cookies of a visitor, and the parts of paths that lead to something of theirs."""
    from fastapi.testclient import TestClient

    visitor = TestClient(app)
    visitor.get("/api/jobs")
    job = visitor.post("/api/jobs", json={"engine": "quick_engine"}).json()["id"]
    token = visitor.post(f"/api/jobs/{job}/shares").json()["token"]
    cookies = dict(visitor.cookies)
    return cookies, {"job_id": job, "name": "quick_engine", "token": token, "seq": 1}


def main() -> int:
    """Print the table; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--out", type=Path, help="a line of JSON for each operation; an old file is gone on with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home),
            engines=("tests.quick_engine",),
            disk_reserve=0,
            rate_per_minute=10**9,
            waiting_cap=10**7,
        )
        services = open_services(settings)
        report = run(create_api(services), services, examples=options.examples, out=options.out)
        services.close()
    print(report.table())
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
