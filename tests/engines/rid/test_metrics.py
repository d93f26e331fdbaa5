"""What is printed under a protected photo: right, and no dearer in memory than the photo itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines.rid.metrics import amplified
from engines.rid.quality import visibility_metrics


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(20, 230, (height, width, 3)).astype(np.uint8)
    return clean, (clean + rng.integers(-6, 7, clean.shape)).astype(np.uint8)


def test_the_whole_budget_spans_the_whole_range():
    clean, protected = pair(150, 40)
    change = protected.astype(int) - clean
    shown = amplified(clean, protected, 6)
    assert shown.dtype == np.uint8
    assert (shown[change == 0] == 128).all()
    assert (shown[change == -6] == 0).all()
    assert (shown[change == 6] == 255).all()
    assert (shown[change == 3] == 191).all()


@pytest.mark.parametrize("act", [visibility_metrics, lambda clean, protected: amplified(clean, protected, 6.0)])
def test_a_large_photo_takes_little_more_memory_than_it_has(act: Callable[..., Any]):
    clean, protected = pair(1500, 1000)
    tracemalloc.start()
    act(clean, protected)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2.5 * clean.nbytes
