"""A short run of the hostile input, and that the harness notices what it is there to notice."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks.hostile_files import FAMILIES, whole_files
from benchmarks.hostile_input import DOORS, Ground, judge, one, sentence_fault, table
from benchmarks.in_process import Answer

CASES = 150


def test_nothing_gets_through(place: Ground):
    outcomes = [one(place, 7, number) for number in range(CASES)]
    assert [f"case {n}: {found.door}: {found.fault}" for n, found in enumerate(outcomes) if found.fault] == []
    assert {found.door for found in outcomes} == set(DOORS)
    assert any(found.accepted for found in outcomes), "a door that is never open proves nothing"
    assert f"{CASES} cases" in table(outcomes)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_case_is_the_same_whenever_it_is_made(family: str):
    first, again = (FAMILIES[family](random.Random("3:5")) for _ in range(2))
    assert first == again


def test_the_whole_files_are_whole(place: Ground):
    for name in ("png", "jpeg", "webp", "result png", "mp4", "glb", "ply", "manifest"):
        answer = place.house.ask("POST", "/api/uploads", cookies=place.cookies, body=whole_files()[name])
        assert answer.status == 201, (name, answer.body)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, [], b"{}"),
        Answer(0),
        Answer(200, [], b"", RuntimeError("boom")),
        Answer(422, [], b"no JSON"),
        Answer(422, [], b'{"detail": []}'),
        Answer(422, [], json.dumps({"error": {"message": "ValueError: x", "remedy": ""}}).encode()),
        Answer(200, [], b'{"data": "Traceback (most recent call last)"}'),
    ],
)
def test_what_is_not_good_enough_is_noticed(answer: Answer):
    assert judge(answer)


def test_a_sentence_may_quote_what_was_sent():
    assert sentence_fault("Prompt cannot be 'ValueError'. Choose another.") == ""
    assert sentence_fault("Prompt cannot be used: <class 'str'>.")
    assert sentence_fault("")
