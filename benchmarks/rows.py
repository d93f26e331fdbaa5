"""Rows of a measurement in a file of JSON lines, kept from start to start, and what is said of them.

A row is written as soon as it is made, so a run that was stopped goes on where it stood. Knows no method.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

RESAMPLES = 10_000


def read_rows(path: Path | None) -> list[dict[str, Any]]:
    """Rows of an earlier start, none if there was none; a line cut off by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one more row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


Many = Callable[..., list[Any]]  # as `map`, all at once


@contextmanager
def workers(jobs: int) -> Iterator[Many]:
    """Where many things are measured: here, or where `jobs` is more than 1 in as many processes of their own.

    A video is drawn in a second where there is a GPU, and measured in as much by one core.
    """
    if jobs == 1:
        yield lambda function, *columns: list(map(function, *columns))
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield lambda function, *columns: list(pool.map(function, *columns))


def interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean and 95 % percentile bootstrap interval over seeds; not-a-numbers are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"),) * 3
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    return (float(values.mean()), *(float(q) for q in np.percentile(means, (2.5, 97.5))))


def grid_of(text: str) -> list[dict[str, Any]]:
    """`margin=0.85,0.9 steps=12` as every combination; values are JSON."""
    axes = [(name, values.split(",")) for name, _, values in (item.partition("=") for item in text.split())]
    names = [name for name, _ in axes]
    return [
        {name: json.loads(value) for name, value in zip(names, chosen, strict=True)}
        for chosen in itertools.product(*(values for _, values in axes))
    ]
