"""Turns: threads and processes in the order they came, patience, death, and disks that take no number."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from studio import turns
from studio.turns import FairLock, TooLong, Turns
from tests.waiting import until

FORK = multiprocessing.get_context("fork")


def drawn(path: Path) -> int:
    """The number drawn last."""
    return int.from_bytes(path.read_bytes(), "little")


def test_threads_are_served_in_the_order_they_came():
    lock, served = FairLock(), []

    def work(name: int) -> None:
        with lock, lock:  # what one holds it may take again
            served.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    with lock:
        for count, thread in enumerate(threads, start=1):
            thread.start()
            until(lambda count=count: lock.waiting == count)
        assert served == []
    for thread in threads:
        thread.join(60)
    assert served == list(range(6))


def append(path: Path, log: Path, name: int) -> None:
    with Turns(path, 60).turn(), log.open("a") as file:
        file.write(f"{name} ")


def test_processes_are_served_in_the_order_they_came(tmp_path: Path):
    path, log = tmp_path / "turn", tmp_path / "log"
    with Turns(path, 60).turn():
        crew = []
        for name in range(5):
            crew.append(FORK.Process(target=append, args=(path, log, name)))
            crew[-1].start()
            until(lambda name=name: drawn(path) == name + 2)
        assert not log.exists()
    for process in crew:
        process.join(60)
    assert log.read_text() == "0 1 2 3 4 "


def test_who_leaves_rings_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "LISTEN_S", 3600.0)
    test_processes_are_served_in_the_order_they_came(tmp_path)


def test_without_a_bell_everybody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "_name", lambda handle: b"/no/such/folder/")
    test_processes_are_served_in_the_order_they_came(tmp_path)


def count_up(path: Path, number: Path, times: int) -> None:
    turns = Turns(path, 60)
    for _ in range(times):
        with turns.turn():
            number.write_text(str(int(number.read_text()) + 1))


def test_nothing_happens_twice_at_once(tmp_path: Path):
    number = tmp_path / "number"
    number.write_text("0")
    crew = [FORK.Process(target=count_up, args=(tmp_path / "turn", number, 100)) for _ in range(4)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(60)
    assert number.read_text() == "400"


def test_who_has_no_patience_leaves_and_holds_nobody_up(tmp_path: Path):
    first, second, third = (Turns(tmp_path / "turn", patience) for patience in (60, 0.01, 60))
    with first.turn():
        with pytest.raises(TooLong), second.turn():
            raise AssertionError("it is not its turn")
    with third.turn(), pytest.raises(TooLong), second.turn():
        raise AssertionError("it is not its turn")
    with second.turn():
        pass


def hold(path: Path, begun: Path) -> None:
    with Turns(path, 60).turn():
        begun.touch()
        threading.Event().wait()


def test_the_dead_hold_nobody_up(tmp_path: Path):
    path = tmp_path / "turn"
    holder = FORK.Process(target=hold, args=(path, tmp_path / "begun"))
    holder.start()
    until((tmp_path / "begun").exists)
    waiter = FORK.Process(target=append, args=(path, tmp_path / "log", 1))
    waiter.start()
    until(lambda: drawn(path) == 2)
    os.kill(waiter.pid, signal.SIGKILL)
    os.kill(holder.pid, signal.SIGKILL)
    with Turns(path, 60).turn():
        assert not (tmp_path / "log").exists()
    holder.join()
    waiter.join()


def test_a_number_drawn_twice_after_a_power_cut_is_passed_over(tmp_path: Path):
    path = tmp_path / "turn"
    first, second = Turns(path, 60), Turns(path, 0.01)
    with first.turn():
        path.write_bytes(bytes(8))
        with pytest.raises(TooLong), second.turn():
            raise AssertionError("it is not its turn")
    with second.turn():
        assert drawn(path) == 2


def test_a_disk_that_takes_no_number_is_left_to_the_store_to_complain_of(tmp_path: Path):
    with Turns(tmp_path / "missing" / "turn", 60).turn():
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    turns = Turns(tmp_path / "turn", 60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with turns.turn():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with turns.turn():
        assert drawn(tmp_path / "turn") == 1


def test_without_locks_of_open_files_whoever_looks_first_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "_OPEN_FILE_LOCKS", False)
    first, second = Turns(tmp_path / "turn", 60), Turns(tmp_path / "turn", 0.01)
    with first.turn(), pytest.raises(TooLong), second.turn():
        raise AssertionError("it is not its turn")
    with second.turn():
        pass
