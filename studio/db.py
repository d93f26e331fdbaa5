"""One SQLite file: WAL, transactions that take the write lock at once, numbered migrations.

The only module that opens the store. It knows SQLite's errors and no table. A connection belongs to one thread and
never crosses a fork. Writers take turns (studio.turns) instead of polling the store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from studio.errors import StoreUnavailable
from studio.migrations import MIGRATIONS
from studio.turns import TooLong, Turns

BUSY_S = 30.0  # seconds one process waits for another's transaction

# Pages in the log after which a commit copies them into the store and waits for the disk, while all others wait for
# it. Commits that wait anyway do it early; the others, claims among them, hardly ever: `tidy` does it beside them.
LOG_PAGES = {True: 1000, False: 16_000}
TIDY = 250  # commits that were not lasting, of one process, after which it copies them

# Connections opened before a fork: closing one in the child would tear the parent's log, so they are kept.
_inherited: list[object] = []

_SENTENCES = {
    sqlite3.SQLITE_FULL: ("The disk that holds the store is full.", "Free some space and try again."),
    sqlite3.SQLITE_READONLY: ("The store is read-only.", "Make its folder writable and try again."),
    sqlite3.SQLITE_CANTOPEN: ("The store cannot be opened.", "Check that its folder exists and is writable."),
    sqlite3.SQLITE_PERM: ("The store may not be opened.", "Check the permissions of its folder."),
    sqlite3.SQLITE_IOERR: ("The disk of the store is full or fails.", "Free some space; else check the disk."),
    sqlite3.SQLITE_BUSY: ("The store is busy for longer than it should be.", "Try again in a moment."),
    sqlite3.SQLITE_CORRUPT: ("The store is damaged.", "Restore atelier.db from a backup, or move it away."),
    sqlite3.SQLITE_NOTADB: ("atelier.db is not a store of Atelier.", "Move it away or choose another folder."),
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's errors about disk, permission and damage into StoreUnavailable; others pass."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        known = _SENTENCES.get(code & 0xFF) if code is not None else None
        if known is None:
            raise
        raise StoreUnavailable(*known) from error


def copy_store(source: Path, target: Path) -> None:
    """Write the store at `source` as it is at one moment to a new file, whatever its version and whoever writes."""
    with translated():
        with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True)) as original:
            with closing(sqlite3.connect(target)) as copy:
                original.backup(copy)


class Database:
    """The store at `path`, brought to the newest version. Raises StoreUnavailable with a sentence.

    `clock` gives seconds since the epoch. `durable=False` skips the syncing of every commit, for tests and throw-away
    stores: a power cut may then lose or damage it.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Callable[[], float] = time.time,
        durable: bool = True,
        busy_s: float = BUSY_S,
    ) -> None:
        self.path = Path(path)
        self.clock = clock
        self._durable = durable
        self._busy_s = busy_s
        self._untidy = 0
        self._lock = threading.Lock()
        self._start()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
        except OSError as error:
            raise StoreUnavailable(
                f"The folder {self.path.parent} cannot be used: {error.strerror}.",
                "Make it writable, free some space, or set ATELIER_HOME to another one.",
            ) from error

    def connect(self) -> sqlite3.Connection:
        """This thread's connection, opened at its first call."""
        if self._pid != os.getpid():
            _inherited.append((self._open, self._mine))
            self._start()
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            with translated():
                connection = self._new_connection()
            self._mine.connection, self._mine.lasting = connection, True
            with self._lock:
                self._close_dead_threads()
                self._open.append((threading.current_thread(), connection))
        return connection

    @contextmanager
    def transaction(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing, alone among writers from the first statement on. Transactions do not nest.

        A `lasting` one survives a power cut once it has returned. One that is not survives any death of the process,
        and a power cut as soon as a lasting one follows it; it costs a fraction, as it does not wait for the disk.
        Raises StoreUnavailable when the disk is full, read-only, damaged, or locked for too long.
        """
        connection = self.connect()
        with self._turn(), translated():
            if self._durable and lasting != self._mine.lasting:
                connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES[lasting]}")
                self._mine.lasting = lasting
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
                self._untidy += int(not lasting)  # nobody else is here: it is our turn
            finally:
                # A full disk may have rolled back by itself; then there is nothing left to undo.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent snapshot for several SELECTs; never waits for writers. Joins an open transaction."""
        connection = self.connect()
        if connection.in_transaction:
            yield connection
            return
        with translated():
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def tidy(self) -> None:
        """Copy the log into the store if this process wrote much to it; waits for the disk, while others write on.

        To be called now and then by whoever writes what is not lasting, at a moment that is nobody's wait.
        """
        if self._untidy < TIDY:
            return
        self._untidy = 0
        # A disk that fails fails the next transaction too, and there it is told.
        with contextlib.suppress(StoreUnavailable), translated():
            self.connect().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for other writers in line: SQLite itself looks ever more seldom, and some starve."""
        try:
            with self._turns.turn():
                yield
        except TooLong as error:
            raise StoreUnavailable(*_SENTENCES[sqlite3.SQLITE_BUSY]) from error

    def _lock_path(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{what}")

    @property
    def version(self) -> int:
        """How many migrations the store has taken."""
        return int(self.connect().execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close the connections of every thread of this process. The next use opens new ones."""
        if self._pid != os.getpid():
            return
        with self._lock:
            for _, connection in self._open:
                connection.close()
            self._open.clear()
            self._mine = threading.local()
            self._turns.close()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._mine = threading.local()
        self._open: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._lock = threading.Lock()
        self._turns = Turns(self._lock_path("turn"), self._busy_s)
        self._untidy = 0  # commits since the last `tidy`

    def _close_dead_threads(self) -> None:
        for thread, connection in self._open:
            if not thread.is_alive():
                connection.close()
        self._open = [item for item in self._open if item[0].is_alive()]

    def _new_connection(self) -> sqlite3.Connection:
        # Only this thread uses it; the check is off so that `close` may be called from another.
        connection = sqlite3.connect(
            self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self) -> None:
        """Switch to WAL and migrate. Processes that open a new store at the same moment take turns."""
        lock = os.open(self._lock_path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = self.connect()
            with translated():
                version = int(connection.execute("PRAGMA user_version").fetchone()[0])
                connection.execute("PRAGMA journal_mode = WAL")
            if version > len(MIGRATIONS):
                raise StoreUnavailable(
                    f"The store {self.path} is of version {version}; this Atelier knows up to {len(MIGRATIONS)}.",
                    "Start the newer Atelier that wrote it, or choose another ATELIER_HOME.",
                )
            for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
                with self.transaction():
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
        finally:
            os.close(lock)
