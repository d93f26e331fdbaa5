"""The quality of the text-to-image model: prompts, rows that go on where they ended, and the part of the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import text2image_quality as quality
from benchmarks.rows import read_rows
from benchmarks.text2image_card import judged, matched, written
from benchmarks.text2image_card import quality as told
from benchmarks.text2image_pictures import draw_missing, grid_of, plan, prompt_for, read_pictures, sheet
from benchmarks.text2image_quality import AUTOENCODER, make_rows, share, wilson
from pocket.lessons import WITHHELD
from pocket.wording import VIEWS, parse

SETTINGS = {"sampler": "dpm", "steps": 20, "guidance": 6.0}
EXAMINATION = {
    "pictures": 10,
    "sided_kinds": ["car"],
    "view_recall": {"car": [1.0, 0.9, 0.95, 1.0]},
    "clean": {"kind": 0.98, "colour": 0.99, "number": 1.0, "view_of_sided": 0.97, "whole": 0.99},
    "worn": {"kind": 0.95, "colour": 0.99, "number": 1.0, "view_of_sided": 0.93, "whole": 0.96},
    "broken_noticed": {"melted": 0.97, "half_melted": 0.91, "noise": 1.0},
    "colour_of_broken": {"melted": 0.92, "tiles": 0.88},
}


class FakePainter:
    """Draws the seed as a grey, and is killed after a few batches."""

    def __init__(self, fails_after: int = 1000) -> None:
        self.left = fails_after

    def pictures(self, rows: list[dict[str, Any]], **settings: Any) -> np.ndarray:
        assert settings == SETTINGS
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return np.stack([np.full((64, 64, 3), row["seed"], np.uint8) for row in rows])


class FakeBench:
    """Says that every second picture is right, and is killed after a few batches."""

    def __init__(self, fails_after: int = 1000) -> None:
        self.left = fails_after

    def measured(self, rows: list[dict[str, Any]], pictures: np.ndarray) -> list[dict[str, Any]]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        right = [bool(row["seed"] % 2) for row in rows]
        names = ("kind", "colour", "number", "pair")
        return [
            {**dict.fromkeys(names, r), "hue": True, "view": None if i else r, "clip": 0.5, "distance": 9.0 + i}
            for i, r in enumerate(right)
        ]


@pytest.fixture(autouse=True)
def _no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "pictures_of", lambda scenes, side: np.zeros((len(scenes), side, side, 3), np.uint8))


def test_prompts_are_the_seeds_and_never_withheld_ones():
    prompts = [prompt_for(seed) for seed in range(400)]
    assert prompts == [prompt_for(seed) for seed in range(400)]
    specs = [parse(prompt) for prompt in prompts]
    assert not {(spec.kind, spec.colour) for spec in specs} & WITHHELD
    for view in VIEWS:
        assert 0.17 < sum(spec.view == view for spec in specs) / len(specs) < 0.33
    rows = plan(range(512))
    assert sum(row["group"] == "seen" for row in rows) == 512
    held = [row["prompt"] for row in rows if row["group"] == "withheld"]
    assert len(held) == 256
    assert len({row["seed"] for row in rows if row["group"] == "withheld"}) == 256
    assert {(parse(prompt).kind, parse(prompt).colour) for prompt in held} == WITHHELD


def test_pictures_are_kept_and_only_missing_ones_drawn(tmp_path: Path):
    rows = plan(range(32))
    with pytest.raises(KeyboardInterrupt):
        draw_missing(FakePainter(fails_after=2), rows, [SETTINGS], tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 32
    draw_missing(FakePainter(), rows, [SETTINGS], tmp_path)
    draw_missing(FakePainter(fails_after=0), rows, [SETTINGS], tmp_path)
    found = read_pictures(rows, SETTINGS, tmp_path)
    assert found.shape == (len(rows), 64, 64, 3)
    assert found[:, 0, 0, 0].tolist() == [row["seed"] for row in rows]
    shown = np.asarray(sheet(np.concatenate([found, found])[:64], times=2))
    assert shown.shape == (8 * 136, 8 * 136, 3)
    assert shown[4 + 136, 4 + 136].tolist() == [rows[9]["seed"]] * 3


def test_rows_go_on_where_they_ended(tmp_path: Path):
    rows, out = plan(range(32)), tmp_path / "rows.jsonl"
    draw_missing(FakePainter(), rows, [SETTINGS], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make_rows(FakeBench(fails_after=5), rows, [SETTINGS], tmp_path, out)
    begun = len(read_rows(out))
    assert len(rows) < begun < 2 * len(rows)
    out.write_text(out.read_text() + '{"group": "seen", "seed"\n')  # killed while it wrote
    make_rows(FakeBench(), rows, [SETTINGS], tmp_path, out)
    found = read_rows(out)
    assert len(found) == 2 * len(rows)
    assert len({(row["group"], row["prompt"], row["seed"], row["settings"] is None) for row in found}) == len(found)
    before = out.read_text()
    make_rows(FakeBench(fails_after=0), rows, [SETTINGS], tmp_path, out)
    assert out.read_text() == before


def test_proportions_carry_their_interval():
    assert wilson(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)
    assert share([True, None, False]) == "50.0% [9.5%, 90.5%]"
    assert share([None]) == "–"


def test_settings_are_combined_over_the_base():
    assert grid_of("guidance=5,7.5 steps=10", SETTINGS) == [
        {"sampler": "dpm", "steps": 10, "guidance": 5.0},
        {"sampler": "dpm", "steps": 10, "guidance": 7.5},
    ]


def test_the_card_says_what_the_rows_say(tmp_path: Path):
    out, weights = tmp_path / "rows.jsonl", tmp_path / "unet"
    weights.write_bytes(b"weights")
    draw_missing(FakePainter(), plan(range(32)), [SETTINGS], tmp_path)
    make_rows(FakeBench(), plan(range(32)), [SETTINGS], tmp_path, out)
    rows = [*read_rows(out), {"group": AUTOENCODER, "psnr": [29.0, 31.0], "settings": None}]
    card = told(rows, [], EXAMINATION, weights)
    said = " ".join(card.split())  # paragraphs are wrapped
    assert "| a whole toy of the right colour | 50.0%" in card
    assert "| colour right, whole toy or not | 100.0%" in card
    assert "melted ones 92%, tiles ones 88% on renders" in said
    assert "32 prompts, one a seed (0 to 31), sampler dpm, steps 20, guidance 6.0" in said
    assert "(n = 2)" in card, "sides that nobody asked for do not count"
    assert "| autoencoder, 2 unseen pictures, dB | 30 [29, 31] |  | 30 |" in card
    assert "91% (half melted) to 100%" in said
    assert "No settings were searched." in said
    tried = told(rows, rows[:-1], EXAMINATION, weights)
    assert "The settings were chosen below." in " ".join(tried.split())
    assert "| sampler dpm, steps 20, guidance 6.0 | 50.0%" in tried
    assert "| noise (never trained on) | 100.0% |" in judged(EXAMINATION)
    found = matched(
        {"pictures": 9, "among": 5, "picture_for_caption": 0.9, "caption_for_picture": 0.8, "wrong_view_noticed": 1}
    )
    assert "| a wrong view is noticed (chance 50 %) | 100.0% |" in found


def test_the_part_of_a_card_is_replaced_and_the_rest_kept():
    card = "# Card\n\n- **Licence:** Apache-2.0\n"
    once = written(card, "old")
    assert once == "# Card\n\n- **Licence:** Apache-2.0\n\n## Measured\n\nold\n"
    more = once + "\n## Later\n\nkept\n"
    assert written(more, "new") == more.replace("old", "new")
    assert written(written(more, "new"), "new") == written(more, "new")
