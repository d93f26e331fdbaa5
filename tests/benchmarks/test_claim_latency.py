"""A short run of the claim harness: what is claimed is claimed once, by threads and by processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.claim_latency import fill, measure
from studio.settings import Settings


@pytest.mark.parametrize(("kind", "claimers", "job_s"), [("threads", 4, 0.0), ("processes", 2, 0.001)])
def test_no_job_is_handed_out_twice(tmp_path: Path, kind: str, claimers: int, job_s: float):
    settings, filled = Settings(waiting_cap=1_000, running_cap=1_000), tmp_path / "filled.db"
    fill(filled, settings, 100)
    row = measure(settings, filled, 60, claimers, kind, job_s)
    assert (len(row.taken), row.duplicates) == (60, 0)
    assert str(row).startswith(f"{claimers} {kind}")
