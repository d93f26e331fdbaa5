"""What stands side by side, in which order, what lies below, and what stands for a job in a list."""

from __future__ import annotations

from typing import Any

import pytest

from studio.exhibits import cover, exhibits, in_order, numbers_under, poster_of, seeds_of


def item(name: str, kind: str = "image", role: str = "", **attributes: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "role": role, "attributes": attributes, "metrics": {}}


def names(items: Any) -> list[str]:
    return [each["name"] for each in items]


def test_the_input_comes_first_and_the_method_after_what_it_is_compared_with():
    kept = [item("m", role="method"), item("x"), item("b", role="baseline"), item("i", role="input")]
    assert names(in_order(kept)) == ["i", "b", "m", "x"]


def test_a_sweep_is_ordered_seed_by_seed():
    kept = [item(f"{role}{seed}", role=role, seed=seed) for role in ("method", "baseline") for seed in (7, 3)]
    assert names(in_order([*kept, item("i", role="input")])) == ["i", "baseline7", "method7", "baseline3", "method3"]
    assert seeds_of([*kept, item("i")]) == [7, 3]


def test_sheets_and_plots_lie_below_and_posters_are_not_shown():
    kept = [item("a"), item("p", role="poster"), item("s", role="sheet"), item("c", "video"), item("q", role="plot")]
    shown = exhibits([*kept, item("t", "table", "plot"), item("z", "archive")])
    assert (names(shown.pictures), names(shown.clips)) == (["a"], ["c"])
    assert (names(shown.plots), names(shown.sheets)) == (["q"], ["s"])


def test_a_poster_is_found_by_name_or_by_method_and_seed():
    mesh = item("m.glb", "mesh", "method", method="ours", seed=1)
    other = item("b.glb", "mesh", "baseline", method="theirs", seed=1)
    alike = item("p.png", role="poster", method="ours", seed=1)
    named = item("q.png", role="poster", of="b.glb", method="ours", seed=1)
    assert poster_of(mesh, [mesh, other, named, alike]) is alike
    assert poster_of(other, [mesh, other, named, alike]) is named
    assert poster_of(item("c.glb", "mesh", seed=1), [named, alike]) is None


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([item("b.png", role="baseline"), item("m.png", role="method")], "m.png"),
        ([item("i.png", role="input"), item("m.mp4", "video", "method")], "m.mp4"),
        ([item("m.glb", "mesh", "method"), item("p.png", role="poster"), item("t.mp4", "video", "method")], "p.png"),
        ([item("m.glb", "mesh", "method"), item("t.mp4", "video", "method")], "t.mp4"),
        ([item("a.png"), item("i.png", role="input")], "a.png"),
        ([item("s.png", role="sheet"), item("z.zip", "archive")], None),
        ([], None),
    ],
)
def test_what_stands_for_a_job(outputs: list[dict[str, Any]], expected: str | None):
    found = cover(outputs)
    assert (found["name"] if found else None) == expected


def test_under_a_result_stand_its_first_numbers_that_have_a_good_side():
    outputs = [item("s", role="sheet"), {**item("a"), "metrics": {"x": 1}}, {**item("b"), "metrics": {"x": 2}}]
    cells = [{"text": "1", "best": False}, {"text": "2", "best": True}]
    row = {"title": "X", "unit": "s", "help": "", "better": "higher", "cells": cells}
    rows = [{**row, "better": ""}, *({**row, "title": title} for title in "XYZW")]
    under = numbers_under(rows, outputs)
    assert list(under) == ["a", "b"]
    assert [number["title"] for number in under["b"]] == ["X", "Y", "Z"]
    assert under["b"][0] == {"title": "X", "unit": "s", "text": "2", "best": True}
