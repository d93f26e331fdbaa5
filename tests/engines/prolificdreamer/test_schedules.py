"""Schedules of timesteps and of settings."""

from __future__ import annotations

import pytest

from engines.prolificdreamer.schedules import scheduled_value, timestep_bounds


def test_the_largest_timestep_falls_at_its_step_or_never():
    assert timestep_bounds(4999) == (20, 980)
    assert timestep_bounds(5000) == (20, 500)
    assert timestep_bounds(10**6, anneal_step=-1) == (20, 980)
    assert timestep_bounds(0, anneal_step=0) == (20, 500)


def test_a_ramp_and_a_square_root():
    ramp = {"mode": "ramp", "anneal_step": 100, "ramp_end": 300}
    assert [timestep_bounds(step, **ramp)[1] for step in (0, 100, 200, 300, 900)] == [980, 980, 740, 500, 500]
    for end in ({}, {"ramp_end": 100}):  # threestudio's falls within a step, and the step itself is still early
        steep = {"mode": "ramp", "anneal_step": 100, **end}
        assert [timestep_bounds(step, **steep)[1] for step in (99, 100, 101)] == [980, 980, 500]
    root = {"mode": "sqrt", "t_min": 0.25, "t_max": 0.75, "total_steps": 400}
    assert [timestep_bounds(step, **root) for step in (0, 100, 400)] == [(750, 750), (500, 500), (250, 250)]


def test_values_between_and_beyond_their_knots():
    assert scheduled_value(3, 10) == 3
    assert [scheduled_value([0.0, 1.0, 10], step) for step in (-1, 0, 5, 10, 99)] == [0, 0, 0.5, 1, 1]
    knots = [10, 0.0, 1.0, 20, 0.5, 30]
    assert [scheduled_value(knots, step) for step in (0, 10, 15, 20, 25, 30, 99)] == [0, 0, 0.5, 1, 0.75, 0.5, 0.5]
    assert scheduled_value([0, 0.0, 1.0, 4.0], step=1000, epoch=2.0) == 0.5


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match="a schedule of 5 numbers"):
        scheduled_value([1, 2, 3, 4, 5], 0)
    with pytest.raises(ValueError, match="total_steps"):
        timestep_bounds(0, mode="sqrt")
