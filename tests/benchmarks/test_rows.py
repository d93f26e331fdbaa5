"""Rows of a measurement: kept from start to start, and a line that a kill cut off is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.rows import append_row, batches, grid_of, interval, read_rows, workers


def test_rows_come_back_without_the_one_that_was_cut_off(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(None) == read_rows(path) == []
    rows = [{"seed": 0, "settings": {"steps": 8}}, {"seed": 1, "settings": {}}]
    for row in rows:
        append_row(path, row)
    with path.open("a") as file:
        file.write('{"seed": 2, "settings": {"steps": 8}')
    assert read_rows(path) == rows


def test_an_interval_is_around_the_mean_of_what_is_known():
    values = np.array([1.0, 2.0, np.nan, 3.0])
    mean, low, high = interval(values, np.random.default_rng(0))
    assert mean == pytest.approx(2)
    assert 1 <= low < mean < high <= 3
    assert np.isnan(interval(values[2:3], np.random.default_rng(0))).all()


def test_settings_are_combined_and_items_cut_into_pieces():
    assert grid_of("") == [{}]
    assert grid_of("alpha=0.9,0.5 steps=8") == [{"alpha": 0.9, "steps": 8}, {"alpha": 0.5, "steps": 8}]
    assert list(batches(range(5), 2)) == [range(0, 2), range(2, 4), range(4, 5)]


def test_many_things_are_measured_in_order_here_and_elsewhere():
    for jobs in (1, 2):
        with workers(jobs) as many:
            assert many(pow, [2, 3, 4], [3, 2, 1]) == [8, 9, 4]
