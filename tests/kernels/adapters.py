"""What adapters are made of: arrays as tensors, and a function whose arguments already have the fixture's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]
Adapter = Callable[[Arrays, dict[str, Any]], dict[str, Any]]


def tensors(inputs: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}


def returns(function: Callable[..., Any], *names: str) -> Adapter:
    """A function that takes the inputs and kwargs as they are; `names` for its results, in order."""

    def adapter(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
        result = function(**tensors(inputs), **kwargs)
        return dict(zip(names, result if len(names) > 1 else (result,), strict=True))

    return adapter
