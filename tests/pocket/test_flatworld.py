"""The flat world: deterministic, resolution independent, and true to its captions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocket.flatworld import GAP, REACH, caption, layout, parse, render, sample_scene, speak, truth
from pocket.grammar import COLOURS, GROUNDS, KINDS, SIZES, SKIES, WORDS, ObjectSpec, SceneSpec, unknown_words, write

OBJECTS = st.builds(
    ObjectSpec,
    st.sampled_from(KINDS),
    st.sampled_from(COLOURS),
    st.none() | st.sampled_from(SIZES),
)
SPECS = st.builds(
    SceneSpec,
    st.lists(OBJECTS, min_size=1, max_size=2).map(tuple),
    st.none() | st.sampled_from(SKIES),
    st.none() | st.sampled_from(GROUNDS),
)


@given(SPECS)
def test_parse_reads_what_write_wrote(spec: SceneSpec):
    assert parse(write(spec)) == spec
    assert parse(write(spec)).unknown == ()


@settings(max_examples=50)
@given(SPECS, st.integers(0, 2**32))
def test_a_scene_fulfils_its_spec(spec: SceneSpec, seed: int):
    scene = sample_scene(seed, spec)
    for wanted, shape in zip(spec.objects, scene.shapes, strict=True):
        assert (shape.kind, shape.colour) == (wanted.kind, wanted.colour)
        assert wanted.size in (None, shape.size)
    assert spec.sky in (None, scene.sky)
    assert spec.ground in (None, scene.ground)
    assert parse(caption(scene)) == spec


@given(st.integers(0, 2**32))
def test_objects_lie_inside_and_do_not_touch(seed: int):
    shapes = sample_scene(seed, two=1.0).shapes
    assert len(shapes) == 2
    for shape in shapes:
        assert REACH * shape.radius <= min(shape.u, shape.v, 1 - shape.u, 1 - shape.v)
    a, b = shapes
    assert np.hypot(a.u - b.u, a.v - b.v) >= REACH * (a.radius + b.radius) + GAP


def test_the_example_prompt_is_in_the_grammar():
    spec = parse("a red ring under a pale sky")
    assert spec == SceneSpec((ObjectSpec("ring", "red"),), "pale")
    assert spec.count == 1


def test_unknown_words_are_reported_once_and_in_order():
    text = "A RED zebra, and a zebra over sandy ground with hats."
    assert unknown_words(text) == ["zebra", "with", "hats"]
    assert parse(text).unknown == ("zebra", "with", "hats")
    assert parse("nothing here").count is None


def test_the_same_seed_gives_the_same_bytes():
    assert sample_scene(5) == sample_scene(5)
    assert (render(sample_scene(5)) == render(sample_scene(5))).all()
    assert not (render(sample_scene(5)) == render(sample_scene(6))).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_larger_render_is_the_same_picture(seed: int):
    scene = sample_scene(seed)
    small = render(scene, 96).astype(float)
    large = np.asarray(Image.fromarray(render(scene, 384)).resize((96, 96), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - large).mean() < 1.5  # levels of 255


def test_any_width_and_height():
    assert render(sample_scene(1), 40, 100).shape == (100, 40, 3)
    assert render(sample_scene(1), 131, 77).shape == (77, 131, 3)


def test_sky_and_ground_are_pale_and_objects_are_not():
    for seed in range(40):
        picture = render(sample_scene(seed, two=0.0), 192).astype(float)
        saturation = (picture.max(-1) - picture.min(-1)) / picture.max(-1)
        between = (saturation > 0.32) & (saturation < 0.68)
        assert between.mean() < 0.02  # only the anti-aliased outline
        assert (saturation > 0.68).mean() > 0.005


def test_speaking_leaves_out_only_optional_words():
    rng = np.random.default_rng(0)
    whole = truth(sample_scene(3, two=1.0))
    spoken = [speak(whole, rng) for _ in range(50)]
    assert len({write(spec) for spec in spoken}) > 5
    for spec in spoken:
        assert [(o.kind, o.colour) for o in spec.objects] == [(o.kind, o.colour) for o in whole.objects]


def test_every_word_is_used_once():
    assert len(set(WORDS)) == len(WORDS)


def test_the_layout_tells_what_is_where():
    for seed in range(20):
        scene = sample_scene(seed)
        told = layout(scene)
        kinds, colours, near = told[1:7], told[7:13], told[13:]
        assert told.shape == (17, 12, 12)
        assert told[0].mean() == pytest.approx(scene.horizon, abs=0.02)
        assert np.allclose(kinds.sum(0), colours.sum(0))  # every object has one kind and one colour
        assert {KINDS[k] for k in np.flatnonzero(kinds.sum((1, 2)))} == {shape.kind for shape in scene.shapes}
        for shape in scene.shapes:
            row, column = int(shape.v * 12), int(shape.u * 12)
            across, down = (column + 0.5) / 12 - shape.u, (row + 0.5) / 12 - shape.v
            close = near[0, row, column]
            assert close > 0.8
            assert near[1, row, column] / close == pytest.approx(across / shape.radius, abs=0.05)
            assert near[2, row, column] / close == pytest.approx(down / shape.radius, abs=0.05)
