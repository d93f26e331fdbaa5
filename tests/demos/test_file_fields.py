"""A parameter that is a file: a place to drop files beside a text field that holds what is kept."""

from __future__ import annotations

import json

import gradio as gr
import pytest

from demos.fields import Form
from tests.quick_engine.spec import SPEC

REF = {"sha256": "0" * 64, "name": 'a "b".png'}


@pytest.fixture
def form() -> Form:
    made = Form(SPEC)
    with gr.Blocks():
        made.field("files")
        made.field("steps")
    return made


def test_what_is_kept_becomes_the_parameter(form: Form):
    assert form.values([json.dumps([REF]), 3]) == {"files": [REF], "steps": 3}
    assert form.values(["", 3]) == {"steps": 3}
    assert form.values(["no json", 3])["files"] == "no json", "the parameters refuse it at the field"


def test_a_result_fills_the_field_again(form: Form):
    files, steps = form.fill({"files": [REF], "steps": 5})
    assert json.loads(files["value"]) == [REF]
    assert steps["value"] == 5
    assert form.fill({"files": []})[0]["value"] == ""
    assert form.values([files["value"], 5])["files"] == [REF]


def test_there_is_a_place_for_a_refusal(form: Form):
    assert form.has("files")
