"""The recipe of the identity embedder: its data, how pictures are spoilt, and the examination it has to pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engines.rid.identity import Embedder
from engines.shared.training import Recipe, load_average, train
from pocket import identity
from pocket.identity import (
    Recognition,
    Student,
    attacked,
    augmented,
    blobs,
    defaced,
    enlarged,
    hidden,
    melted,
    misled,
    noise,
    patterns,
    portraits,
    spoilt,
    tiles,
    to_float,
    toys,
)


@pytest.fixture(scope="module")
def shown() -> torch.Tensor:  # uint8 [8, 3, 3, 64, 64]
    return portraits(identity.TRAINING, 8, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pictures_are_labelled_by_their_identity(shown: torch.Tensor):
    assert shown.shape == (8, 3, 3, 64, 64)
    again = portraits(identity.TRAINING + 3, 1, 3)[0]
    assert ((again.int() - shown[3].int()).abs() <= 1).double().mean() > 0.999


@pytest.mark.parametrize("spoil", [spoilt, tiles, melted, defaced, lambda x, g: enlarged(x)])
def test_spoilt_pictures_keep_shape_and_range_and_show_something_else(spoil, shown: torch.Tensor):
    people = to_float(shown[:, 0])
    one, again = spoil(people, generator()), spoil(people, generator())
    assert torch.equal(one, again)
    assert one.shape == people.shape
    assert one.abs().max() <= 1.001
    assert ((one - people).abs().mean(dim=(1, 2, 3)) > 0.05).all()


def test_tiles_are_the_same_tiles(shown: torch.Tensor):
    people = to_float(shown[:, 0])
    mixed = tiles(people, generator(3))
    assert torch.equal(mixed.flatten(1).sort(dim=1).values, people.flatten(1).sort(dim=1).values)


def test_augmented_pictures_are_still_alike(shown: torch.Tensor):
    people = to_float(shown[:, 0])
    made = augmented(people, generator())
    assert torch.equal(made, augmented(people, generator()))
    assert made.shape == people.shape
    assert made.abs().max() <= 1
    assert 0.01 < (made - people).abs().mean() < 0.5


def test_a_defaced_picture_keeps_what_is_around_the_face(shown: torch.Tensor):
    people = to_float(shown[:, 0])
    changed = (defaced(people, generator()) - people).abs().mean(dim=(0, 1))
    assert changed[24:40, 24:40].mean() > 0.1
    assert changed[:, :4].max() == changed[:, -4:].max() == 0


def test_patterns_are_of_every_grain_and_within_one():
    made = patterns(torch.zeros(40, 3, 64, 64), generator())
    assert made.shape == (40, 3, 64, 64)
    assert 0.9 < made.abs().max() <= 1
    slopes = made.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    assert slopes.max() > 10 * slopes.min()


def test_misled_pictures_are_near_and_less_alike(shown: torch.Tensor):
    people = to_float(shown[:, 0])
    student, who = Student(8), torch.arange(8)
    moved = misled(student, people, who, generator())
    assert 0 < (moved - people).abs().max() <= identity.STRENGTH / 2 + 1e-6
    before, after = (
        identity.cosine_softmax_loss(student.embedder(x)[0], student.centres, who) for x in (people, moved)
    )
    assert after > before
    assert not moved.requires_grad


def test_an_attack_on_the_judge_stays_near_and_makes_it_doubt(shown: torch.Tensor):
    torch.manual_seed(0)
    people, net = to_float(shown[:, 0]), Embedder().eval()
    own = net(people)[0].detach()
    moved = attacked(net, people, own, 0.05)
    assert (moved - people).abs().max() <= 0.05 + 1e-6
    assert (net(moved)[0] * own).sum(dim=1).mean() < 0.98


def test_what_is_never_shown_in_training_has_its_kinds():
    assert noise(6, generator()).shape == blobs(6, generator()).shape == (6, 3, 64, 64)
    assert toys(5, 2).shape == (2, 3, 64, 64)


def test_a_short_training_learns_to_tell_people_apart(shown: torch.Tensor, tmp_path: Path):
    people, others = tmp_path / "people.safetensors", tmp_path / "toys.safetensors"
    save_file({"pictures": shown}, people)
    save_file({"pictures": toys(1, 6)}, others)
    student = Student(identities=8)
    recipe = Recipe(steps=60, batch=24, ranks=1, warmup=5, cooldown=30, ema=0.9, save_seconds=1e9)
    train(student, Recognition([people], others), recipe, tmp_path / "work", hidden)
    load_average(tmp_path / "work", student)
    with torch.no_grad():
        embeddings, faces = student.embedder.eval()(to_float(shown.flatten(0, 1)))
    cosines = (embeddings @ embeddings.T).unflatten(0, (8, 3)).unflatten(2, (8, 3))
    same = torch.stack([cosines[who, :, who].mean() for who in range(8)]).mean()
    assert same > cosines.mean() + 0.2
    assert (faces > 0).double().mean() > 0.7


def test_a_threshold_parts_what_can_be_parted():
    same, different = torch.tensor([0.6, 0.7, 0.9]), torch.tensor([-0.2, 0.1, 0.4])
    assert identity.best_threshold(same, different) == pytest.approx(0.4)


def test_pictures_are_compared_with_the_mean_of_their_others():
    """Each picture has an axis of its own beside that of its identity: alike by half in pairs, by more with means."""
    identities, views = 5, 4
    axes = torch.eye(identities * (views + 1)).unflatten(0, (identities, views + 1))
    embeddings = torch.nn.functional.normalize(axes[:, 1:] + axes[:, :1], dim=-1)
    same, different = identity._against_means(embeddings, generator())
    assert len(same) == len(different) == identities * views
    # the mean of three others points along 3 (identity) + three axes: 3 / sqrt(9 + 3) of the identity's axis
    torch.testing.assert_close(same, torch.full_like(same, 3 / 12**0.5 / 2**0.5))
    assert different.abs().max() < 1e-6
    pairs, others = identity._pairs(embeddings, generator())
    torch.testing.assert_close(pairs, torch.full_like(pairs, 0.5))
    assert others.abs().max() < 1e-6


def test_an_examination_of_a_network_that_knows_nothing_says_so():
    torch.manual_seed(0)
    report = identity.examine(Embedder().eval(), identities=6, views=2)
    assert report["verification"] < 0.95
    assert -1 <= report["mean_threshold"] <= 1
    assert {"mean_verification", "mean_accepted", "mean_accepted_of_others"} <= set(report)
    assert {f"{kind}_accepted" for kind in ("patterns", "attacked", "attacked_half")} <= set(report)
    assert {f"{kind}_taken_for_a_face" for kind in ("defaced", "tiles", "melted", "noise", "blobs", "toys")} <= set(
        report
    )
    json.dumps(report)
