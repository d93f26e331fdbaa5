"""The store: versions, transactions, threads and processes, and what happens when the disk will not have it."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from studio.claims import AGE_S
from studio.db import TIDY, Database
from studio.errors import StoreUnavailable
from studio.jobs import Jobs
from studio.migrations import MIGRATIONS
from studio.settings import Settings


def write_version_1(path: Path) -> None:
    """A store as the first version left it, with one waiting and one finished job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    columns = "id, owner, engine, params, priority, state, created, progress"
    row = f"INSERT INTO job ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    broken = '{"prompt": "\\ud800 \\ud83d\\udd2d", "seed": 3}'  # half a character and a whole one
    connection.execute(row, ("old1", "ann", "e", broken, 2, "queued", 500.0, None))
    connection.execute(row, ("old2", "ann", "e", "{}", 0, "succeeded", 400.0, '{"step": 4}'))
    connection.execute("INSERT INTO event VALUES ('old1', 1, 500.0, 'submitted', '{}')")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_store_of_the_first_version_still_loads(settings: Settings, clock):
    write_version_1(settings.home / "atelier.db")
    db = Database(settings.home / "atelier.db", clock=clock)
    jobs = Jobs(db, clock=clock, settings=settings)
    assert db.version == len(MIGRATIONS)
    waiting, finished = jobs.get("old1"), jobs.get("old2")
    assert waiting.params == {"prompt": "? 🔭", "seed": 3}
    assert (waiting.priority, waiting.plan, waiting.device) == (2, None, None)
    assert finished.progress == {"step": 4, "total": 0, "message": "", "eta": None, "preview": None}
    claimed = jobs.claim("w", "cpu")
    assert claimed is not None
    assert claimed.id == "old1"
    assert [event.seq for event in jobs.events("old1")] == [1, 2]
    db.close()


def test_migration_gives_old_jobs_their_rank(settings: Settings, clock):
    write_version_1(settings.home / "atelier.db")
    db = Database(settings.home / "atelier.db", clock=clock)
    with db.read() as connection:
        ranks = [row["rank"] for row in connection.execute("SELECT rank FROM job ORDER BY seq")]
    assert ranks == [500.0 - 2 * AGE_S, 400.0]
    db.close()


def test_a_store_of_a_newer_version_is_refused(settings: Settings):
    path = settings.home / "atelier.db"
    Database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="version 99"):
        Database(path)


def test_the_store_is_durable(db: Database, settings: Settings):
    durable = Database(settings.home / "durable.db")
    assert durable.connect().execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert durable.connect().execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    durable.close()


def test_a_failed_transaction_leaves_nothing(db: Database):
    def change_and_fail() -> None:
        with db.transaction() as connection:
            connection.execute("UPDATE queue SET paused = 1")
            raise KeyError("something else went wrong")

    with pytest.raises(KeyError):
        change_and_fail()
    with db.read() as connection:
        assert connection.execute("SELECT paused FROM queue").fetchone()[0] == 0


def test_transactions_do_not_nest(db: Database):
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        with db.transaction(), db.transaction():
            pass
    with db.transaction() as connection:  # and the connection is usable afterwards
        connection.execute("UPDATE queue SET paused = 0")


def test_a_read_inside_a_transaction_sees_it(db: Database):
    with db.transaction() as connection:
        connection.execute("UPDATE queue SET paused = 1")
        with db.read() as same:
            assert same.execute("SELECT paused FROM queue").fetchone()[0] == 1


def test_a_read_is_one_snapshot(db: Database):
    def write() -> None:
        with db.transaction() as connection:
            connection.execute("UPDATE queue SET paused = 1")

    with db.read() as connection:
        before = connection.execute("SELECT paused FROM queue").fetchone()[0]
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        assert connection.execute("SELECT paused FROM queue").fetchone()[0] == before == 0
    with db.read() as connection:
        assert connection.execute("SELECT paused FROM queue").fetchone()[0] == 1


def test_every_thread_has_its_own_connection_and_dead_ones_are_closed(db: Database):
    seen: list[sqlite3.Connection] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(db.connect()))
        thread.start()
        thread.join()
    assert len({id(item) for item in [*seen, db.connect()]}) == 4
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        seen[0].execute("SELECT 1")


def test_close_closes_all_and_the_next_use_opens_anew(db: Database):
    first = db.connect()
    db.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")
    assert db.version == len(MIGRATIONS)


def test_no_connection_crosses_a_fork(db: Database):
    mine = id(db.connect())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            other = db.connect()
            with db.transaction() as connection:
                connection.execute("UPDATE queue SET paused = 1")
            os.write(writer, b"other" if id(other) != mine else b"same")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 10) == b"other"
    os.close(reader)
    with db.read() as connection:
        assert connection.execute("SELECT paused FROM queue").fetchone()[0] == 1


def _open(path: str, barrier, results) -> None:
    barrier.wait()
    try:
        results.put(Database(path).version)
    except StoreUnavailable as error:
        results.put(str(error))


def test_processes_may_create_the_store_at_the_same_moment(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    path = str(tmp_path / "new" / "atelier.db")
    processes = [context.Process(target=_open, args=(path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=30) for _ in processes] == [len(MIGRATIONS)] * 4
    for process in processes:
        process.join()


def test_a_full_disk_is_a_sentence_and_nothing_half_written_stays(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings)
    kept = jobs.submit("e", {"prompt": "small"}, owner="ann")
    pages = db.connect().execute("PRAGMA page_count").fetchone()[0]
    db.connect().execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreUnavailable, match=r"disk .* is full"):
        jobs.submit("e", {"prompt": "x" * 100_000}, owner="ann")
    db.connect().execute("PRAGMA max_page_count = 1000000")
    assert jobs.list("ann") == [kept]
    assert jobs.submit("e", {"prompt": "x" * 100_000}, owner="ann").seq > kept.seq


def test_a_store_whose_disk_takes_no_byte_is_opened_by_nobody_and_not_harmed(settings: Settings, db: Database):
    with db.transaction() as connection:
        connection.execute("UPDATE queue SET paused = 1")
    db.close()
    opening = (
        "import resource, sys; from studio.db import Database\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "Database(sys.argv[1])"
    )
    ended = subprocess.run([sys.executable, "-c", opening, db.path], capture_output=True, text=True, check=False)
    assert "StoreUnavailable: The disk of the store is full or fails. Free some space" in ended.stderr
    assert db.connect().execute("SELECT paused FROM queue").fetchone()["paused"] == 1


def test_a_read_only_store_is_a_sentence(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings)
    db.connect().execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="read-only"):
        jobs.submit("e", {}, owner="ann")
    assert jobs.list("ann") == []


def test_a_store_locked_for_too_long_is_a_sentence(settings: Settings, db: Database):
    impatient = Database(db.path, busy_s=0.01)
    with db.transaction(), pytest.raises(StoreUnavailable, match="busy"):
        with impatient.transaction():
            pass
    impatient.close()


def test_something_that_is_no_store_is_a_sentence(tmp_path: Path):
    (tmp_path / "atelier.db").write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    with pytest.raises(StoreUnavailable, match="is not a store"):
        Database(tmp_path / "atelier.db")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        Database(tmp_path / "file" / "atelier.db")


def test_what_need_not_last_is_seen_by_others_at_once(db: Database):
    with db.transaction(lasting=False) as connection:
        connection.execute("UPDATE queue SET paused = 1")
    other = Database(db.path)
    assert other.connect().execute("SELECT paused FROM queue").fetchone()["paused"] == 1
    with other.transaction() as connection:  # and a lasting one follows on the same connection
        connection.execute("UPDATE queue SET paused = 0")
    assert db.connect().execute("SELECT paused FROM queue").fetchone()["paused"] == 0


def test_what_need_not_last_leaves_the_log_to_others(settings: Settings):
    durable = Database(settings.home / "durable.db")

    def copied(megabytes: int, *, lasting: bool) -> bool:
        """Whether the commit that wrote so much put it into the store itself."""
        before = durable.path.stat().st_size
        with durable.transaction(lasting=lasting) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS heap (bytes BLOB)")
            connection.execute("INSERT INTO heap VALUES (zeroblob(?))", (megabytes * 2**20,))
        return durable.path.stat().st_size > before

    assert not copied(6, lasting=False)
    assert copied(1, lasting=True)
    assert not copied(6, lasting=False)
    assert copied(64, lasting=False), "but the log does not grow without end"
    durable.close()


def test_the_log_is_copied_while_others_write(settings: Settings):
    path = settings.home / "durable.db"
    durable, other = Database(path), Database(path)

    def write(commits: int) -> None:
        for _ in range(commits):
            with durable.transaction(lasting=False) as connection:
                connection.execute("INSERT INTO heap VALUES (zeroblob(1000))")

    with durable.transaction() as connection:
        connection.execute("CREATE TABLE heap (bytes BLOB)")
    durable.connect().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    write(TIDY - 1)
    before = path.stat().st_size
    durable.tidy()
    assert path.stat().st_size == before, "a few are not worth a wait"
    write(1)
    with other.transaction() as connection:
        connection.execute("UPDATE queue SET paused = 1")
        durable.tidy()
    assert path.stat().st_size > before
    assert other.connect().execute("SELECT COUNT(*), MAX(length(bytes)) FROM heap").fetchone()[:] == (TIDY, 1000)
    for each in (durable, other):
        each.close()
