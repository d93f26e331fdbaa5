"""Parameters before any model is loaded: refusals with field and remedy, settings of models, estimates, presets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engines.prolificdreamer import estimate as cost
from engines.prolificdreamer.configs import times_of
from engines.prolificdreamer.params import ProlificDreamerParams, knots
from engines.prolificdreamer.presets import METHODS, MODELS
from engines.prolificdreamer.spec import METRICS, PRESETS, SPEC, known_words
from studio.contract import DeviceFacts
from studio.errors import InvalidInput

GB = 2**30


def params(**changes: Any) -> ProlificDreamerParams:
    return ProlificDreamerParams(**{"prompt": "a red car", **changes})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": "a red\x00car"}, "prompt"),
        ({"prompt": "a glorious dragon"}, "prompt"),
        ({"negative_prompt": "y" * 100_000}, "negative_prompt"),
        ({"methods": ()}, "methods"),
        ({"methods": ("vsd", "vsd")}, "methods"),
        ({"methods": ("vsd", "ancestral")}, "methods"),
        ({"particles": 5}, "particles"),
        ({"t_min": 0.6, "t_max": 0.5}, "t_min"),
        ({"t_min": 0.5, "t_max_late": 0.4}, "t_max_late"),
        ({"anneal_step": 100, "time_mode": "sqrt"}, "anneal_step"),
        ({"anneal_step": 300}, "anneal_step"),
        ({"task": "playground", "anneal_step": 300, "playground_iterations": 200}, "anneal_step"),
        ({"t_min": 0.0, "t_max": 0.0004}, "t_max"),
        ({"perp_neg": True, "view_words": False}, "perp_neg"),
        ({"suppress_face": True, "view_words": False}, "suppress_face"),
        ({"task": "playground", "perp_neg": True}, "perp_neg"),
        ({"task": "playground", "start_from": {"sha256": "0" * 64}}, "start_from"),
        ({"task": "toy", "start_from": {"sha256": "0" * 64}}, "start_from"),
        ({"phi_every": 60, "iterations": 60}, "phi_every"),
        ({"estimator": "lora_separate"}, "estimator"),
        ({"radius": (3.4, 3.0)}, "radius"),
        ({"fovy": (0.0, 40.0)}, "fovy"),
        ({"theta": (0.0, 190.0)}, "theta"),
        ({"geometry_fovy": (60.0, 30.0)}, "geometry_fovy"),
        ({"backdrop": (0.5, 0.5, 2.0)}, "backdrop"),
        ({"sphere_share": 0.7, "overhead_share": 0.5}, "overhead_share"),
        ({"base_resolution": 48, "finest_resolution": 48}, "finest_resolution"),
        ({"radius": (0.1, 1.0)}, "radius"),
        ({"start": "scene", "stages": ("nerf",)}, "radius"),
        ({"start": "centred", "stages": ("nerf",)}, "radius"),
        ({"start": "centred", "stages": ("nerf",), "bound": 3.0, "radius": (1.0, 2.6)}, "radius"),
        ({"entropy": (1.0, 2.0)}, "entropy"),
        ({"entropy": (-5.0,)}, "entropy"),
        ({"smoothness": (1.0, -1.0, 50.0)}, "smoothness"),
        ({"opaque": (10.0, 0.0, 1.0, 20.0, 1e30, 30.0)}, "opaque"),
        ({"opaque": (0.0, 0.0, 1000.0, 10.0, 5.0, 3.0)}, "opaque"),
        ({"sparsity": (1.0, 2.0, 0.0)}, "sparsity"),
        ({"sparsity": (1.0, 2.0, 0.4)}, "sparsity"),
        ({"opaque": (10.0, 0.0, 1000.0, 10.4)}, "opaque"),
        ({"stages": ("geometry",)}, "stages"),
        ({"stages": ("nerf", "nerf")}, "stages"),
        ({"start": "scene", "stages": ("nerf", "geometry")}, "stages"),
        ({"formats": ()}, "formats"),
        ({"start_from": {"sha256": "0" * 64}}, "methods"),
        ({"grow_step": 400}, "grow_step"),
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
    [{"iterations": 0}, {"guidance": -1}, {"particles": 99}, {"model": "no"}, {"colour": "red"}, {"radius": (1.0,)}],
)
def test_values_out_of_range_never_become_parameters(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        params(**changes)


def test_the_toy_needs_nothing(small: Path):
    SPEC.validate(params(task="toy", prompt="", methods=()))
    assert SPEC.estimate(params(task="toy", prompt=""), DeviceFacts()).seconds < 60
    assert SPEC.model_key(params(task="toy")) == "none"


def test_annealing_after_the_end_may_be_switched_off(small: Path):
    SPEC.validate(params(anneal=False, anneal_step=10**6))


@pytest.mark.parametrize("mode", ["step", "ramp", "sqrt"])
def test_without_annealing_the_largest_time_stays(mode: str):
    chosen = params(anneal=False, anneal_step=100, time_mode=mode)
    SPEC.validate(chosen)
    for step in (0, 150, 299):
        assert times_of(chosen, "nerf").bounds(step, 1000) == (20, 980)


def test_every_field_says_what_it_is():
    for name, field in ProlificDreamerParams.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_that_are_not_given_are_the_models_and_are_kept():
    assert params().radius == (3.0, 3.4)
    assert params(model="full").radius == (1.0, 1.5)
    assert params(model="full").estimator == "lora_separate"
    assert params(model="sd15").estimator == "lora"
    assert params(radius=(2.0, 2.5)).radius == (2.0, 2.5)
    for model in MODELS:
        chosen = params(model=model)
        assert ProlificDreamerParams(**chosen.model_dump()) == chosen
        assert ProlificDreamerParams(**json.loads(chosen.model_dump_json())) == chosen


def test_presets_are_valid_and_the_paper_is_the_papers(small: Path):
    assert {"preview", "quality", "paper", "scene"} <= set(PRESETS)
    for values in PRESETS.values():
        SPEC.validate(ProlificDreamerParams(**values))
    paper = ProlificDreamerParams(**PRESETS["paper"])
    assert (paper.iterations, paper.guidance, paper.geometry_guidance, paper.anneal_step) == (25_000, 7.5, 100, 5000)
    assert (paper.levels, paper.finest_resolution, paper.log2_table, paper.render_size) == (16, 2048, 19, 512)
    assert (paper.phi_rate, paper.rank, paper.phi_warmup, paper.camera_drop) == (1e-4, 4, 500, 0.1)


def test_schedules_have_whole_steps():
    assert knots((10.0,)) == 10.0
    assert knots((1.0, 2.0, 300.0)) == (1.0, 2.0, 300)
    assert all(isinstance(knots((5.0, 1.0, 2.0, 10.0, 3.0, 20.0))[index], int) for index in (0, 3, 5))


def test_estimates_grow_with_what_is_asked(small: Path):
    facts = DeviceFacts()
    base = SPEC.estimate(params(), facts)
    for more in (
        {"iterations": 600},
        {"particles": 2},
        {"views": 8},
        {"render_size": 128},
        {"stages": ("nerf", "geometry", "texture")},
        {"methods": ("vsd", "sds", "sds_50")},
        {"occupancy": 0},
    ):
        bigger = SPEC.estimate(params(**more), facts)
        assert bigger.work > base.work, more
        assert bigger.seconds > base.seconds
    assert SPEC.estimate(params(methods=("sds",)), facts).work < base.work / 2
    assert SPEC.estimate(params(), replace(facts, speed=base.work)).seconds == pytest.approx(1.0)
    wide = SPEC.estimate(params(render_size=512, render_size_early=512), facts)
    assert wide.memory_bytes == base.memory_bytes


def test_memory_plans_and_refusal(small: Path):
    paper = ProlificDreamerParams(**PRESETS["paper"])
    sizes = [cost.memory(paper, plan, "cuda") for plan in SPEC.plans]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 24 * GB
    with pytest.raises(InvalidInput, match="needs") as caught:
        SPEC.estimate(paper, DeviceFacts("cuda", "a card", 8 * GB, 8 * GB))
    assert caught.value.field == "model"


def test_words_the_model_knows(small: Path):
    assert "mug" in known_words("pocket")
    assert known_words("full") == []
    SPEC.validate(params(prompt="a glorious dragon", model="full"))


def test_notes(small: Path):
    assert "fronts" in SPEC.estimate(params(view_words=False), DeviceFacts()).note
    assert "mesh" in SPEC.estimate(params(start="scene", radius=(0.1, 0.4)), DeviceFacts()).note


def test_metrics_are_explained():
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.help.endswith("."), name
    assert all(method.help.endswith(".") for method in METHODS.values())


def test_the_spec_needs_no_torch():
    code = "import sys; from engines.prolificdreamer.spec import SPEC; print('torch' in sys.modules, SPEC.name)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False prolificdreamer"
