"""The one way in: sentences at the right field, estimates by device, one job for one token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.errors import InvalidInput, LimitReached, NotFound
from studio.requests import _writable, device_facts, estimate, submit
from tests.studio.shop import Shop, open_shop

GIB = 2**30


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = open_shop(tmp_path, waiting_cap=2)
    yield shop
    shop.services.close()


def fault(shop: Shop, **values: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        submit(shop.services, "quick_engine", values, owner="anna")
    assert shop.services.jobs.list() == []
    return caught.value


@pytest.mark.parametrize(
    ("values", "field", "said", "remedy"),
    [
        ({"steps": 0}, "steps", "Steps cannot be 0.", "Choose a value from 1 to 1000."),
        ({"steps": "many"}, "steps", "Steps cannot be 'many'.", "Choose a value from 1 to 1000."),
        ({"steps": None}, "steps", "Steps cannot be None.", "Choose a value from 1 to 1000."),
        ({"seed": -1}, "seed", "Seed cannot be -1.", "Choose a value from 0 to 9223372036854775807."),
        ({"size": 1e9}, "size", "Size cannot be 1000000000.0.", "Choose a value from 1 to 256."),
        ({"hold_at": -2}, "hold_at", "Hold at cannot be -2.", "Choose a value of at least 0."),
        ({"fault": "fire"}, "fault", "Fault cannot be 'fire'.", "Input should be '', 'raise', "),
        ({"methods": ["magic"]}, "methods", "Methods cannot be 'magic'.", "Input should be 'method' or 'plain'."),
        ({"colour": "red"}, "colour", "There is no parameter 'colour'.", "The parameters are: seed, prompt, "),
        ({"prompt": "x" * 101}, "prompt", "The prompt is longer than 100 characters.", "Shorten it."),
        ({"prompt": "\ud800"}, "prompt", "Prompt has a broken character.", "Type that place again."),
        ({"prompt": 3}, "prompt", "Prompt cannot be 3.", "Input should be a valid string."),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(shop: Shop, values: dict, field: str, said: str, remedy: str):
    error = fault(shop, **values)
    assert (error.field, error.message) == (field, said)
    assert error.remedy.startswith(remedy)


def test_broken_characters_are_found_at_any_depth():
    assert _writable({"lens 🔭": [("ä", 1), {"b": None}]})
    for broken in ("a\udfff", ["\ud83d"], {"\ud800": 1}, {"a": (1, {"b": "\udc80"})}):
        assert not _writable(broken)


def test_a_huge_value_is_shortened(shop: Shop):
    error = fault(shop, steps="9" * 100_000)
    assert len(error.message) < 100
    assert error.message.endswith("….")


def test_an_unknown_engine_is_not_found(shop: Shop):
    with pytest.raises(NotFound, match="no engine named 'paint'"):
        submit(shop.services, "paint", {}, owner="anna")


def test_what_does_not_fit_the_device_is_refused_with_the_largest_that_does(shop: Shop):
    small = {"kind": "cpu", "name": "small", "memory_total": 100 * 2**20, "memory_free": 100 * 2**20}
    shop.services.jobs.worker_seen("w", "cpu", small, [], 1)
    error = fault(shop, size=11)
    assert error.field == "size"
    assert error.remedy == "The largest that fits is 10 px."
    assert submit(shop.services, "quick_engine", {"size": 10}, owner="anna").state == "queued"


def test_a_file_must_be_the_owners(shop: Shop):
    mine, theirs = (
        shop.services.artifacts.put(who.encode(), media_type="image/png", owner=who) for who in ("anna", "bob")
    )
    for sha in (theirs, "0" * 64):
        error = fault(shop, files=[{"sha256": mine}, {"sha256": sha, "name": "his.png"}])
        assert (error.field, error.message) == ("files", "his.png is not here any more, or it is not yours.")
    assert submit(shop.services, "quick_engine", {"files": [{"sha256": mine}]}, owner="anna").state == "queued"


def test_facts_come_from_the_roomiest_living_worker(shop: Shop):
    def seen(worker: str, kind: str, total: int) -> None:
        facts = {"kind": kind, "name": worker, "memory_total": total, "memory_free": 1, "models": {"hits": 1}}
        shop.services.jobs.worker_seen(worker, kind, facts, [], 1)

    assert device_facts(shop.services, "quick_engine").kind == "cpu"
    seen("big cpu", "cpu", 64 * GIB)
    seen("small gpu", "cuda", 8 * GIB)
    seen("big gpu", "cuda", 24 * GIB)
    shop.services.jobs.record_timing("quick_engine", "cuda", 100.0, 2.0)
    facts = device_facts(shop.services, "quick_engine")
    assert (facts.name, facts.speed) == ("big gpu", 50.0)


def test_an_estimate_uses_the_measured_speed(shop: Shop):
    shop.services.jobs.record_timing("quick_engine", "cpu", 100.0, 10.0)
    assert estimate(shop.services, "quick_engine", {"steps": 10, "size": 10}).seconds == pytest.approx(100.0)
    with pytest.raises(InvalidInput):
        estimate(shop.services, "quick_engine", {"steps": 0})


def test_the_stored_parameters_are_complete(shop: Shop):
    job = submit(shop.services, "quick_engine", {"steps": "7"}, owner="anna", priority=3)
    assert job.params["steps"] == 7
    assert job.params["methods"] == ["method"]
    assert (job.model_key, job.priority, job.owner) == ("quick/one", 3, "anna")


def test_the_same_token_is_the_same_job_and_caps_hold(shop: Shop):
    first = submit(shop.services, "quick_engine", {}, owner="anna", token="t")
    assert submit(shop.services, "quick_engine", {}, owner="anna", token="t").id == first.id
    submit(shop.services, "quick_engine", {}, owner="anna")
    with pytest.raises(LimitReached):
        submit(shop.services, "quick_engine", {}, owner="anna")
    assert submit(shop.services, "quick_engine", {}, owner="bert").state == "queued"


def test_a_submit_wakes_the_workers(tmp_path: Path):
    from studio.services import open_services

    rung = []

    class Bell:
        def wake(self) -> None:
            rung.append(1)

    settings = open_shop(tmp_path).services.settings
    services = open_services(settings, executor=Bell())  # type: ignore[arg-type]
    submit(services, "quick_engine", {}, owner="anna")
    assert rung == [1]
