"""Two seeded crash trials, and proof that the checks see what they are there to see."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.crash_checks import (
    checkpoint_faults,
    digest,
    history_faults,
    orphans,
    result_faults,
    store_faults,
)
from benchmarks.crash_trials import draw, run, table
from studio.jobs import Event
from studio.worker import run_job
from tests.studio.shop import Shop, open_shop


def test_jobs_outlive_kills(tmp_path: Path):
    options = argparse.Namespace(
        trials=2, out=tmp_path / "out", real=False, seed=4, length=0.5, mount=False, part=(0, 1)
    )
    rows = run(options)
    assert [row["faults"] for row in rows] == [[], []]
    assert sum(row["done"].get(what, 0) for row in rows for what in ("worker", "workers", "server", "everything"))
    assert run(options) == rows, "what is done is not done again"
    assert "lost: 0" in table(rows)


def test_a_plan_is_drawn_from_its_number():
    assert draw(7, 1, real=False, length=1.0) == draw(7, 1, real=False, length=1.0)
    assert draw(7, 1, real=False, length=1.0) != draw(8, 1, real=False, length=1.0)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path)


def happened(shop: Shop, job_id: str) -> list[Event]:
    return shop.services.jobs.events(job_id)


def test_a_quiet_job_is_without_fault(shop: Shop):
    _, job = shop.work(steps=3, methods=("method", "plain"))
    assert history_faults(job, happened(shop, job.id)) == []
    assert checkpoint_faults(happened(shop, job.id)) == []
    assert result_faults(shop.services, job, digest(shop.services, job.id)) == []
    assert store_faults(shop.services) == orphans(shop.services) == []


def test_histories_that_cannot_be_are_seen(shop: Shop):
    _, job = shop.work(steps=2)
    events = happened(shop, job.id)

    def faults(changed: list[Event], **columns: Any) -> str:
        return " ".join(history_faults(replace(job, **columns), changed))

    again = replace(events[-1], seq=len(events) + 1)
    assert "a gap" in faults(events[:2] + events[3:])
    assert "succeeded -> succeeded" in faults([*events, again])
    assert "more than once" in faults([*events, again])
    assert "lost: still running" in faults(events, state="running")
    assert "the row says failed" in faults(events, state="failed")
    assert "begin with" in faults(events[1:])


def test_work_done_twice_is_seen(shop: Shop):
    _, job = shop.work(steps=3)
    events = happened(shop, job.id)
    kept = [event for event in events if event.kind == "checkpoint"]
    assert "step 2 was kept again after 3" in checkpoint_faults([*kept, kept[1]])[0]


def test_results_that_are_not_whole_are_seen(shop: Shop):
    _, job = shop.work(steps=3)
    quiet = digest(shop.services, job.id)
    assert "not that of" in result_faults(shop.services, job, {"other.png": "0" * 64})[0]
    path = shop.services.artifacts.path(next(iter(quiet.values())))
    path.write_bytes(path.read_bytes()[:-1])
    assert "not what its hash says" in result_faults(shop.services, job, quiet)[0]
    shop.services.artifacts.drop_manifest(job.id)
    assert result_faults(shop.services, job, quiet) == ["half-written: no manifest"]


def test_orphans_and_wrong_counters_are_seen(shop: Shop):
    job_id = shop.submit(steps=2)
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"
    shop.services.artifacts.path(next(iter(digest(shop.services, job_id).values()))).unlink()
    with shop.services.db.transaction() as connection:
        connection.execute("UPDATE owner SET waiting = 7")
    assert "a row without its file" in " ".join(orphans(shop.services))
    assert "counters of anna are wrong" in " ".join(store_faults(shop.services))
