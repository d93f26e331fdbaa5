"""The recipe of the pocket defender, with tiny networks and few steps: all stages, resumed, exported, loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.rid import checkpoints
from engines.rid.presets import MODELS
from engines.rid.train import Protecting
from pocket import rid
from pocket.identity import Recognition
from tests.engines.rid.test_train import smooth
from tests.engines.rid.tiny import SIDE, diffusion_folder


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything small; returns the folder of the models."""
    out = tmp_path / "assets"
    for name in rid.VARIANTS["rid"].surrogates:
        diffusion_folder(out / name)
    pool = tmp_path / "pool.safetensors"
    save_file({"pictures": smooth(24).unflatten(0, (8, 3))}, pool)
    monkeypatch.setattr(rid.identity, "fill", lambda *_: Recognition([pool], pool))
    monkeypatch.setattr(rid, "SHAPE", (SIDE, 4, 24, 2, 2))
    monkeypatch.setattr(rid, "TARGETS", 4)
    monkeypatch.setattr(rid, "ROUNDS", 1)
    quick = [replace(stage, recipe=replace(stage.recipe, steps=3, batch=8, cooldown=2)) for stage in rid.STAGES]
    monkeypatch.setattr(rid, "STAGES", quick)
    return out


def test_every_budget_gets_a_defender_that_keeps_it(small: Path, tmp_path: Path):
    told: list[str] = []
    rid.train_everything(tmp_path / "work" / "rid", small / "rid", False, told.append)
    for budget, name in MODELS["pocket"].files.items():
        defender = checkpoints.load(small / "rid" / name)
        assert defender.eps == pytest.approx(budget / 127.5)
        with torch.no_grad():
            delta = defender(torch.rand(2, 3, SIDE, SIDE) * 2 - 1)
        assert 0 < delta.abs().max() <= defender.eps
    before = {path.name: load_file(path) for path in (small / "rid").glob("*.safetensors")}
    again: list[str] = []
    rid.train_everything(tmp_path / "work" / "rid", small / "rid", True, again.append)
    assert not [line for line in again if "searching" in line]
    for name, weights in before.items():
        after = load_file(small / "rid" / name)
        assert all(torch.equal(weights[key], after[key]) for key in weights)


def test_families_say_what_they_have_seen_and_share_targets(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks: list[Protecting] = []
    monkeypatch.setattr(
        rid, "Protecting", lambda *given, **more: tasks.append(Protecting(*given, **more)) or tasks[-1]
    )
    told: list[str] = []
    for name in rid.VARIANTS:
        rid.train_everything(tmp_path / "work" / name, small / name, True, told.append)
    assert len([line for line in told if "searching" in line]) == 2, "once against both, once against one"
    cards = {name: json.loads((small / name / "training.json").read_text()) for name in rid.VARIANTS}
    assert cards["rid_alone"]["surrogates"] == ["portraits"]
    assert cards["rid"]["surrogates"] == cards["rid_rough"]["surrogates"] == ["portraits", "portraits_b"]
    assert [task.rough for task in tasks] == [False] * 10 + [True] * 5
    assert [[path.name for path in task.surrogates] for task in tasks[5:10]] == [["portraits"]] * 5
    assert [task.reconstruction for task in tasks] == [0, 1, 1, 1, 1] * 3
    assert [task.showing > 0 for task in tasks] == [False, False, True, True, True] * 3
    assert [task.pairs is None for task in tasks] == [task.showing > 0 for task in tasks], "targets show"


def test_targets_are_drawn_from_every_shard(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shards = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for number, shard in enumerate(shards):
        save_file({"pictures": torch.full((2, 3, 3, SIDE, SIDE), 50 + 100 * number).byte()}, shard)
    monkeypatch.setattr(rid, "TARGETS", 8)
    rid.targets(tmp_path / "pairs.safetensors", shards, [small / "portraits"], 24.0, lambda line: None)
    assert set(load_file(tmp_path / "pairs.safetensors")["source"].unique().tolist()) == {50, 150}
