"""Parameters before any model is loaded: refusals with field and remedy, strengths of the tables, costs, words."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engines.shared.prompt import unknown_words, word_notes
from engines.ultravico import estimate as cost
from engines.ultravico import presets
from engines.ultravico.presets import METHODS, MODELS
from engines.ultravico.spec import (
    METRICS,
    PRESETS,
    SPEC,
    DecaySettings,
    UltraVicoParams,
    decay_of,
    job_of,
    length_of,
    size_of,
)
from studio.contract import DeviceFacts
from studio.errors import InvalidInput

GB = 2**30


def params(**changes: Any) -> UltraVicoParams:
    return UltraVicoParams(**{"prompt": "a red ball", **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": "a red\x00ball"}, "prompt"),
        ({"negative_prompt": "\x1b[31m"}, "negative_prompt"),
        ({"methods": ()}, "methods"),
        ({"methods": ("direct", "direct")}, "methods"),
        ({"ratio": 2.0, "frames": 93}, "ratio"),
        ({"frames": 94}, "frames"),
        ({"frames": 1}, "frames"),
        ({"frames": 41}, "frames"),
        ({"frames": 401}, "frames"),
        ({"width": 60}, "width"),
        ({"height": 8}, "height"),
        ({"model": "wan", "width": 840}, "width"),
        ({"model": "wan_image"}, "image"),
        ({"image": {"sha256": "ab" * 32}}, "image"),
        ({"alpha": 0.8}, "alpha"),
        ({"beta": 0.8}, "beta"),
        ({"gamma": 2.0}, "gamma"),
        ({"period": 20.0}, "period"),
        ({"strength": "custom", "alpha": 0.5, "beta": 0.5}, "beta"),
        ({"strength": "custom", "alpha": 0.5, "gamma": 2.0}, "gamma"),
        ({"strength": "custom", "model": "wan", "beta": 0.5, "gamma": 1.0}, "period"),
        ({"strength": "custom", "model": "wan", "beta": 0.5, "period": 9.0}, "gamma"),
        ({"profile": "linear"}, "far"),
        ({"far": 0.5}, "far"),
        ({"model": "cogvideox", "shift": 3.0}, "shift"),
        ({"riflex_k": 13}, "riflex_k"),
        ({"model": "hunyuan", "riflex_k": 9}, "riflex_k"),
    ],
)
def test_runs_that_cannot_work_are_refused_at_their_field(changes: dict[str, Any], field: str):
    with pytest.raises(InvalidInput) as caught:
        SPEC.validate(params(**changes))
    assert caught.value.field == field
    assert caught.value.message.endswith(".")
    assert caught.value.remedy.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [{"ratio": 0.9}, {"ratio": 8.5}, {"frames": 0}, {"steps": 0}, {"fps": 0}, {"model": "no"}, {"colour": "red"}],
)
def test_values_out_of_range_never_become_parameters(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        params(**changes)


@pytest.mark.parametrize("method", [name for name, about in METHODS.items() if about.position != "pe"])
def test_positions_that_do_not_rotate_cannot_be_stretched(method: str):
    with pytest.raises(InvalidInput, match="fixed positions") as caught:
        SPEC.validate(params(model="cogvideox_small", methods=("ultravico", method)))
    assert caught.value.field == "methods"
    assert METHODS[method].title in caught.value.message
    SPEC.validate(params(model="cogvideox_small", methods=("ultravico", "direct")))


def test_every_field_says_what_it_is():
    for name, field in UltraVicoParams.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_that_are_not_given_are_the_models_and_are_kept():
    assert params(model="wan").steps == 50
    assert "static" in params(model="wan").negative_prompt
    assert params(model="hunyuan").guidance == 6
    assert params(model="wan", steps=9).steps == 9
    for model in MODELS:
        chosen = params(model=model)
        assert UltraVicoParams(**chosen.model_dump()) == chosen
        assert UltraVicoParams(**json.loads(chosen.model_dump_json())) == chosen


@pytest.mark.parametrize(
    ("model", "ratio", "expected"),
    [
        ("wan", 2.0, DecaySettings(0.9, None, None, None)),
        ("wan", 4.0, DecaySettings(0.9, None, None, None)),
        ("hunyuan", 2.0, DecaySettings(0.95, 0.6, 4, 50)),
        ("hunyuan", 3.0, DecaySettings(0.9, 0.6, 4, 50)),
        ("hunyuan", 4.0, DecaySettings(0.9, 0.8, 4, 50)),
        ("hunyuan", 5.0, DecaySettings(0.9, 0.8, 4, 50)),
        ("cogvideox", 3.0, DecaySettings(0.9, 0.6, 1, 20)),
        ("cogvideox", 4.0, DecaySettings(0.85, 0.6, 1, 20)),
    ],
)
def test_the_standard_strength_is_the_published_one(model: str, ratio: float, expected: DecaySettings):
    assert decay_of(params(model=model, ratio=ratio)) == expected


def test_strengths_are_ordered_and_custom_is_read():
    for model in MODELS:
        alphas = [decay_of(params(model=model, strength=s)).alpha for s in ("subtle", "standard", "strong")]
        assert alphas == sorted(alphas, reverse=True)
        assert len(set(alphas)) == 3
    assert [decay_of(params(model="wan", strength=s)).alpha for s in ("subtle", "standard", "strong")] == [
        0.95,
        0.9,
        0.85,
    ]
    own = params(model="hunyuan", strength="custom", alpha=0.7, beta=0.4)
    assert decay_of(own) == DecaySettings(0.7, 0.4, 4, 50)
    assert decay_of(params(model="hunyuan", strength="custom")) == DecaySettings(0.95, None, None, None)


@pytest.mark.parametrize(
    ("changes", "latent", "frames"),
    [
        ({}, 24, 93),
        ({"ratio": 1.0}, 12, 45),
        ({"ratio": 1.5}, 18, 69),
        ({"ratio": 1.26}, 15, 57),
        ({"frames": 93}, 24, 93),
        ({"model": "wan", "ratio": 3.0}, 63, 249),
        ({"model": "hunyuan", "ratio": 4.0}, 132, 525),
        ({"model": "cogvideox", "ratio": 3.0}, 39, 153),
    ],
)
def test_any_ratio_is_a_whole_number_of_latent_frames(changes: dict[str, Any], latent: int, frames: int):
    found = length_of(params(**changes))
    assert (found.latent_frames, found.frames) == (latent, frames)
    SPEC.validate(params(**changes))


def test_presets_are_usable():
    for name, values in PRESETS.items():
        chosen = UltraVicoParams(**{"prompt": "a red ball", **values})
        SPEC.validate(chosen)
        assert size_of(chosen) == (MODELS[chosen.model].width, MODELS[chosen.model].height), name


def test_the_published_sequence_lengths():
    tokens = {("wan", 3.0): 98_280, ("hunyuan", 2.0): 134_896, ("cogvideox", 3.0): 52_876}
    for (model, ratio), expected in tokens.items():
        assert job_of(params(model=model, ratio=ratio)).tokens == expected


def test_longer_costs_more_and_thriftier_plans_need_less():
    short, long = (SPEC.estimate(params(ratio=ratio), DeviceFacts()) for ratio in (1.0, 4.0))
    assert long.seconds > 4 * short.seconds
    assert long.memory_bytes > short.memory_bytes
    for model in MODELS:
        for kind in ("cpu", "cuda"):
            needs = [cost.memory(job_of(params(model=model)), plan, kind) for plan in cost.PLANS]
            assert needs == sorted(needs, reverse=True)
    fast = SPEC.estimate(params(), DeviceFacts(speed=10.0)).seconds
    assert fast < SPEC.estimate(params(), DeviceFacts(speed=1.0)).seconds / 9


def test_what_does_not_fit_names_the_longest_that_does():
    facts = DeviceFacts("cuda", "A card", 24 * GB, 24 * GB)
    with pytest.raises(InvalidInput) as caught:
        SPEC.estimate(params(model="hunyuan", ratio=4.0), facts)
    assert caught.value.field == "model"
    wan = params(model="wan", ratio=3.0)
    assert SPEC.estimate(wan, facts).plan in cost.PLANS
    big = DeviceFacts("cuda", "A card", 120 * GB, 120 * GB)
    with pytest.raises(InvalidInput, match="need") as caught:
        SPEC.estimate(params(model="wan_large", ratio=8.0, width=2048, height=2048), big)
    assert caught.value.field == "ratio"
    fits = cost.longest_fitting(
        job_of(params(model="wan_large", ratio=8.0, width=2048, height=2048)), 120 * GB * 0.92, "cuda"
    )
    assert str(4 * (fits - 1) + 1) in caught.value.remedy


def test_notes_say_how_long_and_what_is_untested():
    note = SPEC.estimate(params(ratio=2.0, methods=("riflex_decay",)), DeviceFacts()).note
    assert "93 frames, 5.8 s at 16 frames a second." in note
    assert "not studied" in note
    assert "nobody has reported" in SPEC.estimate(params(ratio=5.0), DeviceFacts()).note
    assert "the model as it is" in SPEC.estimate(params(ratio=1.04), DeviceFacts()).note
    large = DeviceFacts("cuda", "Many cards", 600 * GB, 600 * GB)
    assert "Nobody" in SPEC.estimate(params(model="cogvideox_small", methods=("ultravico",)), large).note
    assert "nobody" not in SPEC.estimate(params(model="hunyuan", ratio=5.0), large).note, "the paper does"
    assert "built in" in SPEC.estimate(params(model="hunyuan", negative_prompt="blurred"), large).note


def test_words_are_read_from_the_tokenizer(small_folder: Path, monkeypatch: pytest.MonkeyPatch):
    model = replace(presets.POCKET, repo=str(small_folder))
    monkeypatch.setitem(presets.MODELS, "pocket", model)
    assert unknown_words("A red Dragon, over grey!", model) == ["dragon"]
    assert unknown_words("anything", MODELS["wan"]) == []
    assert "dragon" in SPEC.estimate(params(prompt="a red dragon"), DeviceFacts()).note
    assert not word_notes("a red ball", model)


def test_metrics_are_explained():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.help.endswith("."), name


def test_the_spec_needs_no_torch():
    code = "import sys; from engines.ultravico.spec import SPEC; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
