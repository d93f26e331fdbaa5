"""How far a run is: throttled reports, the time still to go, and how long each stage took.

Decides what is worth writing and when; writes nothing itself and knows no job.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

EVENT_S = 0.25  # seconds between events
PREVIEW_S = 0.5  # seconds between previews
MOST_STAGES = 64


class Progress:
    """Reports of one attempt. `clock` gives seconds; previews are numbered from `first_preview`."""

    def __init__(self, clock: Callable[[], float], first_preview: int = 1) -> None:
        self._clock = clock
        self._preview = first_preview - 1
        self._shown: int | None = None
        self._preview_time: float | None = None
        self._event_time: float | None = None
        self._latest: dict[str, Any] | None = None
        self._dirty = False
        self._lap: tuple[float, int, int] | None = None  # time, step and total at which the ETA began to count
        self._stages: list[tuple[str, float]] = []  # name and moment of its first report

    def report(self, step: int, total: int, message: str) -> dict[str, Any]:
        """The payload of this report, with `eta` seconds or None; it waits until `event_due` lets it out."""
        now = self._clock()
        self._note_stage(message, now)
        self._latest = {
            "step": int(step),
            "total": int(total),
            "message": message,
            "eta": self._eta(step, total, now),
            "preview": self._shown,
        }
        self._dirty = True
        return self._latest

    def preview_due(self) -> bool:
        """Whether a preview may be written now."""
        return _due(self._preview_time, self._clock(), PREVIEW_S)

    def next_preview(self) -> int:
        """Take the next number; the report at hand carries it from now on."""
        self._preview_time = self._clock()
        self._preview += 1
        self._shown = self._preview
        if self._latest is not None:
            self._latest["preview"] = self._shown
        return self._preview

    def event_due(self) -> bool:
        """Whether the newest report is to be written now: the last step always is."""
        last = self._latest is not None and self._latest["step"] >= self._latest["total"]
        return self._dirty and (last or _due(self._event_time, self._clock(), EVENT_S))

    def written(self) -> None:
        """The newest report has been written."""
        self._event_time, self._dirty = self._clock(), False

    def pending(self) -> dict[str, Any] | None:
        """The newest report if it was held back."""
        return self._latest if self._dirty else None

    @property
    def reached(self) -> dict[str, int]:
        """Step and total of the newest report; zeros before the first."""
        return {name: self._latest[name] if self._latest else 0 for name in ("step", "total")}

    @property
    def shown(self) -> int | None:
        """The number of the newest preview, if there is one."""
        return self._preview or None

    @property
    def eta(self) -> float | None:
        """Seconds to go by the newest report, or None while nobody can say."""
        return None if self._latest is None else self._latest["eta"]

    def stages(self) -> list[dict[str, Any]]:
        """Name and seconds of each stage, in order; a stage is a run of reports with the same words."""
        ends = [*(stage[1] for stage in self._stages[1:]), self._clock()][: len(self._stages)]
        return [
            {"stage": stage[0], "seconds": round(end - stage[1], 3)}
            for stage, end in zip(self._stages, ends, strict=True)
        ]

    def _note_stage(self, message: str, now: float) -> None:
        name = re.sub(r"\d+", "#", message)
        if len(self._stages) < MOST_STAGES and (not self._stages or self._stages[-1][0] != name):
            self._stages.append((name, now))

    def _eta(self, step: int, total: int, now: float) -> float | None:
        if self._lap is None or step < self._lap[1] or total != self._lap[2]:
            self._lap = (now, step, total)
        begun, first, _ = self._lap
        if step >= total:
            return 0.0
        return round((now - begun) / (step - first) * (total - step), 1) if step > first else None


def _due(last: float | None, now: float, pause: float) -> bool:
    # A clock set back must not silence a run.
    return last is None or not 0 <= now - last < pause
