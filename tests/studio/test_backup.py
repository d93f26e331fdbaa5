"""Backup and restore: nothing is missing, not even under writers; nothing foreign comes out of an archive."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import threading
from pathlib import Path

import pytest

from benchmarks.crash_checks import orphans, result_faults, store_faults
from studio.__main__ import main
from studio.backup import back_up, restore
from studio.errors import AtelierError, Conflict, InvalidInput, NotFound, StoreUnavailable
from studio.identity import load_secret
from studio.services import open_services
from studio.settings import Settings
from studio.worker import Worker, run_job
from tests.studio.shop import WORKER, Shop, open_shop
from tests.waiting import until


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path)


def brought_back(shop: Shop, archive: Path, folder: str = "other") -> Shop:
    """The backup in a home of its own."""
    settings = shop.services.settings.replace(home=shop.folder / folder / "home")
    restore(settings, archive)
    return open_shop(shop.folder / folder)


def test_everything_comes_back_and_what_ran_goes_on(shop: Shop):
    secret = load_secret(shop.services.settings)
    upload = shop.services.artifacts.put(b"mine", media_type="text/plain", owner="anna", name="a.txt")
    _, done = shop.work(seed=1, steps=3)
    token = shop.services.shares.create(done.id, "anna")
    waiting = shop.submit(seed=2, steps=3)
    running = shop.submit(owner="bert", seed=3, steps=4, barrier=str(shop.folder / "go"), hold_at=2, deaf=True)
    shop.services.jobs.set_priority(running, 50)
    while (job := shop.claim()).id != running:
        shop.services.jobs.release(job.id, WORKER)
    thread, _ = shop.begin(job)
    until(lambda: shop.kinds(running).count("checkpoint") == 2)
    shop.services.jobs.worker_seen("local-cpu-1", "cpu", {}, [], 1)
    archive = shop.folder / "backup.tar"
    amount = back_up(shop.services.settings, archive)
    (shop.folder / "go").touch()
    thread.join(30)
    assert (amount.jobs, archive.stat().st_mode & 0o777) == (3, 0o600)

    other = brought_back(shop, archive)
    jobs, artifacts = other.services.jobs, other.services.artifacts
    assert jobs.workers() == [], "a worker of the house it came from is none of ours to end"
    assert load_secret(other.services.settings) == secret
    assert other.services.shares.resolve(token) == done.id
    assert artifacts.path(upload).read_bytes() == b"mine"
    assert artifacts.may_read(upload, "anna")
    assert artifacts.manifest(done.id) == shop.services.artifacts.manifest(done.id)
    assert [jobs.get(job_id).state for job_id in (done.id, waiting, running)] == ["succeeded", "queued", "queued"]
    assert jobs.get(running).attempts == 0
    other.worker.run(until_empty=True)
    assert [jobs.get(job_id).state for job_id in (waiting, running)] == ["succeeded"] * 2
    assert artifacts.manifest(running)["resumed_from_step"] == 2
    shas = [[output.sha for output in s.artifacts.outputs(running)] for s in (shop.services, other.services)]
    assert shas[0] == shas[1]
    assert store_faults(other.services) == orphans(other.services) == []


def test_a_backup_under_writers_is_of_one_moment(shop: Shop):
    ended = threading.Event()

    def write() -> None:
        seed = 0
        services = open_services(shop.services.settings)
        worker = Worker(services, worker="writer", device="cpu")
        while not ended.is_set():
            seed += 1
            shop.submit(owner="bert", seed=seed, steps=1, keep=False)
            job = services.jobs.claim("writer", "cpu")
            assert job is not None
            assert run_job(job, services, worker.bench) == "succeeded"

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: shop.services.jobs.list(states=["succeeded"]))
        for number in range(3):
            back_up(shop.services.settings, shop.folder / f"{number}.tar")
    finally:
        ended.set()
        writer.join(60)
    for number in range(3):
        other = brought_back(shop, shop.folder / f"{number}.tar", f"other{number}")
        done = other.services.jobs.list(states=["succeeded"], limit=10_000)
        assert done
        for job in done:
            told = {output.name: output.sha for output in shop.services.artifacts.outputs(job.id)}
            assert result_faults(other.services, job, told) == []
        assert store_faults(other.services) == []


def test_what_cannot_be_done_is_a_sentence(shop: Shop, tmp_path: Path):
    settings, archive = shop.services.settings, tmp_path / "backup.tar"
    empty = settings.replace(home=tmp_path / "empty")
    with pytest.raises(NotFound, match="no store"):
        back_up(empty, archive)
    assert not empty.home.exists()
    with pytest.raises(StoreUnavailable, match="could not be written"):
        back_up(settings, tmp_path / "missing" / "backup.tar")
    back_up(settings, archive)
    with pytest.raises(Conflict, match="exists already"):
        back_up(settings, archive)
    with pytest.raises(Conflict, match="There is a store"):
        restore(settings, archive)
    for content in (b"", b"not an archive", archive.read_bytes()[:3000]):
        (tmp_path / "broken.tar").write_bytes(content)
        with pytest.raises(AtelierError):
            restore(empty, tmp_path / "broken.tar")
        assert not (empty.home / "atelier.db").exists()
    for path in (tmp_path / "nowhere.tar", tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read as a backup"):
            restore(empty, path)
    restore(empty, archive)  # what was interrupted is simply begun again
    assert open_services(empty).jobs.list() == []


def test_nothing_foreign_comes_out_of_an_archive(tmp_path: Path):
    source, home = tmp_path / "evil.tar", tmp_path / "home"
    names = [
        "../evil",
        "/tmp/atelier-evil",
        "files/ab/../../evil",
        "logs/x",
        "files/ab/x",
        "checkpoints/../1.safetensors",
    ]
    with tarfile.open(source, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("secret")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InvalidInput, match="is no backup"):
        restore(Settings(home=home), source)
    assert [path.name for path in tmp_path.rglob("*") if path != source] == ["home", "server.lock"]


def test_a_file_that_was_changed_is_refused(shop: Shop, tmp_path: Path):
    shop.services.artifacts.put(b"mine", media_type="text/plain", owner="anna", name="a.txt")
    back_up(shop.services.settings, tmp_path / "good.tar")
    data = (tmp_path / "good.tar").read_bytes()
    assert data.count(b"mine") == 1
    (tmp_path / "bad.tar").write_bytes(data.replace(b"mine", b"mind"))
    with pytest.raises(InvalidInput, match="is damaged"):
        restore(Settings(home=tmp_path / "other"), tmp_path / "bad.tar")


def test_the_commands_say_what_they_did(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shop.work(steps=1)
    archive = str(shop.folder / "backup.tar")
    monkeypatch.setenv("ATELIER_HOME", str(shop.services.settings.home))
    monkeypatch.setenv("ATELIER_ENGINES", "tests.quick_engine")
    assert main(["backup", archive]) == 0
    assert "1 jobs" in capsys.readouterr().out
    assert main(["backup", archive]) == 1
    monkeypatch.setenv("ATELIER_HOME", str(shop.folder / "new"))
    assert main(["restore", archive]) == 0
    assert main(["jobs"]) == 0
    assert "succeeded" in capsys.readouterr().out


def test_a_backup_leaves_an_older_store_as_it_is(tmp_path: Path):
    from tests.studio.test_db import write_version_1

    home = tmp_path / "home"
    write_version_1(home / "atelier.db")
    back_up(Settings(home=home), tmp_path / "backup.tar")
    version = sqlite3.connect(home / "atelier.db").execute("PRAGMA user_version").fetchone()
    assert version == (1,), "the running server may be an older one"
    restore(Settings(home=tmp_path / "new"), tmp_path / "backup.tar")
    assert [job.id for job in open_services(Settings(home=tmp_path / "new")).jobs.list()] == ["old2", "old1"]
