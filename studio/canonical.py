"""One way to write JSON, so that equal values always give equal bytes.

Used for rows, manifests and the provenance inside result files. This module knows neither of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` as JSON knows it: NumPy numbers become numbers, tuples lists, and NaN or infinity null.

    Raises TypeError for anything JSON has no word for.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    raise TypeError(f"JSON has no word for a {type(value).__name__}: {value!r:.80}")


def dumps(value: Any) -> str:
    """Canonical text: keys sorted, no blanks, ASCII only (other characters escaped), no NaN."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def pretty(value: Any) -> str:
    """The same for files that people open: sorted and indented, characters as they are."""
    text = json.dumps(plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"
