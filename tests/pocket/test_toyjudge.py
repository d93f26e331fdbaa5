"""What the judge of toys is shown, and that its examination tells a judge from a guesser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.text2image.judge import BROKEN, KINDS, VIEWS, JudgeNet, to_tensor
from pocket import toyjudge
from pocket.broken import HALVING, worn
from pocket.sides import gather, pictures_of, scene_of
from pocket.toyjudge import REFUSED, distort, examine, gauge, labels, predict, view_recall


def test_sides_are_met_alike():
    scenes = [scene_of(seed) for seed in range(1, 1600, 2)]
    for view in VIEWS:
        assert 0.2 < sum(scene.camera.view == view for scene in scenes) / len(scenes) < 0.3
    assert 0.14 < sum(scene.number == 2 for scene in scenes) / len(scenes) < 0.27
    assert scene_of(17) == scene_of(17)


def test_a_pool_goes_on_where_it_stopped(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pocket.sides.BATCH", 4)
    said: list[str] = []
    first = gather(tmp_path, 40, 6, said.append)
    assert len(said) == 2
    again = gather(tmp_path, 40, 6, said.append)
    assert len(said) == 2
    assert (again.pictures == first.pictures).all()
    assert first.truths == tuple(scene_of(seed).truth for seed in range(40, 46))
    assert (first.pictures[2] == pictures_of([scene_of(42)])[0]).mean() > 0.99
    assert len(first + again) == 12


@pytest.mark.parametrize(
    ("ways", "fewest", "most"),
    [(toyjudge.WAYS, 16, 26), (("tiles", "beside", "fog", "melted"), 8, 16), (HALVING, 8, 12)],
)
def test_as_many_are_broken_as_ways_ask_for_and_pairs_are_not_halved(
    ways: tuple[str, ...], fewest: int, most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(toyjudge, "WAYS", ways)
    scenes = [scene_of(seed) for seed in range(64)]
    truth = labels(tuple(scene.truth for scene in scenes))
    assert [KINDS[i] for i in truth["kind"].tolist()] == [scene.kind for scene in scenes]
    pictures = to_tensor(pictures_of(scenes))
    shown, broken = distort(pictures, truth, torch.Generator().manual_seed(0))
    assert shown.shape == pictures.shape
    assert fewest <= broken.sum() <= most
    assert bool(truth["number"][broken].any()) == (ways != HALVING)
    plain, mirrored = ((shown - each).abs().mean((1, 2, 3)) for each in (pictures, pictures.flip(3)))
    change = plain if plain[~broken].mean() < mirrored[~broken].mean() else mirrored  # all in a mirror, or none
    assert change[broken].mean() > 1.3 * change[~broken].mean()


def test_view_recall_counts_by_kind_and_side():
    kinds = torch.arange(len(KINDS)).repeat_interleave(4)
    views = torch.arange(4).repeat(len(KINDS))
    seen = views.clone()
    seen[:4] = 1
    found = view_recall({"kind": kinds, "view": views}, {"view": seen})
    assert found[KINDS[0]] == [0, 1, 0, 0]
    assert found[KINDS[1]] == [1, 1, 1, 1]


def test_a_guesser_fails_the_examination(tmp_path: Path):
    torch.manual_seed(0)
    sights = gather(tmp_path, 900, 64, lambda _: None)
    net = JudgeNet().eval()
    report = examine(net, sights, gauge(net, sights))
    assert report["sided_kinds"] == []
    assert report["clean"]["kind"] < 0.4
    assert set(report["broken_noticed"]) == set(toyjudge.WAYS + toyjudge.UNSEEN_WAYS)


def test_predictions_are_classes():
    seen = predict(JudgeNet().eval(), torch.zeros(3, 3, 64, 64), 0.5)
    assert seen["kind"].shape == (3,)
    assert int(seen["kind"].max()) <= BROKEN


def test_the_gauge_refuses_a_few_whole_pictures_and_no_more(tmp_path: Path):
    torch.manual_seed(1)
    net, sights = JudgeNet().eval(), gather(tmp_path, 900, 64, lambda _: None)
    with torch.no_grad():
        net.heads["kind"].weight.mul_(100)  # an untrained one thinks alike of everything
    shown = worn(to_tensor(sights.pictures), torch.Generator().manual_seed(toyjudge.SEED))
    refused = (predict(net, shown, gauge(net, sights))["kind"] == BROKEN).float().mean()
    assert 0 < refused <= REFUSED + 1 / 64
