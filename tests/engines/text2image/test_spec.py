"""Parameters before any model is loaded: refusals with field and remedy, settings of each model, estimates, words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engines.shared.prompt import length_notes, unknown_words, vocabulary
from engines.text2image import presets
from engines.text2image.presets import MODELS, SAMPLERS
from engines.text2image.spec import METRICS, PRESETS, SPEC, Text2ImageParams, seeds_of
from pocket.wording import vocabulary as world_words
from studio.contract import MAX_SEED, DeviceFacts
from studio.errors import InvalidInput


def params(**changes: Any) -> Text2ImageParams:
    return Text2ImageParams(**{"prompt": "a red car", **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": "a " * 50_000}, "prompt"),
        ({"prompt": "a red\x00car"}, "prompt"),
        ({"prompt": "a \ud800 car"}, "prompt"),
        ({"prompt": "a red dragon"}, "prompt"),
        ({"negative_prompt": "a dragon"}, "negative_prompt"),
        ({"methods": ()}, "methods"),
        ({"methods": ("model", "model")}, "methods"),
        ({"model": "sd15", "nearest": True}, "nearest"),
        ({"seed": MAX_SEED, "count": 2}, "seed"),
    ],
)
def test_runs_that_cannot_work_are_refused_at_their_field(small: Path, changes: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as caught:
        SPEC.validate(params(**changes))
    assert caught.value.field == field
    assert caught.value.message.endswith(".")
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"guidance": 1000},
        {"guidance": 0.5},
        {"count": 17},
        {"count": 0},
        {"sampler": "euler"},
        {"model": "no"},
        {"width": 64},
    ],
)
def test_values_out_of_range_never_become_parameters(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        params(**changes)


def test_unknown_words_are_named_with_what_is_close(small: Path):
    with pytest.raises(InvalidInput) as caught:
        SPEC.validate(params(prompt="a redd kar, with wings"))
    assert "redd, kar, wings" in caught.value.message
    assert "red" in caught.value.remedy.split("?")[0]
    assert "car" in caught.value.remedy.split("?")[0]


def test_the_words_are_the_worlds(small: Path):
    assert vocabulary(MODELS["pocket"]) == set(world_words())
    assert unknown_words("A RED car, side view", MODELS["pocket"]) == []
    assert unknown_words("anything at all", MODELS["sd15"]) == []
    assert length_notes("red " * 23, MODELS["pocket"], MODELS["pocket"].text_tokens)
    assert not length_notes("red " * 22, MODELS["pocket"], MODELS["pocket"].text_tokens)


def test_every_field_says_what_it_is():
    for name, field in Text2ImageParams.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_that_are_not_given_are_the_models_and_are_kept():
    assert params(model="sd15").methods == ("model",)
    assert params(model="sd15").steps == 25
    assert params(model="sd15", steps=9).steps == 9
    for model in MODELS:
        chosen = params(model=model)
        assert Text2ImageParams(**chosen.model_dump()) == chosen
        assert Text2ImageParams(**json.loads(chosen.model_dump_json())) == chosen
    declared = Text2ImageParams.model_fields
    assert all(declared[name].default == value for name, value in presets.POCKET.settings.items())


def test_presets_are_valid(small: Path):
    for values in PRESETS.values():
        SPEC.validate(Text2ImageParams(**values))


def test_every_picture_has_its_seed():
    assert list(seeds_of(params(seed=5, count=3))) == [5, 6, 7]


def test_estimates_grow_with_what_is_asked(small: Path):
    facts = DeviceFacts()
    base = SPEC.estimate(params(), facts)
    for more in ({"steps": 80}, {"count": 4}):
        bigger = SPEC.estimate(params(**more), facts)
        assert bigger.work > base.work
        assert bigger.seconds > base.seconds
    for less in ({"guidance": 1}, {"methods": ("model",)}, {"nearest": False}, {"layers": False}):
        assert SPEC.estimate(params(**less), facts).work < base.work
    timed = SPEC.estimate(params(), DeviceFacts(speed=base.work))
    assert timed.seconds == pytest.approx(1.0)


def test_what_does_not_fit_is_refused(small: Path):
    with pytest.raises(InvalidInput) as caught:
        SPEC.estimate(params(model="sd15"), DeviceFacts(memory_total=2 * 2**30))
    assert caught.value.field == "model"
    assert SPEC.estimate(params(), DeviceFacts(memory_total=2 * 2**30)).memory_bytes < 2**30


def test_published_models_are_pinned():
    for model in MODELS.values():
        if not model.local:
            assert len(model.revision) == 40
            assert model.fallbacks


def test_what_is_offered_is_explained():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.help.endswith("."), name
    for name, sampler in SAMPLERS.items():
        assert sampler.help.endswith("."), name


def test_the_spec_needs_no_torch():
    code = "import sys, engines.text2image.spec; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
