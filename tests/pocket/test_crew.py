"""Work on every core: in order, the same on one core as on several."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket import crew, identity, peoplepool
from pocket.crew import batches, spread


def test_parts_come_back_in_order():
    parts = batches(7, 5, 2)
    assert parts == [range(7, 9), range(9, 11), range(11, 12)]
    assert list(spread(sum, parts)) == [15, 19, 11]
    assert list(spread(sum, parts[:1])) == [15]
    assert list(spread(sum, [])) == []


def test_several_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    several, alone = tmp_path / "several.safetensors", tmp_path / "alone.safetensors"
    monkeypatch.setattr(crew, "cores", lambda: 2)
    peoplepool.fill(several, 70, peoplepool.TOGETHER + 1)
    shown = identity.portraits(5, identity.TOGETHER + 1, 1)
    monkeypatch.setattr(crew, "_crew", lambda: None)
    peoplepool.fill(alone, 70, peoplepool.TOGETHER + 1)
    assert several.read_bytes() == alone.read_bytes()
    assert several.with_suffix(".json").read_text() == alone.with_suffix(".json").read_text()
    assert identity.portraits(5, identity.TOGETHER + 1, 1).equal(shown)
