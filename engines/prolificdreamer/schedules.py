"""What changes over a run: from which timesteps noise is drawn, and settings given as schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


def timestep_bounds(
    step: int,
    *,
    num_train_timesteps: int = 1000,
    t_min: float = 0.02,
    t_max: float = 0.98,
    t_max_late: float = 0.5,
    anneal_step: int = 5000,  # negative: never
    mode: Literal["step", "ramp", "sqrt"] = "step",
    ramp_end: int | None = None,  # None: the step after `anneal_step`, as threestudio's
    total_steps: int | None = None,
) -> tuple[int, int]:
    """The least and the largest timestep of a training step, both included.

    step: the largest falls to `t_max_late` at `anneal_step`. ramp: it falls linearly from there to `ramp_end`. sqrt:
    one timestep only, from `t_max` to `t_min` with the square root of the share of `total_steps` that is done. Raises
    ValueError for an unknown mode, or for sqrt without `total_steps`.
    """
    count = num_train_timesteps
    if mode == "sqrt":
        if not total_steps:
            raise ValueError("a sqrt schedule needs total_steps")
        at = int(count * (t_min + (t_max - t_min) * (1 - math.sqrt(step / total_steps))))
        return at, at
    if mode == "ramp":
        end = anneal_step + 1 if ramp_end is None else ramp_end
        largest = _between(anneal_step, t_max, t_max_late, end, step) if anneal_step >= 0 else t_max
    elif mode == "step":
        largest = t_max_late if 0 <= anneal_step <= step else t_max
    else:
        raise ValueError(f"schedule of timesteps {mode!r}: step, ramp or sqrt")
    return int(t_min * count), int(largest * count)


@dataclass(frozen=True)
class TimeRange:
    """From which timesteps noise is drawn, over a run; see `timestep_bounds`."""

    t_min: float = 0.02
    t_max: float = 0.98
    t_max_late: float = 0.5
    anneal_step: int = 5000  # negative: never
    mode: Literal["step", "ramp", "sqrt"] = "step"
    ramp_end: int | None = None
    total_steps: int | None = None

    def bounds(self, step: int, num_train_timesteps: int) -> tuple[int, int]:
        """The least and the largest timestep of a step."""
        return timestep_bounds(
            step,
            num_train_timesteps=num_train_timesteps,
            t_min=self.t_min,
            t_max=self.t_max,
            t_max_late=self.t_max_late,
            anneal_step=self.anneal_step,
            mode=self.mode,
            ramp_end=self.ramp_end,
            total_steps=self.total_steps,
        )


def scheduled_value(spec: float | Sequence[float], step: int, epoch: float = 0.0) -> float:
    """A setting at a step: a number, [v0, v1, s1] from step 0, [s0, v0, v1, s1], or with further pairs (value, step).

    Linear between the knots and constant outside. A piece whose end is a float counts epochs instead of steps. Raises
    ValueError for a list of another length.
    """
    if isinstance(spec, int | float):
        return float(spec)
    knots = [0, *spec] if len(spec) == 3 else list(spec)
    if len(knots) < 4 or len(knots) % 2:
        raise ValueError(f"a schedule of {len(spec)} numbers: give 1, 3, 4 or any larger even count")
    start, value, *rest = knots
    pieces = list(zip(rest[::2], rest[1::2], strict=True))
    for end_value, end in pieces:
        now = epoch if isinstance(end, float) else step
        if now < end or (end_value, end) == pieces[-1]:
            return _between(start, value, end_value, end, now)
        start, value = end, end_value
    raise AssertionError("a schedule has at least one piece")


def _between(start: float, value: float, end_value: float, end: float, now: float) -> float:
    if end <= start:  # no way to go: all at once, after the start
        return end_value if now > start else value
    share = min(1.0, max(0.0, (now - start) / (end - start)))
    return value + (end_value - value) * share
