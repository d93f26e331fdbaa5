"""Bundles: what goes in comes out, bit for bit, and nothing else is let in."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from studio.bundle import pack, unpack

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_plain_values_come_back(state: dict):
    assert unpack(pack(state)) == state


def test_tensors_come_back_with_their_bits():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = {
        "half": base.to(torch.bfloat16),
        "turned": base.t(),
        "same": base,
        "deep": [{"rng": torch.get_rng_state()}, (1, 2)],
        "array": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
        "step": np.int64(7),
    }
    back = unpack(pack(state))
    assert torch.equal(back["half"], state["half"])
    assert back["half"].dtype == torch.bfloat16
    assert torch.equal(back["turned"], base.t())
    assert torch.equal(back["deep"][0]["rng"], state["deep"][0]["rng"])
    assert back["deep"][1] == [1, 2]
    assert isinstance(back["array"], np.ndarray)
    assert np.array_equal(back["array"], state["array"])
    assert back["step"] == 7


def test_arrays_alone_need_no_torch():
    back = unpack(pack({"a": np.float64(3) + np.zeros(2)}))
    assert isinstance(back["a"], np.ndarray)
    assert back["a"].dtype == np.float64


@pytest.mark.parametrize("state", [{"f": object()}, {1: "number"}, {"__tensor__": "t0"}, {"x": {b"y": 1}}])
def test_other_things_are_refused(state: dict):
    with pytest.raises(TypeError):
        pack(state)


@pytest.mark.parametrize("cut", [0, 4, 9, 40, -1])
def test_torn_files_are_recognised(cut: int):
    data = pack({"a": torch.ones(100), "b": 2})
    with pytest.raises(ValueError, match="not a bundle"):
        unpack(data[:cut])
    with pytest.raises(ValueError, match="not a bundle"):
        unpack(b"\xff" * 64)


def test_the_same_state_is_the_same_bytes_and_an_older_file_is_read():
    state = {"a": torch.arange(3.0), "b": [1, {"c": "d"}], "e": np.arange(2)}
    assert len({pack(state) for _ in range(8)}) == 1
    structure = '{"a": {"__tensor__": "t0", "numpy": false}, "b": 5}'
    older = safetensors.torch.save({"t0": state["a"]}, {"structure": structure, "framework": "pt"})
    back = unpack(older)
    assert torch.equal(back["a"], state["a"])
    assert back["b"] == 5
