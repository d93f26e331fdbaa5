"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_S = 0.01


def until(condition: Callable[[], T], timeout: float = 120.0) -> T:
    """The first true value of `condition`; fails after `timeout` seconds, which is a bound and not a pace."""
    end = time.monotonic() + timeout
    never = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not true within {timeout} s: {condition}"
        never.wait(LOOK_S)
