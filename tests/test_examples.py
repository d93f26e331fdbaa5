"""Results shown on the home page are real: each comes out again from the manifest beside it.

Floating-point kernels differ between processors, so what is compared with a shipped picture is its settings exactly
and its pixels closely; two runs on one machine are compared byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.batch import Batch
from studio.embedded import read_provenance
from studio.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[1] / "assets" / "examples"
SHOWN = sorted(path.parent.name for path in EXAMPLES.glob("*/manifest.json"))
CLOSE_DB = 35.0  # far above what another seed, step count or method would reach, far below rounding noise


def told(folder: Path) -> dict[str, Any]:
    (job,) = json.loads((folder / "manifest.json").read_text())["jobs"]
    return job


def regenerate(engine: str, params: dict[str, Any], out: Path) -> dict[str, Any]:
    batch = Batch(engine, [params], out, Settings(home=out / "home", devices=("cpu",)))
    try:
        batch.run(lambda job: None)
    finally:
        batch.close()
    return told(out)


def settings_of(data: bytes) -> dict[str, Any]:
    """What decides a result, without the versions it was made with."""
    found = read_provenance(data)
    assert found is not None
    return {name: found[name] for name in ("engine", "params", "seed", "models")}


def psnr(one: bytes, other: bytes) -> float:
    """Peak signal-to-noise ratio of two pictures of the same size, dB."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in (one, other))
    assert a.shape == b.shape
    return float(-10 * np.log10(max(np.square((a - b) / 255).mean(), 1e-12)))


def test_there_are_results_to_look_at():
    assert "ultraimage" in SHOWN


@pytest.mark.parametrize("engine", SHOWN)
def test_a_shown_result_comes_out_again(engine: str, tmp_path: Path):
    shipped = told(EXAMPLES / engine)
    again, once_more = (regenerate(engine, shipped["params"], tmp_path / name) for name in ("again", "once_more"))
    assert [file["sha256"] for file in again["files"]] == [file["sha256"] for file in once_more["files"]]
    assert [file["name"] for file in again["files"]] == [file["name"] for file in shipped["files"]]
    for file in shipped["files"]:
        data = (EXAMPLES / engine / file["file"]).read_bytes()
        mine = (tmp_path / "again" / file["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert settings_of(mine) == settings_of(data)
        if file["kind"] == "image":
            assert psnr(mine, data) > CLOSE_DB
