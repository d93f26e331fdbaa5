"""Which scene a seed stands for, and which seeds lie in which file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pocket import lessonpool, lessons, people, world
from pocket.people import Portrait
from pocket.renderer import View
from pocket.toypool import pictures
from pocket.toys import KINDS
from pocket.wording import VIEWS
from pocket.world import Scene


def test_withheld_pairs_are_never_shown_and_every_kind_has_one():
    assert {kind for kind, _ in lessons.WITHHELD} == set(KINDS)
    assert len(lessons.WITHHELD) == len(KINDS)
    scenes = [lessons.toys(first + seed) for first in (0, lessons.SIDED) for seed in range(600)]
    assert not {(scene.kind, scene.colour) for scene in scenes} & lessons.WITHHELD


def test_sides_and_numbers_are_alike_where_they_should_be():
    scenes = [lessons.toys(lessons.SIDED + seed) for seed in range(800)]
    for view in VIEWS:
        assert 0.2 < sum(scene.camera.view == view for scene in scenes) / len(scenes) < 0.3
    assert 0.35 < sum(scene.number == 2 for scene in scenes) / len(scenes) < 0.45


@pytest.mark.parametrize("sort", [lessonpool.TOYS, lessonpool.SIDED, lessonpool.PEOPLE], ids=lambda sort: sort.name)
def test_the_seeds_of_a_shard_are_those_of_its_pictures(sort: lessonpool.Sort, tmp_path: Path):
    few = lessonpool.Sort(sort.name, sort.first, 2, 2, sort.fill, sort.each)
    said: list[str] = []
    files = few.files(tmp_path, True, said.append)
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        f"{sort.name}/{i}.safetensors" for i in (0, 1)
    ]
    assert few.files(tmp_path, True, said.append, 1) == files[:1]
    assert len(said) == 2, "nothing is rendered twice"
    shown = torch.cat([_rendered(lessons.lesson(seed)).rgb for seed in few.seeds()])
    stored = pictures(files).float() / 255
    assert stored.shape == shown.shape
    assert ((stored - shown).abs() > 2 / 255).float().mean() < 1e-3  # a batch of another size rounds differently


def _rendered(scene: Scene | Portrait) -> View:
    return people.render([scene]) if isinstance(scene, Portrait) else world.render([scene])
