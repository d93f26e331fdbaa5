"""Squares under a network of one size: everything is covered, nothing exceeds the budget."""

from __future__ import annotations

import pytest
import torch

from engines.rid.framing import RAMP, Square, bands, spread, squares

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


def test_a_square_picture_keeps_its_perturbation():
    delta = torch.rand(3, 32, 32)
    assert squares(32, 32) == [Square(0, 0, 32)]
    assert torch.equal(spread(delta[None], squares(32, 32), 32, 32, 2.0), delta)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_square_in_the_middle_has_what_was_predicted_for_it_over_its_whole_extent(width: int, height: int):
    parts, generator = squares(width, height), torch.Generator().manual_seed(1)
    assert len(parts) % 2 == 1
    middle, side = parts[len(parts) // 2], min(width, height)
    assert abs(2 * (middle.left + middle.top) + side - max(width, height)) <= 1
    deltas = torch.rand(len(parts), 3, 16, 16, generator=generator) - 0.5
    alone = spread(deltas[len(parts) // 2][None], [Square(0, 0, side)], side, side, 1.0)
    made = spread(deltas, parts, height, width, 1.0)
    found = made[:, middle.top : middle.top + side, middle.left : middle.left + side]
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("width", "height"), [(160, 60), (60, 160), (90, 60), (64, 64), (400, 60)])
@pytest.mark.parametrize("pixels", [1, 700, 10**6])
def test_bands_are_the_whole_piece_by_piece(width: int, height: int, pixels: int):
    parts, generator = squares(width, height), torch.Generator().manual_seed(1)
    deltas = torch.rand(len(parts), 3, 16, 16, generator=generator) - 0.5
    whole, seen = spread(deltas, parts, height, width, 0.4), torch.zeros(height, width, dtype=torch.int64)
    for rows, columns, delta in bands(deltas, parts, height, width, 0.4, pixels):
        assert delta[0].numel() <= max(pixels, min(width, height))
        torch.testing.assert_close(delta, whole[:, rows, columns])
        seen[rows, columns] += 1
    assert (seen == 1).all()


def test_where_squares_meet_one_fades_into_the_other():
    parts = squares(400, 100)
    deltas = torch.linspace(-1, 1, len(parts)).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    steps = spread(deltas, parts, 100, 400, 1.0)[0, 50].diff().abs()
    assert steps.max() <= 1.01 * (2 / (len(parts) - 1)) / (RAMP * 100), "no jump: a twentieth of a side a step"
    assert (steps > 1e-6).sum() <= (len(parts) - 1) * (RAMP * 100 + 1), "nothing is mixed anywhere else"


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
