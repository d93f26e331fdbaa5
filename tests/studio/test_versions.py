"""Stores of every earlier version: what is in them is still there, and what was to be done is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.crash_checks import orphans, store_faults
from studio.migrations import MIGRATIONS
from studio.services import Services
from tests.studio.shop import Shop, open_shop

STORES = Path(__file__).resolve().parents[1] / "fixtures" / "stores"
VERSIONS = [int(path.name) for path in STORES.iterdir() if path.is_dir()]


@pytest.fixture(params=sorted(VERSIONS), ids=lambda version: f"version {version}")
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    shutil.copytree(STORES / str(request.param), tmp_path / "home")
    return open_shop(tmp_path)


def states(services: Services) -> dict[str, list[str]]:
    """State -> ids of the jobs in it."""
    found: dict[str, list[str]] = {}
    for job in services.jobs.list():
        found.setdefault(job.state, []).append(job.id)
    return found


def test_there_is_a_store_of_every_earlier_version():
    assert sorted(VERSIONS) == list(range(1, len(MIGRATIONS)))


def test_everything_is_still_there(shop: Shop):
    services = shop.services
    assert services.db.version == len(MIGRATIONS)
    assert {"queued", "running", "paused", "cancelled"} <= states(services).keys()
    assert store_faults(services) == []
    for job in services.jobs.list():
        assert services.jobs.events(job.id)
    for job_id in states(services).get("succeeded", []):
        files = services.artifacts.manifest(job_id)["files"]
        assert [file["name"] for file in files] == ["method-1.png", "plain-1.png"]
        assert [output.sha for output in services.artifacts.outputs(job_id)] == [file["sha256"] for file in files]
        assert services.shares.for_job(job_id, "anna")
        assert all(services.artifacts.path(file["sha256"]).is_file() for file in files)


def test_what_was_to_be_done_is_done(shop: Shop):
    services = shop.services
    before = states(services)
    for job_id in before["paused"]:
        services.jobs.resume(job_id)
    for job_id in before["running"]:
        services.jobs.reclaim(services.jobs.get(job_id).worker)
    shop.worker.run(until_empty=True)
    after = states(services)
    asked = ("succeeded", "queued", "running", "paused")
    assert set(after["succeeded"]) == {job_id for state in asked for job_id in before.get(state, [])}
    checkpoints = services.settings.home / "checkpoints"
    for job_id in before["running"]:
        # The first version had no files, and so no checkpoints.
        kept = 2 if "succeeded" in before else None
        assert services.artifacts.manifest(job_id)["resumed_from_step"] == kept
        assert not (checkpoints / job_id).exists()
    assert store_faults(services) == []
    assert orphans(services) == []
