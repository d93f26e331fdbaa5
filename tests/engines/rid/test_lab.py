"""The thief's laboratory on tiny weights: one sheet a condition, numbers under it, resumed where it was."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engines.rid import lab
from engines.rid.identity import Embedder, Recogniser
from engines.rid.run import run
from studio.errors import InvalidInput
from tests.engines.fake_context import Crash, FakeContext
from tests.engines.rid.tiny import SIDE, context_with, encoded, picture

FILES = {f"{n}.png": encoded(picture(n, 20, 20)) for n in range(4)}
SETTINGS = {"task": "thief", "thief_steps": 2, "generated": 3, "conditions": ("clean", "rid", "random", "pgd")}


@pytest.fixture(autouse=True)
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pocket_weights: Path) -> None:
    torch.manual_seed(0)
    net = Embedder()
    with torch.no_grad():
        net.face.bias.fill_(9)  # it sees faces everywhere
    folder = tmp_path / "judge"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    monkeypatch.setattr(lab, "JUDGE", folder)
    monkeypatch.setattr(lab, "SEARCH", (1, 2))


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
        assert (numbers["max_change"] == 0) == (name == "clean")
        assert numbers["max_change"] <= 12
    assert ctx.attributes["rid-generated.png"]["role"] == "method"
    assert ctx.attributes["clean-generated.png"]["role"] == "baseline"
    assert not np.array_equal(sheet(ctx, "clean-generated.png"), sheet(ctx, "rid-generated.png"))


def test_a_killed_thief_goes_on_and_gives_the_same_bytes():
    whole, params = context_with(FILES, **SETTINGS)
    run(whole, params)
    killed, _ = context_with(FILES)
    killed.crash_at = 9
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


@pytest.mark.parametrize("files", [dict(list(FILES.items())[:3]), FILES | {"broken.png": b"x"}])
def test_too_few_or_broken_pictures_are_refused(files: dict[str, bytes]):
    ctx, params = context_with(files, **SETTINGS)
    with pytest.raises(InvalidInput) as caught:
        run(ctx, params)
    assert caught.value.field == "images"


def test_a_judge_that_sees_nobody_says_nothing_about_identity():
    net = Embedder()
    with torch.no_grad():
        net.face.bias.fill_(-99)
    pictures = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    numbers = lab.likeness(Recogniser(net), pictures, pictures)
    assert "ism" not in numbers
    assert "brisque" in numbers


def test_flat_pictures_have_no_naturalness():
    flat = np.full((4, SIDE, SIDE, 3), 90, np.uint8)
    torch.manual_seed(0)
    assert "brisque" not in lab.likeness(Recogniser(Embedder()), flat, flat)
