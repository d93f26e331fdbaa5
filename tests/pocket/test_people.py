"""Toy people: who somebody is follows from one seed, what a picture of them shows from another."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pocket.heads import BEARD, BEARDS, FRAME, HAIR, HAIR_STYLES, HAT, HATS, SHIRT, SKIN, Expression
from pocket.people import LONGEST, MOODS, Portrait, caption, disguised, identity, render, sample
from pocket.toys import FLOOR, REACH
from pocket.tracer import ball
from pocket.wording import PersonSpec, parse, write

SEEDS = range(200)
WHO = replace(identity(5), hair="bald", hat=None, glasses=None, beard=None)


def test_the_same_seeds_give_the_same_picture():
    portraits = [sample(seed % 2, seed) for seed in range(4)]
    one, again = (render(portraits).rgb for _ in range(2))
    assert torch.equal(one, again)
    alone = render([sample(1, 3)]).rgb[0]
    assert ((alone - one[3]).abs() < 1e-3).double().mean() > 0.999
    assert not one.isnan().any()


def test_who_somebody_is_does_not_depend_on_the_picture():
    assert len({identity(seed) for seed in SEEDS}) == len(SEEDS)
    portraits = [sample(7, seed) for seed in SEEDS]
    assert {portrait.identity for portrait in portraits} == {identity(7)}
    assert len({portrait.expression for portrait in portraits}) == len(SEEDS)
    front = [portrait.view for portrait in portraits].count("front")
    assert 0.65 * len(SEEDS) < front < 0.85 * len(SEEDS)


@pytest.mark.parametrize("style", [*HAIR_STYLES, *HATS, *BEARDS])
def test_everything_worn_is_seen_and_within_reach(style: str):
    hat, beard = style if style in HATS else None, style if style in BEARDS else None
    who = replace(WHO, hair=style if style in HAIR_STYLES else "short", hat=hat, beard=beard, glasses="square")
    axis = torch.linspace(-1.3, 1.3, 53)
    points = torch.cartesian_prod(axis, axis, axis).T
    inside = points[:, who.distance(points) < 0]
    assert inside.norm(dim=0).max() < REACH
    assert FLOOR - 0.01 < inside[1].min() < FLOOR + 0.1
    assert (who.shade(points) - who.distance(points)).amin() > -1e-5, "what throws a shadow is part of the person"
    seen = set(render([Portrait(who)]).paint.unique().tolist())
    wanted = {-1, SKIN, SHIRT, FRAME} | ({HAIR} if who.hair != "bald" and style not in HATS else set())
    assert seen >= wanted | ({HAT} if hat else set()) | ({BEARD} if beard else set())


def test_an_expression_changes_the_face_alone():
    moods = render([Portrait(WHO, Expression(*mood)) for mood in MOODS.values()])
    changed = ((moods.rgb - moods.rgb[:1]).abs().amax(dim=1) > 0.02).any(dim=0)
    assert 20 < changed.sum() < 600
    assert (moods.paint[:, changed] == SKIN).double().mean() > 0.95
    behind = render([Portrait(WHO, Expression(*mood), yaw=math.pi) for mood in MOODS.values()]).rgb
    assert (behind - behind[:1]).abs().max() < 1e-5


def test_light_pose_and_background_change_the_picture():
    plain = Portrait(WHO)
    others = [
        replace(plain, light=(0.9, 0.5, 0.6)),
        replace(plain, exposure=(0.8, 0.8, 0.8)),
        replace(plain, yaw=0.4),
        replace(plain, pitch=0.2),
        replace(plain, roll=0.2),
        replace(plain, plain="mint"),
    ]
    first, *rest = render([plain, *others]).rgb
    assert all((other - first).abs().mean() > 0.005 for other in rest)


def test_a_turned_head_turns_as_it_is_told():
    yaw, pitch, roll = (replace(Portrait(WHO), **{name: math.pi / 2}).frame(torch.float64)[0] for name in NAMES)
    x, y, z = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(yaw @ z, x)
    torch.testing.assert_close(pitch @ y, z)
    torch.testing.assert_close(roll @ y, -x)
    assert torch.det(Portrait(WHO, yaw=0.3, pitch=0.2, roll=-0.4).frame(torch.float64)[0]) == pytest.approx(1)


NAMES = ("yaw", "pitch", "roll")


def test_what_a_caption_says_is_true():
    for seed in SEEDS:
        portrait = sample(seed, seed + 1000)
        truth = portrait.truth
        assert parse(write(truth)) == truth
        for said in (caption(portrait, seed), caption(portrait)):
            spec = parse(said)
            assert isinstance(spec, PersonSpec)
            assert len(said.replace(",", " ,").split()) <= LONGEST
            assert set(spec.worn) <= set(truth.worn)
            for name in ("shirt", "hair", "view", "plain"):
                assert getattr(spec, name) in (None, getattr(truth, name))
    spoken = {caption(sample(3, 4), seed) for seed in SEEDS}
    assert len(spoken) > 8


def test_a_spec_is_fulfilled():
    for view in ("front", "side", "back"):
        spec = PersonSpec("red", "ginger", ("hat", "glasses"), view, "lilac")
        for seed in range(40):
            truth = sample(seed, seed, spec).truth
            assert set(truth.worn) >= set(spec.worn)
            assert (truth.shirt, truth.hair, truth.view, truth.plain) == ("red", "ginger", view, "lilac")


def test_people_are_close_to_the_middle_of_the_picture():
    portraits = [sample(seed, seed) for seed in range(12)]
    cover = render(portraits).alpha
    assert (cover.mean(dim=(1, 2)) > 0.25).all()
    columns = torch.arange(64) + 0.5
    middle = (cover.sum(dim=1) * columns).sum(dim=1) / cover.sum(dim=(1, 2))
    assert (middle - 32).abs().max() < 8
    o, d = portraits[0].camera.rays(64)
    assert ball(o.T, d.T, REACH)[0].double().mean() > 0.5


def test_the_person_among_the_examples_is_drawn_by_this_code():
    drawn = render([sample(60_000_007, view) for view in range(6)]).rgb
    folder = Path(__file__).resolve().parents[2] / "assets" / "examples" / "people"
    shipped = [np.asarray(Image.open(folder / f"{number}.png")) for number in range(1, 7)]
    stored = torch.from_numpy(np.stack(shipped)).permute(0, 3, 1, 2) / 255
    assert ((drawn - stored).abs() < 0.02).double().mean() > 0.999


def test_who_is_disguised_keeps_the_face_and_nothing_else():
    shown = sample(3, 5)
    other = disguised(shown, 1)
    assert disguised(shown, 1) == other
    for name in ("skin", "eyes", "beard", "shape"):
        assert getattr(other.identity, name) == getattr(shown.identity, name)
    assert replace(other, identity=shown.identity) == shown
    many = [disguised(shown, seed).identity for seed in range(20)]
    for name in ("shirt", "pattern", "hat", "hair", "hair_colour", "glasses"):
        assert len({getattr(one, name) for one in many}) > 1, name
