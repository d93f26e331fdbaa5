"""A script run with Triton's interpreter in place of its compiler."""

from __future__ import annotations

import os
import subprocess
import sys


def assert_agrees(script: str) -> None:
    """It has to print that all agree.

    In a process of its own: whether kernels are interpreted is decided when Triton is first imported.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "all agree", done.stderr[-2000:]
