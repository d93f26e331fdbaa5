"""The adapters between the numeric fixtures and the engines' public functions: calls and renaming, no mathematics."""

from __future__ import annotations

from tests.kernels import prolificdreamer, rid, ultraimage, ultravico
from tests.kernels.adapters import Adapter

CASES: dict[str, Adapter] = {**ultraimage.CASES, **ultravico.CASES, **rid.CASES, **prolificdreamer.CASES}
