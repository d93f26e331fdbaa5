"""Device facts: names, memory, shares of the machine; nothing here wakes torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from studio import devices

ROOT = Path(__file__).resolve().parents[2]


def test_auto_is_every_gpu_else_the_cpu():
    assert devices.expand(("auto",), lambda: 0) == ("cpu",)
    assert devices.expand(("auto",), lambda: 2) == ("cuda:0", "cuda:1")
    assert devices.expand(("cpu", "auto", "cuda:1"), lambda: 2) == ("cpu", "cuda:0", "cuda:1")
    assert devices.expand(("cuda:3",), lambda: 0) == ("cuda:3",)


def test_the_cpu_has_memory_and_a_name():
    facts = devices.facts("cpu")
    assert facts.kind == "cpu"
    assert facts.name
    assert 0 < facts.memory_free <= facts.memory_total <= psutil.virtual_memory().total
    assert devices.facts("cpu", evictable=2**60).memory_free == facts.memory_total


def test_cores_are_shared():
    cores = psutil.cpu_count()
    assert devices.worker_threads(3, 2) == 3
    assert devices.worker_threads(0, 1) == cores
    assert devices.worker_threads(0, 10 * cores) == 1


def test_the_peak_covers_what_was_given_back():
    memory = devices.PeakMemory("cpu")
    before = psutil.Process().memory_info().rss
    block = bytearray(b"x" * (64 * 2**20))
    del block
    assert memory.bytes() >= before + 48 * 2**20


def test_nothing_here_wakes_torch():
    code = (
        "import sys; from studio import devices\n"
        "devices.expand(('auto',)); devices.facts('cpu'); devices.settle_torch(1); devices.PeakMemory('cuda:0')\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
