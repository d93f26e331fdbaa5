"""A bundle: nested state of tensors and JSON-able values as the bytes of one safetensors file.

Used for checkpoints and caches. Tensors come back on the CPU with their exact bits, NumPy arrays as NumPy arrays;
tuples come back as lists. Nothing is pickled. This module knows no folder and no job.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

_SLOT = "__tensor__"


def pack(state: Mapping[str, Any]) -> bytes:
    """`state` as safetensors bytes. Raises TypeError for a value that is neither tensor nor JSON."""
    tensors: dict[str, Any] = {}

    def walk(value: Any) -> Any:
        if hasattr(value, "untyped_storage") or isinstance(value, np.ndarray):
            name = f"t{len(tensors)}"
            tensors[name] = value
            return {_SLOT: name, "numpy": isinstance(value, np.ndarray)}
        if isinstance(value, Mapping):
            return {_key(key): walk(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    structure = walk(state)

    def metadata(framework: str) -> dict[str, str]:
        # One entry: the library writes several in an order that changes from file to file.
        return {"bundle": json.dumps({"framework": framework, "structure": structure})}

    if any(hasattr(value, "untyped_storage") for value in tensors.values()):
        from safetensors.torch import save

        return save({name: _torch_copy(value) for name, value in tensors.items()}, metadata("pt"))
    from safetensors.numpy import save as save_arrays

    return save_arrays({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata("np"))


def unpack(data: bytes) -> dict[str, Any]:
    """The state that `pack` wrote. Raises ValueError if these bytes are not a bundle."""
    from safetensors import SafetensorError

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if "bundle" in header:
            kept = json.loads(header["bundle"])
        else:  # written by an earlier version
            kept = {"framework": header["framework"], "structure": json.loads(header["structure"])}
        structure, torch_made = kept["structure"], kept["framework"] == "pt"
        if torch_made:
            from safetensors.torch import load

            tensors: dict[str, Any] = load(data)
        else:
            from safetensors.numpy import load as load_arrays

            tensors = load_arrays(data)
    except (SafetensorError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a bundle of tensors: {error}") from error

    def walk(value: Any) -> Any:
        if isinstance(value, dict) and _SLOT in value:
            tensor = tensors[value[_SLOT]]
            return tensor.numpy() if value["numpy"] and torch_made else tensor
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    state: dict[str, Any] = walk(structure)
    return state


def _key(key: Any) -> str:
    if not isinstance(key, str) or key == _SLOT:
        raise TypeError(f"the keys of a bundle are words, not {key!r}")
    return key


def _torch_copy(value: Any) -> Any:
    """A CPU copy of its own: safetensors refuses tensors that share memory."""
    if isinstance(value, np.ndarray):
        return sys.modules["torch"].from_numpy(value.copy())
    return value.detach().to("cpu", copy=True).contiguous()
