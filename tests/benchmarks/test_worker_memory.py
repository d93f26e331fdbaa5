"""A short run of the memory harness, and whether it would see a leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.worker_memory import MIB, growth, measure


def test_a_worker_does_not_grow(tmp_path: Path):
    resident = measure(60, tmp_path)
    assert len(resident) == 60
    assert growth(resident) < MIB / 4, "a single leaked picture of each job would be less, a leaked model more"


def test_a_leak_is_seen_through_the_noise():
    noise = [(number * 7919) % 13 * 1000 for number in range(200)]
    assert growth([number * 1000 + extra for number, extra in enumerate(noise)]) == pytest.approx(1000, rel=0.1)
    assert growth([5_000_000 + extra for extra in noise]) == pytest.approx(0, abs=30)
