"""Every numeric fixture against the engine's own public function; an engine in the house is tested whole.

Cases lie in tests/fixtures/<engine>/*.npz and in the folder that ATELIER_FIXTURES names, if it is set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import engines
from tests.kernel_contract import CASES

FOLDERS = [Path(__file__).parent / "fixtures", *map(Path, filter(None, [os.environ.get("ATELIER_FIXTURES")]))]

KEEP_PRECISION = ("prolificdreamer", "rid")  # engines whose functions give what they were given


def cases() -> list[pytest.param]:
    return [
        pytest.param(
            path, id=f"{path.parent.name}-{path.stem}-{number}" if number else f"{path.parent.name}-{path.stem}"
        )
        for number, folder in enumerate(FOLDERS)
        for name in engines.KERNELS
        for path in sorted((folder / name).glob("*.npz"))
    ]


@pytest.mark.parametrize("path", cases())
def test_kernel(path: Path):
    check(path)


@pytest.mark.parametrize("path", cases())
def test_kernel_in_double_precision(path: Path):
    check(path, double=True)


def check(path: Path, double: bool = False) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    inputs = {name.removeprefix("in_"): array for name, array in arrays.items() if name.startswith("in_")}
    expected = {name.removeprefix("out_"): array for name, array in arrays.items() if name.startswith("out_")}
    if double:
        inputs = {name: array.astype(float) if array.dtype == np.float32 else array for name, array in inputs.items()}
    key = f"{path.parent.name}.{meta['function']}"
    assert key in CASES, f"no adapter for {key}"
    found = CASES[key](inputs, meta.get("kwargs", {}))
    for name, want in expected.items():
        got = np.asarray(found[name])
        assert got.shape == want.shape, f"{name}: {got.shape}, expected {want.shape}"
        if np.issubdtype(want.dtype, np.integer):
            np.testing.assert_array_equal(got, want, err_msg=name)
        else:
            tolerance = {"atol": meta.get("atol", meta.get("tolerance", 0)), "rtol": meta.get("rtol", 1e-6)}
            if double:  # what was computed in single precision is known to as many digits of its largest value
                tolerance["atol"] = max(tolerance["atol"], 1e-5 * np.nanmax(np.abs(want), initial=0))
                if path.parent.name in KEEP_PRECISION and any(array.dtype == float for array in inputs.values()):
                    assert got.dtype == float, f"{name} fell back to {got.dtype}"
            np.testing.assert_allclose(got, want, **tolerance, equal_nan=True, err_msg=name)


def test_every_engine_has_cases():
    for name in engines.KERNELS:
        assert list((FOLDERS[0] / name).glob("*.npz")), f"{name} has no numeric cases"
