"""Turns at something only one may do at a time, for threads and for processes, in the order they came.

Threads queue at a lock. Processes draw numbers from a file; each holds the byte of its number until its turn is over
and waits for the byte before its own, so nobody is overtaken and the kernel lets go of what a dead process held. Who
leaves rings for the next, so that nobody has to look often: looks take time from the one whose turn it is. A turn is
a courtesy: what must not happen twice needs a lock of its own. Knows no store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

# Between two looks, growing from the first to the second. The kernel's own waiting has no limit of time.
LOOK_S, LONGEST_LOOK_S = 0.0001, 0.0005
LISTEN_S = 0.005  # to the bell, before a look: the one before may have died, or left without a turn

FIRST = 8  # number 0 has this byte; those before it hold the number that was drawn last
_FLOCK = "hhqqi4x"  # struct flock: kind, from where, start, length, process
_OPEN_FILE_LOCKS = hasattr(fcntl, "F_OFD_SETLK")  # Linux; elsewhere whoever looks first is next


class TooLong(TimeoutError):
    """Others have had their turns for longer than this one would wait."""


class FairLock:
    """A lock that is handed to whoever has waited longest; a thread that holds it may take it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._owner: int | None = None
        self._depth = 0

    @property
    def waiting(self) -> int:
        """How many threads stand in line."""
        return len(self._waiting)

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._guard:
            if self._owner in (None, me):
                self._owner, self._depth = me, self._depth + 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((me, gate))
        gate.acquire()  # until the one before hands over

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, gate = self._waiting.popleft()
                self._depth = 1
                gate.release()


class Turns:
    """Turns among everybody who names the same file. Waits for other processes for `patience_s` seconds at most."""

    def __init__(self, path: Path, patience_s: float) -> None:
        self._path, self._patience_s = path, patience_s
        self._threads = FairLock()
        self._handle: int | None = None
        self._bells = b""  # what the names of this file's bells begin with

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What happens inside happens nowhere else, as far as this can be arranged. Raises TooLong."""
        with self._threads, ExitStack() as leaving:
            self._enter(leaving, time.monotonic() + self._patience_s)
            yield

    def close(self) -> None:
        """Close the file; the next turn opens it anew."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _enter(self, leaving: ExitStack, end: float) -> None:
        """Wait until it is this process's turn, at most until `end` in monotonic seconds."""
        try:
            handle = self._handle if self._handle is not None else self._open()
            mine = _draw(handle, end) if _OPEN_FILE_LOCKS else 0
        except TooLong:
            raise
        except OSError:
            return  # a disk that takes no file or no number: then without an order
        if _OPEN_FILE_LOCKS:
            leaving.callback(self._leave, handle, mine)
            if not _my_turn(handle, mine):
                self._listen(handle, mine, end)
        else:
            _wait(partial(_taken, handle), end)
            leaving.callback(fcntl.flock, handle, fcntl.LOCK_UN)

    def _open(self) -> int:
        """The file, opened for as long as this object lives."""
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._bells = _name(self._handle)
        return self._handle

    def _listen(self, handle: int, mine: int, end: float) -> None:
        """Until it is our turn. A bell says when to look; what counts is the look."""
        with ExitStack() as hung:
            try:
                bell = hung.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                bell.bind(self._bells + b"%d" % mine)
            except OSError:
                _wait(partial(_my_turn, handle, mine), end)
                return
            bell.settimeout(LISTEN_S)
            while not _my_turn(handle, mine):  # it may have come before the bell hung
                if time.monotonic() > end:
                    raise TooLong("Others have their turns for too long.")
                with contextlib.suppress(TimeoutError):
                    bell.recv(1)

    def _leave(self, handle: int, mine: int) -> None:
        """Let the next one have its turn."""
        _lock(handle, fcntl.F_UNLCK, mine - 1, 2)
        if not _free(handle, mine + 1):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hand:
                hand.setblocking(False)
                hand.sendto(b".", self._bells + b"%d" % (mine + 1))


def _name(handle: int) -> bytes:
    """What the names of this file's bells begin with: abstract names, which lie in no folder and leave nothing."""
    about = os.fstat(handle)
    return b"\0atelier-turn-%d-%d-" % (about.st_dev, about.st_ino)


def _my_turn(handle: int, mine: int) -> bool:
    """Whether all before us are done; if so, it is our turn."""
    return _free(handle, mine - 2) and _lock(handle, fcntl.F_WRLCK, mine - 1)


def _draw(handle: int, end: float) -> int:
    """The byte of the next number, held. Raises TooLong, or OSError if the file cannot be written."""
    _wait(lambda: _lock(handle, fcntl.F_WRLCK, 0), end)
    try:
        mine = int.from_bytes(os.pread(handle, FIRST, 0), "little") + 1
        os.pwrite(handle, mine.to_bytes(FIRST, "little"), 0)
        while not _lock(handle, fcntl.F_WRLCK, FIRST + mine):
            mine += 1  # held by somebody who drew it before a power cut took the file back
        return FIRST + mine
    finally:
        _lock(handle, fcntl.F_UNLCK, 0)


def _lock(handle: int, kind: int, start: int, length: int = 1) -> bool:
    """Take or give back bytes of the file for this open file; whether they could be taken now."""
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    return True


def _free(handle: int, start: int) -> bool:
    """Whether nobody else holds the byte."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
    return bool(struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))[0] == fcntl.F_UNLCK)


def _taken(handle: int) -> bool:
    """Whether the whole file's lock could be taken now."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _wait(condition: Callable[[], bool], end: float, pause: float = LOOK_S) -> None:
    while not condition():
        if time.monotonic() > end:
            raise TooLong("Others have their turns for too long.")
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_LOOK_S)
