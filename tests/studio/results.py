"""Results and numbers of a job, written as a worker's report writes them, in a transaction of their own."""

from __future__ import annotations

from typing import Any

from studio.artifacts import Artifacts, write_metrics, write_output


def add_output(artifacts: Artifacts, *output: Any) -> None:
    with artifacts._db.transaction() as connection:
        write_output(connection, *output)


def set_metrics(artifacts: Artifacts, *numbers: Any) -> None:
    with artifacts._db.transaction() as connection:
        write_metrics(connection, *numbers)
