"""Entry point of the Space: the front door, listening where a Space expects it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app import serve  # noqa: E402 - found only with the path above
from studio.settings import Settings  # noqa: E402

if __name__ == "__main__":
    serve(Settings.from_env().replace(host="0.0.0.0"))
