"""One envelope for every failure, which survives the trip between processes."""

from __future__ import annotations

import pickle

import pytest

from studio import errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.AtelierError) and kind is not errors.AtelierError
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_a_code_a_sentence_and_a_remedy(kind):
    error = kind("The width 97 is no multiple of 8.", "Choose 96 or 104.", field="width")
    assert error.as_dict() == {
        "code": kind.code,
        "message": "The width 97 is no multiple of 8.",
        "remedy": "Choose 96 or 104.",
        "field": "width",
    }
    assert str(error) == "The width 97 is no multiple of 8. Choose 96 or 104."
    assert 400 <= kind.http_status < 600


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling(kind):
    again = pickle.loads(pickle.dumps(kind("What happened.", "What to do.", field="seed")))
    assert type(again) is kind
    assert again.as_dict() == kind("What happened.", "What to do.", field="seed").as_dict()


def test_codes_are_distinct():
    assert len({kind.code for kind in KINDS}) == len(KINDS)
