"""Shards of a pool: made where they are missing, anew where nothing may stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket.shards import STRIDE, filled


@pytest.mark.parametrize(("resume", "made"), [(True, [0, 2]), (False, [0, 1, 2])])
def test_those_that_are_missing_are_made(tmp_path: Path, resume: bool, made: list[int]):
    (tmp_path / "1.safetensors").write_text("old")
    said: list[str] = []
    paths = filled(tmp_path, 3, 7, lambda path, seed: path.write_text(str(seed)), "drawing", resume, said.append)
    assert [path.name for path in paths] == ["0.safetensors", "1.safetensors", "2.safetensors"]
    assert said == [f"drawing, part {index + 1} of 3" for index in made]
    assert [path.read_text() for path in paths] == [
        str(7 + index * STRIDE) if index in made else "old" for index in range(3)
    ]
