"""Squares under a network of one size: everything is covered, nothing exceeds the budget."""

from __future__ import annotations

import pytest
import torch

from engines.rid.framing import Square, spread, squares, taken

SIZES = [(64, 64), (90, 60), (60, 90), (300, 40), (40, 300), (65, 64), (1000, 16)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_squares_cover_every_pixel_and_overlap(width: int, height: int):
    seen = torch.zeros(height, width, dtype=torch.int64)
    parts = squares(width, height)
    for square in parts:
        assert square.side == min(width, height)
        assert square.left >= 0
        assert square.top >= 0
        assert square.left + square.side <= width
        assert square.top + square.side <= height
        seen[square.top : square.top + square.side, square.left : square.left + square.side] += 1
    assert seen.min() >= 1
    for one, other in zip(parts, parts[1:], strict=False):
        assert abs(one.left - other.left) + abs(one.top - other.top) <= 0.75 * one.side + 1


def test_a_square_picture_is_taken_as_it_is():
    picture = torch.rand(3, 32, 32)
    assert squares(32, 32) == [Square(0, 0, 32)]
    assert torch.equal(taken(picture, squares(32, 32), 32)[0], picture)
    assert torch.equal(spread(picture[None], squares(32, 32), 32, 32, 2.0), picture)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_perturbation_stays_within_the_budget_everywhere(width: int, height: int):
    parts, generator = squares(width, height), torch.Generator().manual_seed(1)
    deltas = 0.1 * (torch.randint(0, 2, (len(parts), 3, 16, 16), generator=generator) * 2.0 - 1)
    made = spread(deltas, parts, height, width, 0.1)
    assert made.shape == (3, height, width)
    assert made.abs().max() <= 0.1
    assert made.abs().mean() > 0.01
    alike = spread(torch.full((len(parts), 3, 16, 16), 0.05), parts, height, width, 0.1)
    torch.testing.assert_close(alike, torch.full_like(alike, 0.05))


def test_a_part_gets_what_was_predicted_for_it():
    parts = squares(120, 60)
    deltas = torch.linspace(-1, 1, len(parts)).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    line = spread(deltas, parts, 60, 120, 1.0)[0, 30]
    assert (line.diff() >= -1e-6).all()
    assert line[0] < -0.99
    assert line[-1] > 0.99
