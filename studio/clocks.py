"""Notices that the wall clock was set, or that the machine slept: then times that were written down mean nothing.

Leases and ages are kept in wall-clock seconds, because they must outlive processes and machines. Whoever judges by
them asks here first. Knows no store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class JumpWatch:
    """Compares `clock`, in wall-clock seconds, with `steady`, which nobody can set, from one question to the next.

    If they differ by more than `tolerance_s`, times written before are not to be judged by for `settle_s` seconds, in
    which the living say again that they live.
    """

    def __init__(
        self, clock: Callable[[], float], steady: Callable[[], float], *, tolerance_s: float, settle_s: float
    ) -> None:
        self._clock, self._steady = clock, steady
        self._tolerance_s, self._settle_s = tolerance_s, settle_s
        self._lock = threading.Lock()
        self._offset = clock() - steady()
        self._settled_at = steady()

    def settled(self) -> bool:
        """Whether times that were written down may be compared with now."""
        with self._lock:
            now = self._steady()
            offset = self._clock() - now
            jump, self._offset = offset - self._offset, offset
            if abs(jump) > self._tolerance_s:
                log.warning("the clock jumped by %+.0f s, or the machine slept", jump)
                self._settled_at = now + self._settle_s
            return now >= self._settled_at
