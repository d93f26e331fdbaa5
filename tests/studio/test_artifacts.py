"""Stored bytes, results, manifests, previews, checkpoints and their end; and disks that will not have them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from studio.artifacts import Artifacts
from studio.errors import NotFound, StoreUnavailable
from studio.jobs import Job, Jobs
from studio.retention import DAY_S, FRESH_S
from studio.shares import Shares
from tests.studio.results import add_output, set_metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def job(jobs: Jobs) -> Job:
    return jobs.submit("e", {}, owner="ann")


def done(jobs: Jobs, owner: str = "ann", **params: str) -> Job:
    """A job that has succeeded."""
    job = jobs.submit("e", params, owner=owner)
    assert jobs.claim("w", "cpu") is not None
    return jobs.succeed(job.id, "w")


def everything(home: Path) -> set[str]:
    """All files under files/ and tmp/."""
    return {str(path.relative_to(home)) for room in ("files", "tmp") for path in (home / room).rglob("*.*")} | {
        str(path.relative_to(home)) for path in (home / "files").rglob("?" * 64)
    }


def test_bytes_lie_under_their_hash(artifacts: Artifacts):
    data = os.urandom(3 * 2**20 + 17)
    sha = artifacts.put(data, media_type="image/png")
    assert sha == hashlib.sha256(data).hexdigest()
    assert artifacts.path(sha).read_bytes() == data
    assert artifacts.path(sha).relative_to(artifacts.home).parts == ("files", sha[:2], sha)
    assert artifacts.media_type(sha) == "image/png"


def test_the_same_bytes_are_one_file_and_keep_their_type(artifacts: Artifacts, tmp_path: Path):
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    first = artifacts.put(b"hello", media_type="text/plain")
    assert artifacts.put(source, media_type="application/json") == first
    assert artifacts.media_type(first) == "text/plain"
    assert everything(artifacts.home) == {f"files/{first[:2]}/{first}"}


def test_empty_bytes_are_bytes_too(artifacts: Artifacts):
    assert artifacts.path(artifacts.put(b"", media_type="text/plain")).read_bytes() == b""


def test_many_threads_may_put_the_same_bytes(artifacts: Artifacts):
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(artifacts.put(b"same", media_type="text/plain", owner="ann")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert everything(artifacts.home) == {f"files/{found[0][:2]}/{found[0]}"}


@pytest.mark.parametrize("sha", ["", "ab", "../../secret", "A" * 64, "0" * 64, "0" * 63 + "/", "0" * 64 + "\n"])
def test_what_is_no_hash_or_not_there_is_not_found(artifacts: Artifacts, sha: str):
    with pytest.raises(NotFound):
        artifacts.path(sha)
    with pytest.raises(NotFound):
        artifacts.media_type(sha)
    assert not artifacts.may_read(sha, "ann")


@pytest.mark.parametrize("job_id", ["", "..", "../x", "a/b", "x" * 65, "a\0"])
def test_no_path_leaves_the_home(artifacts: Artifacts, job_id: str):
    for call in (artifacts.manifest, artifacts.newest_checkpoint, artifacts.drop_files):
        with pytest.raises(NotFound):
            call(job_id)
    with pytest.raises(NotFound):
        artifacts.preview_path(job_id, 1)


def test_only_who_uploaded_or_made_bytes_may_read_them(artifacts: Artifacts, job: Job):
    uploaded = artifacts.put(b"upload", media_type="text/plain", owner="bob", name="a.txt")
    made = artifacts.put(b"made", media_type="text/plain")
    assert not artifacts.may_read(made, "ann")
    add_output(artifacts, job.id, "a.txt", "data", made, {})
    readers = {(sha, owner) for sha in (uploaded, made) for owner in ("ann", "bob") if artifacts.may_read(sha, owner)}
    assert readers == {(uploaded, "bob"), (made, "ann")}


def test_outputs_come_in_the_order_of_saving_with_their_metrics(artifacts: Artifacts, job: Job):
    shas = [artifacts.put(str(n).encode(), media_type="text/plain") for n in range(3)]
    add_output(artifacts, job.id, "b.txt", "data", shas[0], {"role": "baseline"})
    set_metrics(artifacts, job.id, "a.txt", {"objects": 1})  # before the result itself
    add_output(artifacts, job.id, "a.txt", "data", shas[1], {})
    add_output(artifacts, job.id, "b.txt", "data", shas[2], {"role": "method"})  # replaces, at its place
    set_metrics(artifacts, job.id, "a.txt", {"horizons": float("nan")})
    set_metrics(artifacts, job.id, "", {"gain": 2.5})
    outputs = artifacts.outputs(job.id)
    assert [(item.name, item.sha, item.bytes) for item in outputs] == [("b.txt", shas[2], 1), ("a.txt", shas[1], 1)]
    assert (outputs[0].attributes, outputs[0].metrics) == ({"role": "method"}, {})
    assert outputs[1].metrics == {"objects": 1, "horizons": None}
    assert artifacts.job_metrics(job.id) == {"gain": 2.5}


def test_an_output_needs_its_bytes(artifacts: Artifacts, job: Job):
    with pytest.raises(NotFound):
        add_output(artifacts, job.id, "a.txt", "data", "0" * 64, {})


def test_a_manifest_is_there_or_not(artifacts: Artifacts, job: Job):
    assert artifacts.manifest(job.id) is None
    path = artifacts.write_manifest(job.id, {"engine": "e", "params": {"prompt": "☃"}})
    assert artifacts.manifest(job.id) == {"engine": "e", "params": {"prompt": "☃"}}
    assert [item.name for item in path.parent.iterdir()] == ["manifest.json"]
    artifacts.drop_manifest(job.id)
    assert artifacts.manifest(job.id) is None


def test_the_last_two_previews_are_kept(artifacts: Artifacts, job: Job):
    for seq in range(8, 13):
        artifacts.save_preview(job.id, seq, b"png %d" % seq)
    assert artifacts.preview_path(job.id, 12).read_bytes() == b"png 12"
    assert artifacts.preview_path(job.id, 11).is_file()
    with pytest.raises(NotFound, match="no preview 10"):
        artifacts.preview_path(job.id, 10)
    artifacts.clear_previews(job.id)
    artifacts.clear_previews(job.id)
    with pytest.raises(NotFound):
        artifacts.preview_path(job.id, 12)


def test_the_newest_checkpoint_is_that_of_the_highest_step(artifacts: Artifacts, job: Job):
    assert artifacts.newest_checkpoint(job.id) is None
    for step in (2, 10, 9):
        path = artifacts.checkpoint_path(job.id, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"state")
    (path.parent / ".99.safetensors.abcd.part").write_bytes(b"half")
    assert artifacts.newest_checkpoint(job.id) == artifacts.checkpoint_path(job.id, 10)
    artifacts.drop_checkpoints(job.id)
    assert artifacts.newest_checkpoint(job.id) is None


FULL_DISK = """
import resource, sys
from pathlib import Path
from studio.artifacts import Artifacts
from studio.db import Database
from studio.errors import StoreUnavailable
home = Path(sys.argv[1])
artifacts = Artifacts(home, Database(home / "atelier.db"), lambda: 0.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))  # no file above 1 MiB
kept = artifacts.put(b"small", media_type="text/plain")
for call in (
    lambda: artifacts.put(b"x" * 2**21, media_type="text/plain"),
    lambda: artifacts.write_manifest("job", {"x": "y" * 2**21}),
    lambda: artifacts.save_preview("job", 1, b"x" * 2**21),
):
    try:
        call()
    except StoreUnavailable as error:
        print(error)
left = sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and "atelier.db" not in p.name)
print(left == [f"files/{kept[:2]}/{kept}"], artifacts.manifest("job"))
"""


def test_a_disk_without_room_is_a_sentence_and_leaves_nothing_half_written(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    *sentences, last = done.stdout.strip().splitlines()
    assert len(sentences) == 3
    assert "file was not stored" in sentences[0]
    assert last == "True None"


def test_a_store_that_is_full_leaves_no_temporary_file(artifacts: Artifacts):
    connection = artifacts._db.connect()
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable):
        artifacts.put(b"hello", media_type="text/plain")
    connection.execute("PRAGMA query_only = OFF")
    assert everything(artifacts.home) == set()


def test_a_home_that_is_no_folder_is_a_sentence(artifacts: Artifacts, jobs: Jobs):
    (artifacts.home / "files").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="was not stored"):
        artifacts.put(b"hello", media_type="text/plain")


def aged(artifacts: Artifacts, clock, seconds: float) -> None:
    """Time passes, for the clock and for the files."""
    clock.advance(seconds)
    for path in artifacts.home.rglob("*"):
        if path.is_file():
            os.utime(path, (clock.now - seconds, clock.now - seconds))


def test_the_sweep_keeps_what_is_young_shared_open_or_used(artifacts: Artifacts, jobs: Jobs, clock):
    picture = artifacts.put(b"input", media_type="image/png", owner="ann")
    unused = artifacts.put(b"unused", media_type="image/png", owner="ann")
    old, shared = done(jobs), done(jobs)
    paused = jobs.pause(jobs.submit("e", {"image": picture}, owner="ann").id)
    Shares(artifacts._db, clock).create(shared.id, "ann")
    results = {}
    for job in (old, shared):
        results[job.id] = artifacts.put(job.id.encode(), media_type="text/plain")
        add_output(artifacts, job.id, "a.txt", "data", results[job.id], {})
        artifacts.write_manifest(job.id, {"job": job.id})
    aged(artifacts, clock, 31 * DAY_S)
    young = done(jobs)
    assert artifacts.sweep(clock.now, 30) == {"jobs": 1, "uploads": 1, "files": 2, "leftovers": 0}
    assert {job.id for job in jobs.list()} == {shared.id, paused.id, young.id}
    assert artifacts.manifest(old.id) is None
    assert artifacts.manifest(shared.id) == {"job": shared.id}
    for gone in (results[old.id], unused):
        with pytest.raises(NotFound):
            artifacts.path(gone)
        with pytest.raises(NotFound):
            artifacts.media_type(gone)
    assert artifacts.path(results[shared.id]).is_file()
    assert artifacts.path(picture).is_file()
    assert artifacts.sweep(clock.now, 30) == {"jobs": 0, "uploads": 0, "files": 0, "leftovers": 0}


def test_without_retention_only_garbage_goes(artifacts: Artifacts, jobs: Jobs, clock):
    job = done(jobs)
    lost = artifacts.put(b"nobody's", media_type="text/plain")
    upload = artifacts.put(b"ann's", media_type="text/plain", owner="ann")
    (artifacts.home / "tmp" / "crashed.part").write_bytes(b"half")
    rowless = artifacts.home / "files" / "00" / ("0" * 64)
    rowless.parent.mkdir(parents=True, exist_ok=True)
    rowless.write_bytes(b"renamed, then the power went")
    assert artifacts.sweep(clock.now) == {"jobs": 0, "uploads": 0, "files": 0, "leftovers": 0}
    aged(artifacts, clock, FRESH_S + 1)
    assert artifacts.sweep(clock.now) == {"jobs": 0, "uploads": 0, "files": 1, "leftovers": 2}
    assert everything(artifacts.home) == {f"files/{upload[:2]}/{upload}"}
    assert jobs.get(job.id) == job
    assert artifacts.put(b"nobody's", media_type="text/plain") == lost


def test_the_sweep_takes_what_a_dying_worker_could_not(artifacts: Artifacts, jobs: Jobs, clock):
    kept: dict[str, Job] = {}
    for state in ("succeeded", "failed", "queued"):
        kept[state] = jobs.submit("e", {}, owner="ann")
    for state, end in (("succeeded", jobs.succeed), ("failed", lambda i, w: jobs.fail(i, w, {"code": "x"}))):
        claimed = jobs.claim("w", "cpu")
        assert claimed is not None
        assert claimed.id == kept[state].id
        end(claimed.id, "w")
    for job_id in [*(job.id for job in kept.values()), "gone"]:
        artifacts.save_preview(job_id, 1, b"png")
        for path in (artifacts.checkpoint_path(job_id, 3), artifacts._manifest_path(job_id)):
            path.parent.mkdir(parents=True)
            path.touch()
        for kind in ("results", "previews", "checkpoints"):
            os.utime(artifacts.home / kind / job_id, (clock.now, clock.now))

    def left(kind: str) -> set[str]:
        names = {job.id: state for state, job in kept.items()} | {"gone": "gone"}
        return {names[path.name] for path in (artifacts.home / kind).iterdir()}

    artifacts.sweep(clock.now)
    assert left("previews") == left("checkpoints") == {"failed", "queued", "gone"}, "what is fresh is kept"
    artifacts.sweep(clock.now + 2 * DAY_S)
    assert (left("previews"), left("checkpoints")) == ({"queued"}, {"failed", "queued"})
    artifacts.sweep(clock.now + 8 * DAY_S)
    assert left("checkpoints") == {"queued"}
    assert left("results") == {"succeeded", "failed", "queued"}


def test_bytes_put_again_are_fresh_again(artifacts: Artifacts, clock):
    sha = artifacts.put(b"again", media_type="text/plain")
    aged(artifacts, clock, FRESH_S + 1)
    artifacts.put(b"again", media_type="text/plain")
    assert artifacts.sweep(clock.now)["files"] == 0
    assert artifacts.path(sha).is_file()


def test_free_space_is_that_of_the_disk(artifacts: Artifacts):
    assert artifacts.free_bytes() > 0
