"""Numbers under a picture: what a caption asks for against what is seen, and the nearest training pictures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from engines.text2image import metrics
from engines.text2image.judge import Verdict
from engines.text2image.metrics import agreement, described, layers, nearest, pictures_of, row, wanted, world_scene
from engines.text2image.neighbours import TrainingIndex, small
from pocket.camera import Camera
from pocket.lessons import lesson
from pocket.toys import WHITE
from pocket.wording import ToySpec
from pocket.world import Scene, sample_scene
from studio.errors import InvalidInput
from tests.engines.text2image.conftest import TRAINED_ON

CAR = Verdict("car", "red", "side", 1, 0.9)


def test_what_is_said_is_compared_and_what_is_not_is_left():
    sided = {"car"}
    asked = ToySpec("car", "red", view="side")
    assert agreement(asked, CAR, sided) == {"kind": True, "colour": True, "view": True, "number": True}
    other = Verdict("boat", "blue", "back", 2, 0.9)
    assert agreement(asked, other, sided) == {"kind": False, "colour": False, "view": False, "number": False}
    assert agreement(ToySpec("car"), CAR, sided) == {"kind": True, "colour": None, "view": None, "number": True}


def test_sides_that_nobody_can_tell_are_not_judged():
    assert agreement(ToySpec("lamp", view="back"), Verdict("lamp", "red", "side", 1, 1.0), {"car"})["view"] is None


def test_nothing_is_right_without_a_whole_toy():
    broken = dataclasses.replace(CAR, kind=None)
    assert set(agreement(ToySpec("car", "red", view="side"), broken, {"car"}).values()) == {False}
    assert described(broken) == "no whole toy"
    assert described(CAR) == "a red car, side view"


def test_captions_outside_the_grammar():
    assert wanted("a red car, side view") == ToySpec("car", "red", view="side")
    assert wanted("car red a") is None
    with pytest.raises(InvalidInput) as caught:
        world_scene("car red a", 0)
    assert caught.value.field == "prompt"


@pytest.mark.parametrize("seed", range(6))
def test_the_world_shows_what_is_said(seed: int):
    scene = world_scene("two teal ducks, back view, on snow under a pale sky", seed)
    assert (scene.kind, scene.colour, scene.number, scene.camera.view) == ("duck", "teal", 2, "back")
    assert (scene.ground, scene.sky) == ("snow", "pale")


def test_people_have_layers_too():
    scene = world_scene("a person in teal with glasses, front view", 3)
    assert scene.truth.shirt == "teal"
    assert "glasses" in scene.truth.worn
    assert scene.truth.view == "front"
    strip = layers(scene, 48)
    assert strip.shape == (48, 240, 3)
    assert all(part[24, 24].any() for part in np.split(strip, 5, axis=1))
    mixed = pictures_of([scene, world_scene("a red car", 3)], 32)
    assert mixed.shape == (2, 32, 32, 3)
    assert np.array_equal(mixed[1], pictures_of([world_scene("a red car", 3)], 32)[0])


def test_layers_are_true():
    """A ball of snow from the front: nearest in its middle, facing us there, black off the toy."""
    side = 96
    strip = layers(Scene("snowman", "red", camera=Camera(theta=math.pi / 2, phi=0.0)), side)
    assert strip.shape == (side, 5 * side, 3)
    render, depth, normal, place, paints = np.split(strip, 5, axis=1)
    assert not depth[2, 2].any()
    assert not paints[2, 2].any()
    assert render[2, 2].any()
    body = (round(side * 0.66), side // 2)  # on the lowest ball, straight ahead
    assert depth[body].min() > 200
    assert normal[body][2] > 225  # towards the camera, +z
    assert abs(int(normal[body][0]) - 128) < 24
    assert abs(int(place[body][0]) - 128) < 8  # in the middle of the toy, x = 0
    assert np.allclose(paints[body], np.array(metrics.PAINTS_SHOWN[WHITE]) * 255, atol=1)  # white


def test_features_are_means_over_cells():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    found = small(picture).reshape(16, 16, 3)
    assert found[3, 5] == pytest.approx(picture[0, 12:16, 20:24].mean((0, 1)) / 255, abs=1e-6)


def test_a_training_picture_finds_itself(small_folders: dict[str, str]):
    index = TrainingIndex.load(Path(small_folders["index"]))
    for seed in TRAINED_ON[::24]:
        picture = pictures_of([lesson(seed)], 64)[0]
        found = nearest(picture, index, 3)
        assert found[0].seed == seed
        assert found[0].distance == pytest.approx(0, abs=0.5)  # a batch of another kind rounds differently
        assert found[0].distance <= found[1].distance <= found[2].distance


def test_the_nearest_is_the_nearest_of_all(small_folders: dict[str, str]):
    """Candidates from components miss nothing that a search over all pixels finds."""
    index = TrainingIndex.load(Path(small_folders["index"]))
    pool = pictures_of([lesson(seed) for seed in TRAINED_ON], 64).astype(float)
    for seed in range(4):
        picture = pictures_of([sample_scene(seed)], 64)[0]
        apart = np.sqrt(np.square(pool - picture).mean((1, 2, 3)))
        (found,) = nearest(picture, index, 1)
        assert found.seed == TRAINED_ON[int(apart.argmin())]
        assert found.distance == pytest.approx(apart.min(), abs=0.5)


def test_pictures_in_a_row():
    pictures = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 20)]
    found = row(pictures, 3, gap=2)
    assert found.shape == (12, 26, 3)
    assert (found[:, :12] == 10).all()
    assert (found[:, 12:14] == 255).all()
    assert (found[:, 14:] == 20).all()
