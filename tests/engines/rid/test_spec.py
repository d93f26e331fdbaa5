"""What is refused before anything runs, and what a run is said to cost."""

from __future__ import annotations

import pytest

from engines.rid.presets import MODELS, SURROGATES
from engines.rid.spec import MOST_FILES, SPEC, RidParams, estimate, validate
from engines.rid.thief import Way
from studio.contract import DeviceFacts, FileRef
from studio.errors import InvalidInput

PHOTO = FileRef(sha256="0" * 64, name="a.png")


def params(**values) -> RidParams:
    photos = (PHOTO,) * (4 if values.get("task") == "thief" else 1)
    return RidParams(**{"images": photos} | values)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"images": ()}, "images"),
        ({"images": (PHOTO,) * (MOST_FILES + 1)}, "images"),
        ({"model": "published", "budget": 7}, "budget"),
        ({"task": "thief", "images": (PHOTO,) * 3}, "images"),
        ({"task": "thief", "conditions": ()}, "conditions"),
        ({"task": "thief", "conditions": ("clean", "clean")}, "conditions"),
        ({"task": "thief", "conditions": ("rid", "random")}, "conditions"),
    ],
)
def test_what_cannot_work_is_refused_at_its_field(values: dict, field: str):
    with pytest.raises(InvalidInput) as caught:
        validate(params(**values))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("budget", [0, -1, 25, 0.5, 3.6, float("nan")])
def test_strengths_that_are_none_are_refused(budget: float):
    with pytest.raises(ValueError, match="budget"):
        params(budget=budget)


def test_settings_start_from_the_model():
    assert params().budget == MODELS["pocket"].settings["budget"]
    assert params(model="published").budget == 6
    assert params(model="published", budget=3).budget == 3


def test_a_budget_between_two_checkpoints_takes_the_larger():
    model = MODELS["published"]
    assert model.file_for(3.0) == (3.0, "ASDS-eps-6_255.bin")
    assert model.file_for(3.5) == (4.0, "ASDS-eps-8_255.bin")
    assert model.file_for(6.1) is None
    for preset in MODELS.values():
        assert max(preset.strengths.values()) == preset.largest
        for grey_levels, name in preset.files.items():
            if "_255" in name:
                assert f"eps-{round(2 * grey_levels)}_255" in name, "12/255 of [-1, 1] is six grey levels"


@pytest.mark.parametrize("name", SPEC.presets)
def test_every_preset_can_be_run(name: str):
    validate(params(**SPEC.presets[name]))


def test_every_way_of_stealing_is_described():
    for surrogate in SURROGATES.values():
        assert set(surrogate.ways) == {"full", "lora", "inversion"}
        assert all(Way(kind, **way).steps > 0 for kind, way in surrogate.ways.items())


def test_more_work_is_said_to_cost_more():
    facts = DeviceFacts()
    one, many = estimate(params(), facts), estimate(params(images=(PHOTO,) * 20), facts)
    assert many.seconds > one.seconds
    thief = params(task="thief", conditions=("clean", "rid"))
    assert estimate(thief, facts).seconds > one.seconds
    assert estimate(thief.model_copy(update={"thief_steps": 1000}), facts).seconds > estimate(thief, facts).seconds
    assert estimate(params(), DeviceFacts(speed=1e9)).seconds < one.seconds
    searched = [params(task="thief", conditions=("clean", name)) for name in ("photoguard", "pgd", "aspl")]
    works = [estimate(asked, facts).work for asked in (thief, *searched)]
    assert works == sorted(set(works))
    zipped = estimate(params(images=(FileRef(sha256="0" * 64, name="all.ZIP"),)), facts)
    assert "Archives" in zipped.note


def test_a_speed_measured_on_one_photo_holds_for_a_thief():
    one, thief = params(), params(task="thief")
    usual = estimate(thief, DeviceFacts()).seconds
    for took in (1.5, 3.0):  # most of it is getting ready
        measured = DeviceFacts(speed=estimate(one, DeviceFacts()).work / took)
        assert usual / 2 < estimate(thief, measured).seconds < 2 * usual


def test_a_device_without_room_is_told():
    with pytest.raises(InvalidInput, match="needs") as caught:
        estimate(params(model="published"), DeviceFacts(memory_total=2**28))
    assert caught.value.field == "model"


def test_a_thief_needs_room_for_all_that_it_trains():
    card = DeviceFacts(kind="cuda", memory_total=16 * 2**30)
    assert estimate(params(model="published"), card).memory_bytes < 2**32
    with pytest.raises(InvalidInput, match="needs"):
        estimate(params(model="published", task="thief"), card)
    needed = [
        estimate(params(task="thief", thief=thief), DeviceFacts()).memory_bytes
        for thief in ("full", "lora", "inversion")
    ]
    assert needed == sorted(needed, reverse=True)


def test_jobs_share_a_model_where_they_load_the_same_file():
    assert SPEC.model_key(params(budget=7)) == SPEC.model_key(params(budget=12))
    assert SPEC.model_key(params(budget=6)) != SPEC.model_key(params(budget=12))
