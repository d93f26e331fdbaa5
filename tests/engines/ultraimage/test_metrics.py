"""The metrics agree with the world at every size, and notice what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engines.ultraimage.metrics import (
    Recognition,
    count_horizons,
    count_objects,
    measure,
    recognised,
    seam_visibility,
    vividness,
)
from pocket.flatworld import caption, render, sample_scene

SEEDS = range(777_000, 777_060)


def pictures(count: int = 24, side: int = 96) -> list[np.ndarray]:
    return [render(sample_scene(seed), side) for seed in SEEDS[:count]]


@pytest.mark.parametrize(("width", "height"), [(96, 96), (192, 192), (288, 288), (384, 384), (200, 96), (96, 168)])
def test_true_pictures_are_counted_right(width: int, height: int):
    scenes = [sample_scene(seed) for seed in SEEDS]
    images = [render(scene, width, height) for scene in scenes]
    assert [count_objects(image) for image in images] == [len(scene.shapes) for scene in scenes]
    assert [count_horizons(image) for image in images] == [1] * len(scenes)


def test_a_tiled_picture_has_too_many_of_everything():
    for picture in pictures():
        tiled = np.tile(picture, (2, 2, 1))
        assert count_objects(tiled) == 4 * count_objects(picture)
        assert count_horizons(tiled) == 3


def test_a_washed_out_picture_has_nothing_in_it():
    for picture in pictures():
        grey = (picture * 0.25 + 110).astype(np.uint8)
        assert count_objects(grey) == 0
        assert count_horizons(grey) == 0
        assert vividness(grey) < 0.5 * vividness(picture) + 0.05


def test_specks_are_no_objects_and_stripes_no_horizons():
    picture = render(sample_scene(SEEDS[0], two=0.0))
    picture[5:7, 5:8] = (255, 0, 0)
    picture[10:12] = (110, 110, 110)
    assert count_objects(picture) == 1
    assert count_horizons(picture) == 1


def test_a_patch_grid_is_seen():
    smooth = np.asarray(Image.fromarray(pictures(1)[0]).resize((96, 96), Image.Resampling.BICUBIC))
    checks = (np.indices((96, 96)) // 8).sum(0) % 2 * 20
    assert seam_visibility(smooth) < 1.6
    assert seam_visibility((smooth // 2 + checks[..., None]).astype(np.uint8)) > 3


def test_shifting_by_less_than_a_patch_does_not_change_the_seams_of_a_true_picture():
    values = [seam_visibility(picture) for picture in pictures(24, 192)]
    assert 0.8 < np.mean(values) < 1.3


def test_measure_compares_with_the_prompt():
    scene = sample_scene(SEEDS[3], two=1.0)
    result = measure(render(scene), caption(scene))
    assert (result["objects"], result["expected_objects"], result["exact"], result["horizons"]) == (2, 2, True, 1)
    assert result["recognised"] is None
    assert measure(render(scene), "hello")["exact"] is None


def test_every_asked_object_needs_its_own_witness():
    ring, disc = Recognition("ring", "red", 0.9), Recognition("disc", "blue", 0.9)
    assert recognised("a red ring and a red ring", [ring, disc]) == 0.5
    assert recognised("a red ring and a blue disc", [disc, ring]) == 1.0
    assert recognised("a red ring", [Recognition(None, "red", 0.9)]) == 0.0


def test_measure_asks_the_judge_about_what_it_found():
    scene = sample_scene(SEEDS[3], two=0.0)
    shape = scene.shapes[0]
    seen = measure(render(scene), caption(scene), lambda image, found: [Recognition(shape.kind, shape.colour, 0.9)])
    assert seen["recognised"] == 1.0
    assert seen["seen"] == f"{shape.colour} {shape.kind}"
    lump = measure(render(scene), caption(scene), lambda image, found: [Recognition(None, shape.colour, 0.9)])
    assert lump["recognised"] == 0.0
    assert lump["seen"] == f"{shape.colour} thing of no known kind"
