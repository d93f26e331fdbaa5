"""A store under fire: its servers and workers as real processes, ways to kill them, and ways to spoil the disk.

Used by the crash trials and their test. `python -m benchmarks.crash_house MEAN` is a server without pages, whose
workers are fragile (benchmarks.fragile) if MEAN is positive; `app.py` is the server with pages. Knows no invariant.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from studio import logs
from studio.errors import StoreUnavailable
from studio.executors.local import LocalExecutor
from studio.services import Services, open_services
from studio.settings import Settings, quiet_libraries

ROOT = Path(__file__).resolve().parents[1]
SIGN = {"plain": "Serving", "pages": "Atelier is at"}
PATIENCE_S = 600.0
LOOK_S = 0.1  # between two looks of the driver, which takes time from the house it looks at
NO_LIMIT = resource.RLIM_INFINITY


class House:
    """One store on a disk of its own where that can be had, and at most one server."""

    def __init__(self, settings: Settings, *, mean: float = 0.0, disk: bool = False) -> None:
        self.settings, self.mean = settings, mean
        self.services: Services = open_services(settings)
        self.disk = disk  # the home folder is a small file system of its own
        self.server: subprocess.Popen[str] | None = None
        self._spoiled: list[Callable[[], None]] = []

    def start(self, kind: str = "plain") -> None:
        """Bring up a server of the kind and wait until it serves."""
        command = {
            "plain": [sys.executable, "-m", "benchmarks.crash_house", str(self.mean)],
            "pages": [sys.executable, "app.py", "--port", "0"],
        }[kind]
        self.server = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if SIGN[kind] not in line:
            self._ended()
            raise StoreUnavailable("The server did not come up.", "See its log.")

    def stop(self) -> None:
        """An orderly end."""
        if self.server is not None:
            self.server.terminate()
            self._ended()

    def _ended(self) -> None:
        """The server dies or is dead."""
        if self.server is not None:
            self.server.wait(PATIENCE_S)
            if self.server.stdout is not None:
                self.server.stdout.close()
            self.server = None

    @property
    def living(self) -> bool:
        """Whether the server still runs."""
        return self.server is not None and self.server.poll() is None

    def workers(self) -> list[psutil.Process]:
        """The server's worker processes, also those not yet known to the store."""
        if not self.living or self.server is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.server.pid).children()
        return []

    def kill(self, processes: list[psutil.Process]) -> int:
        """SIGKILL them, all before any of them could react; how many there were."""
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        return len(processes)

    def kill_server(self, *, with_workers: bool) -> int:
        """SIGKILL the server, and its workers with it or not; how many processes died."""
        if not self.living or self.server is None:
            return 0
        crew = self.workers()
        killed = self.kill([psutil.Process(self.server.pid), *(crew if with_workers else [])])
        self._ended()
        return killed

    def spoil(self, how: str) -> bool:
        """Fill the disk, freeze its folders, or forbid all writing; whether that can be done here."""
        spoilers = {"full": self._fill, "frozen": self._freeze, "mute": self._mute}
        if how in ("full", "frozen") and not self.disk:
            return False
        self._spoiled.append(spoilers[how]())
        return True

    def mend(self) -> None:
        """Undo what was spoiled."""
        while self._spoiled:
            self._spoiled.pop()()

    def _fill(self) -> Callable[[], None]:
        filler = self.settings.home / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        return lambda: filler.unlink(missing_ok=True)

    def _freeze(self) -> Callable[[], None]:
        """Nothing can be made, renamed or removed, not even by root; what is open stays open."""
        folders = [path for path in self.settings.home.rglob("*") if path.is_dir()]
        _flag("+i", [self.settings.home, *folders])
        return lambda: _flag("-i", [self.settings.home, *folders])

    def _mute(self) -> Callable[[], None]:
        """No process of the house may write a byte to any file."""
        muted = [psutil.Process(self.server.pid), *self.workers()] if self.server is not None else []
        for process in muted:
            _limit(process, 0)

        def undo() -> None:
            # Workers that came meanwhile were born mute.
            for process in {*muted, *self.workers()}:
                _limit(process, NO_LIMIT)

        return undo


def _limit(process: psutil.Process, size: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.rlimit(psutil.RLIMIT_FSIZE, (size, NO_LIMIT))


def _flag(what: str, paths: list[Path]) -> None:
    there = [str(path) for path in paths if path.exists()]
    subprocess.run(["chattr", what, *there], check=False, stderr=subprocess.DEVNULL)


def _environment(settings: Settings) -> dict[str, str]:
    """The children's: byte code is kept, as every trial starts many of them."""
    kept = str(Path(tempfile.gettempdir()) / "atelier-crash-bytecode")
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return settings.child_environ() | single | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept}


@contextlib.contextmanager
def small_disk(megabytes: int, *, allowed: bool = True) -> Iterator[tuple[Path, bool]]:
    """A folder on a file system of its own, and whether that was allowed; else a plain one."""
    with tempfile.TemporaryDirectory(prefix="atelier-crash-", ignore_cleanup_errors=True) as name:
        mounted = allowed and os.geteuid() == 0 and shutil.which("chattr") is not None
        mounted = mounted and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", name], stderr=subprocess.DEVNULL
        )
        try:
            yield Path(name), bool(mounted)
        finally:
            if mounted:
                subprocess.call(["umount", "--lazy", name])


def serve(mean: float) -> None:
    """A server without pages until SIGTERM."""
    settings = Settings.from_env()
    quiet_libraries()
    services = open_services(settings, exclusive=True)
    logs.configure(settings.home, "supervisor")
    program = (sys.executable, "-m", "benchmarks.fragile", str(mean))
    executor, stop = LocalExecutor(settings, program=program), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    executor.start()
    print("Serving", flush=True)
    stop.wait()
    executor.stop(settings.grace)
    services.close()


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Whether `condition` came true in time."""
    end, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        never.wait(LOOK_S)
    return True


if __name__ == "__main__":
    serve(float(sys.argv[1]))
