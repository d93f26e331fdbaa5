"""Grey levels and the range of networks: one way and back, rounded as files are."""

from __future__ import annotations

import numpy as np
import torch

from engines.rid.levels import opened, stored, to_float, to_levels


def test_every_grey_level_comes_back_as_it_was():
    levels = torch.arange(256, dtype=torch.uint8)
    pictures = to_float(levels)
    assert pictures.dtype == torch.float32
    assert (pictures[0], pictures[-1]) == (-1, 1)
    assert torch.equal(to_levels(pictures), levels)
    assert torch.equal(levels, torch.arange(256, dtype=torch.uint8)), "what was handed in stays as it was"


def test_halves_are_rounded_up_and_the_range_is_kept():
    between = torch.tensor([-3.0, 0.5 / 127.5 - 1, 1.49 / 127.5 - 1, 3.0])
    assert to_levels(between).tolist() == [0, 1, 1, 255]


def test_files_hold_colours_last():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    shown = opened(pictures)
    assert shown.shape == (2, 3, 5, 7)
    np.testing.assert_array_equal(stored(shown), pictures)
