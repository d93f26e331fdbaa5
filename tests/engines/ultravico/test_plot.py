"""The pictures that explain a run: same numbers, same bytes; and what they show is where it belongs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engines.ultravico.plot import BAND, COLUMNS, FAR, WINDOW, Pattern, contact_sheet, pattern_plot, thumbnails

SHOWN = Pattern(
    distance=np.linspace(0, 24, 193),
    logit=np.cos(np.linspace(0, 24, 193) * 2 * np.pi / 13.5),
    trained=12,
    half_window=6,
    bands=((12.5, 14.5),),
    alpha=0.5,
    beta=0.2,
    period=13.5,
    share=0.6,
)


def colours(shown: Pattern) -> set[tuple[int, int, int]]:
    return {colour for _, colour in pattern_plot(shown).getcolors(1 << 20)}


def test_the_diagram_shows_window_decay_and_bands():
    assert {WINDOW, FAR, BAND} <= colours(SHOWN)
    assert colours(replace(SHOWN, alpha=None, beta=None, bands=())).isdisjoint({FAR, BAND})
    assert pattern_plot(SHOWN).tobytes() == pattern_plot(SHOWN).tobytes()


def test_a_flat_curve_can_be_drawn():
    pattern_plot(replace(SHOWN, logit=np.zeros(193)))


def test_a_sheet_has_a_row_for_every_video():
    video = np.zeros((50, 64, 48, 3), np.uint8)
    video[:, :, :, 0] = np.arange(50)[:, None, None] * 5
    small = thumbnails(video)
    assert small.shape == (COLUMNS, 64, 48, 3)
    assert small[0, 0, 0, 0] == 0
    assert small[-1, 0, 0, 0] == 245
    sheet = contact_sheet({"one": small, "other": 255 - small}, [0.0] * COLUMNS)
    assert sheet.width > COLUMNS * 48
    assert sheet.height > 2 * 64
    assert thumbnails(np.zeros((3, 480, 832, 3), np.uint8)).shape == (COLUMNS, 96, 166, 3)
