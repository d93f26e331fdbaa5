"""One frozen bundle of the back of the house, opened in one place, with the lock that keeps two servers apart."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.accounts import Accounts
from studio.artifacts import Artifacts
from studio.catalog import Catalog
from studio.db import Database
from studio.errors import StoreUnavailable
from studio.executors.base import Executor
from studio.jobs import Jobs
from studio.settings import Settings
from studio.shares import Shares

LOCK = "server.lock"

# Held until the process ends; the kernel releases them however it ends.
_locks: dict[Path, int] = {}


@dataclass(frozen=True)
class Services:
    """What pages, routes, commands and workers share. `executor` is None where no workers are supervised."""

    settings: Settings
    db: Database
    jobs: Jobs
    artifacts: Artifacts
    shares: Shares
    accounts: Accounts
    catalog: Catalog
    executor: Executor | None

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since the epoch, as the whole store counts them."""
        return self.db.clock

    def close(self) -> None:
        """Close the store, and let another server have it if it was ours alone."""
        self.db.close()
        unlock_store(self.settings.home)


def open_services(
    settings: Settings,
    *,
    executor: Executor | None = None,
    exclusive: bool = False,
    clock: Callable[[], float] = time.time,
) -> Services:
    """The services of the store under `settings.home`, which is made if need be.

    `exclusive` is for the one server of a store. Raises StoreUnavailable with a sentence if another has it.
    """
    if exclusive:
        lock_store(settings.home)
    db = Database(settings.home / "atelier.db", clock=clock)
    return Services(
        settings=settings,
        db=db,
        jobs=Jobs(db, clock=clock, settings=settings, steady=time.monotonic if clock is time.time else clock),
        artifacts=Artifacts(settings.home, db, clock),
        shares=Shares(db, clock),
        accounts=Accounts(db, clock),
        catalog=Catalog(settings.engines),
        executor=executor,
    )


def lock_store(home: Path) -> None:
    """Become the only server of the store in `home` until `unlock_store` or the end of this process."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"The folder {home} cannot be used: {error.strerror}.",
            "Make it writable, free some space, or set ATELIER_HOME to another one.",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreUnavailable(
            f"Another Atelier is using {home}.", "Stop it first, or choose another folder with ATELIER_HOME."
        ) from None
    _locks[home.resolve()] = handle


def unlock_store(home: Path) -> None:
    """Let another server have the store."""
    handle = _locks.pop(home.resolve(), None)
    if handle is not None:
        os.close(handle)
