"""Parameters before any model is loaded: refusals with field and remedy, settings of each model, estimates, words."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import engines
from engines.shared.prompt import length_notes, unknown_words, word_notes
from engines.ultraimage import estimate as cost
from engines.ultraimage import presets
from engines.ultraimage.presets import METHODS, MODELS
from engines.ultraimage.spec import METRICS, PRESETS, SPEC, UltraImageParams, job_of, target_size
from studio.contract import DeviceFacts
from studio.errors import InvalidInput

GB = 2**30


def params(**changes: Any) -> UltraImageParams:
    return UltraImageParams(**{"prompt": "a red ring", **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": "a red\x00ring"}, "prompt"),
        ({"prompt": "a red \x1b[31mring"}, "prompt"),
        ({"prompt": "a \ud800 ring"}, "prompt"),
        ({"negative_prompt": "y" * 100_000}, "negative_prompt"),
        ({"prompt_high": "a blue disc"}, "prompt_high"),
        ({"prompt_high": "\x07", "scenario": "guided_view"}, "prompt_high"),
        ({"methods": ()}, "methods"),
        ({"methods": ("direct", "direct")}, "methods"),
        ({"lambda_min": 1.4, "lambda_max": 1.2}, "lambda_min"),
        ({"width": 192}, "height"),
        ({"height": 192}, "width"),
        ({"width": 192, "height": 192, "scale": 2.0}, "scale"),
        ({"width": 100, "height": 192}, "width"),
        ({"width": 192, "height": 8}, "height"),
        ({"model": "flux", "scale": 8.0, "width": None}, None),
        ({"model": "qwen", "scale": 8.0}, "scale"),
        ({"scenario": "guided_view", "scale": 1.0}, "scale"),
        ({"scenario": "guided_resolution", "width": 96, "height": 64}, "width"),
        ({"indices": (14,)}, "indices"),
        ({"indices": (-1,)}, "indices"),
    ],
)
def test_runs_that_cannot_work_are_refused_at_their_field(changes: dict[str, Any], field: str | None):
    chosen = params(**changes)
    if field is None:
        SPEC.validate(chosen)
        return
    with pytest.raises(InvalidInput) as caught:
        SPEC.validate(chosen)
    assert caught.value.field == field
    assert caught.value.message.endswith(".")
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"scale": 99}, {"width": 10**6}, {"model": "no"}, {"colour": "red"}]
)
def test_values_out_of_range_never_become_parameters(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        params(**changes)


def test_every_field_says_what_it_is():
    for name, field in UltraImageParams.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_that_are_not_given_are_the_models_and_are_kept():
    assert params(model="flux").steps == 30
    assert params(model="qwen").correction == "interpolate"
    assert params(model="qwen").shift is None
    assert params(model="flux", steps=9).steps == 9
    for model in MODELS:
        chosen = params(model=model)
        assert UltraImageParams(**chosen.model_dump()) == chosen
        assert UltraImageParams(**json.loads(chosen.model_dump_json())) == chosen
    declared = UltraImageParams.model_fields
    assert all(declared[name].default == value for name, value in presets.POCKET.settings.items())


def test_presets_are_valid():
    for values in PRESETS.values():
        chosen = UltraImageParams(**{"prompt": "a", **values})
        SPEC.validate(chosen)


def test_sizes():
    assert target_size(params()) == (192, 192)
    assert target_size(params(scale=3)) == (288, 288)
    assert target_size(params(width=240, height=96)) == (240, 96)
    assert target_size(params(model="flux", scale=2)) == (2048, 2048)


def test_estimates_grow_with_what_is_asked():
    facts = DeviceFacts()
    base = SPEC.estimate(params(), facts)
    for more in (
        {"scale": 3},
        {"steps": 40},
        {"methods": ("ultraimage", "direct", "pi")},
        {"scenario": "guided_view"},
    ):
        bigger = SPEC.estimate(params(**more), facts)
        assert bigger.work > base.work
        assert bigger.seconds > base.seconds
        assert bigger.memory_bytes >= base.memory_bytes
    assert SPEC.estimate(params(guidance=1), facts).work < base.work
    timed = SPEC.estimate(params(), replace(facts, speed=base.work))
    assert timed.seconds == pytest.approx(1.0)


def test_the_published_sizes_fit_where_the_method_says():
    """30 GB for FLUX.1 at 3600 px with text encoders off the device, 48 GB for Qwen-Image at 4096 px."""
    flux = job_of(params(model="flux", width=3600, height=3600))
    assert cost.memory(flux, "thrifty") < 36 * GB
    qwen = job_of(params(model="qwen", width=4096, height=4096))
    assert cost.memory(qwen, "thrifty") < 56 * GB
    sizes = [cost.memory(flux, plan) for plan in SPEC.plans]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("shape", [{"width": 4096, "height": 2048}, {"scale": 6}])
def test_too_large_is_refused_with_the_largest_that_fits(shape: dict[str, Any]):
    card = DeviceFacts("cuda", "a card", 36 * GB, 36 * GB)
    with pytest.raises(InvalidInput) as caught:
        SPEC.estimate(params(model="flux", **{k: v * 2 if k != "scale" else v for k, v in shape.items()}), card)
    words = caught.value.remedy.rstrip(".").split()
    width, height = int(words[-4]), int(words[-2])
    largest = params(model="flux", width=width, height=height)
    assert SPEC.estimate(largest, card).memory_bytes <= 36 * GB
    with pytest.raises(InvalidInput, match="smaller model"):
        SPEC.estimate(params(model="flux", scale=1), DeviceFacts(memory_total=4 * GB))


def test_words_the_model_does_not_know(small: Path):
    model = MODELS["pocket"]
    assert unknown_words("A red Dragon, under a pale sky!", model) == ["dragon"]
    assert unknown_words("anything", MODELS["flux"]) == []
    assert "dragon" in SPEC.estimate(params(prompt="a red dragon"), DeviceFacts()).note
    assert any("reads the first 18" in note for note in length_notes("red " * 19, model, model.text_tokens))
    fine = "a red ring under a pale sky"
    assert not word_notes(fine, model) + length_notes(fine, model, model.text_tokens)


def test_dype_shows_its_licence_note():
    assert "patent" in SPEC.estimate(params(methods=("dype",)), DeviceFacts()).note
    assert "patent" not in SPEC.estimate(params(), DeviceFacts()).note
    assert METHODS["dype"].note


def test_metrics_are_explained():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.help.endswith("."), name


def test_the_spec_needs_no_torch():
    code = "import sys, engines; engines.load_spec('ultraimage'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_engines_are_found_by_name():
    assert engines.load_spec("ultraimage") is SPEC
    assert callable(engines.load_run("ultraimage"))
    with pytest.raises(KeyError, match="nothing"):
        engines.load_spec("nothing")
