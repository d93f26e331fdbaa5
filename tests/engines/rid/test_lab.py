"""The thief's laboratory on tiny weights: one sheet a condition, numbers under it, resumed where it was."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.rid import lab, theft
from engines.rid.album import opened
from engines.rid.purify import WAYS
from engines.rid.run import run
from engines.rid.spec import THIEF_PHOTOS
from engines.rid.thief import STEPS
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext
from tests.engines.rid.tiny import SIDE, context_with, encoded, judge_in, picture

FILES = {f"{n}.png": encoded(picture(n, 20, 20)) for n in range(4)}
SETTINGS = {"task": "thief", "thief_steps": 2, "generated": 3, "conditions": ("clean", "rid", "random", "pgd")}


@pytest.fixture(autouse=True)
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pocket_weights: Path) -> None:
    monkeypatch.setattr(lab, "JUDGE", judge_in(tmp_path / "judge"))
    monkeypatch.setattr(theft, "SEARCH", (1, 2))


def sheet(ctx: FakeContext, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(ctx.files[name]))).astype(int)


@pytest.mark.parametrize("thief", ["full", "lora", "inversion"])
def test_every_condition_gets_a_sheet_and_numbers(thief: str):
    ctx, params = context_with(FILES, thief=thief, **SETTINGS)
    run(ctx, params)
    for name in SETTINGS["conditions"]:
        assert sheet(ctx, f"{name}-generated.png").shape == (SIDE, 4 * SIDE + 12, 3)
        numbers = ctx.numbers[f"{name}-generated.png"]
        assert -1 <= numbers["ism"] <= 1
        assert numbers["fdfr"] == 0
        assert 0 <= numbers["kept"] <= 1
        assert 0 <= numbers["kept_posted"] <= 1
        assert -1 <= numbers["ism_posted"] <= 1
        assert (numbers["max_change"] == 0) == (name == "clean")
        assert numbers["max_change"] <= params.budget
    assert ctx.attributes["rid-generated.png"]["role"] == "method"
    assert ctx.attributes["clean-generated.png"]["role"] == "baseline"
    assert not np.array_equal(sheet(ctx, "clean-generated.png"), sheet(ctx, "rid-generated.png"))


def test_a_killed_thief_goes_on_and_gives_the_same_bytes():
    whole, params = context_with(FILES, **SETTINGS)
    run(whole, params)
    killed, _ = context_with(FILES)
    killed.crash_at = 60  # of some 30 checks a condition
    with pytest.raises(Crash):
        run(killed, params)
    assert "clean-generated.png" in killed.files
    again = killed.again()
    run(again, params)
    assert again.files == whole.files


def test_purification_comes_between(monkeypatch):
    plain, params = context_with(FILES, **SETTINGS)
    run(plain, params)
    jpeg, params = context_with(FILES, purify="jpeg50", **SETTINGS)
    run(jpeg, params)
    assert np.array_equal(sheet(plain, "rid-photos.png"), sheet(jpeg, "rid-photos.png")), "as it was handed over"
    assert not np.array_equal(sheet(plain, "rid-generated.png"), sheet(jpeg, "rid-generated.png"))


def test_files_that_are_left_out_are_named():
    files = {"broken.png": b"x", **{f"{n}.png": encoded(picture(n, 20, 20)) for n in range(10)}}
    ctx, params = context_with(files, **SETTINGS)
    run(ctx, params)
    notices = [name for name, attributes in ctx.attributes.items() if "notice" in attributes]
    assert notices == ["clean-generated.png"]
    told = ctx.attributes["clean-generated.png"]["notice"]
    assert told.startswith("1 of 9 files could not be used. broken.png:")
    assert told.endswith("the first 8. 2 more are left out.")


def test_too_few_pictures_are_refused():
    ctx, params = context_with(dict(list(FILES.items())[:3]), **SETTINGS)
    with pytest.raises(InvalidInput) as caught:
        run(ctx, params)
    assert caught.value.field == "images"


def test_what_purification_leaves_is_told_of_every_perturbation():
    ctx, params = context_with(FILES, **SETTINGS)
    run(ctx, params)
    assert "clean-robustness.csv" not in ctx.files
    rows = list(csv.DictReader(io.StringIO(ctx.files["random-robustness.csv"].decode())))
    assert [row["purification"] for row in rows] == [*WAYS, "diffusion"]
    for row in rows:
        assert 0 <= float(row["left: energy"]) <= 1
        assert 0 <= float(row["left: correlation"]) <= 1
        assert float(row["left: latents"]) > 0
    by_way = {row["purification"]: row for row in rows}
    assert float(by_way["blur"]["left: energy"]) < 0.5 < float(by_way["noise"]["left: energy"])


def test_photos_beyond_what_a_thief_uses_are_not_opened(monkeypatch: pytest.MonkeyPatch):
    looked_at: list[str] = []
    monkeypatch.setattr(lab, "opened", lambda file: (looked_at.append(file.name), opened(file))[1])
    many = {f"{n}.png": encoded(picture(n, 20, 20)) for n in range(11)}
    ctx, params = context_with(many, task="thief", thief_steps=1, generated=1, conditions=("clean",))
    run(ctx, params)
    assert len(looked_at) == THIEF_PHOTOS[1]


def test_a_photo_that_cannot_be_used_is_passed_over_while_there_are_enough():
    settings = {"task": "thief", "thief_steps": 1, "generated": 1, "conditions": ("clean",)}
    good = {f"{n}.png": encoded(picture(n, 20, 20)) for n in range(4)}
    ctx, params = context_with({"note.txt": b"hello"} | good, **settings)
    run(ctx, params)
    assert "clean-generated.png" in ctx.files
    del good["0.png"]  # four files are left, and three photos
    ctx, params = context_with({"note.txt": b"hello"} | good, **settings)
    with pytest.raises(InvalidInput, match="3 can be used. note.txt: ") as caught:
        run(ctx, params)
    assert caught.value.field == "images"


def test_a_cancelled_thief_stops_between_two_steps_of_drawing():
    whole, params = context_with(FILES, task="thief", thief_steps=1, generated=3, conditions=("clean",))
    run(whole, params)
    drawing = [message for _, _, message in whole.reports if "drawing" in message]
    assert len(drawing) == STEPS, "one batch, and a word at every step of it"
    steps = [step for step, _, _ in whole.reports]
    assert steps == sorted(steps)
    assert max(steps) == whole.reports[-1][1]
    stopped, _ = context_with(FILES)
    stopped.stop_at = whole.checks - 5
    with pytest.raises(Cancelled):
        run(stopped, params)
    assert not stopped.files


def test_a_defender_that_is_missing_is_told_before_anything_is_stolen(pocket_weights: Path):
    for file in pocket_weights.glob("rid-*.safetensors"):
        file.unlink()
    ctx, params = context_with(FILES, **SETTINGS)
    with pytest.raises(WeightsMissing):
        run(ctx, params)
    assert not ctx.files
    run(*context_with(FILES, **SETTINGS | {"conditions": ("clean",)}))
