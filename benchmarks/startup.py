"""How long a start takes until the first page is there, and whether the web process has torch loaded.

`python -m benchmarks.startup --rounds 5` starts the server on a fresh home each round, asks for the first page until
it comes, and reads which libraries the process has mapped. Goal: 3 s at most, no torch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks.idle_cost import running
from studio.settings import Settings

SIGN = "Atelier is at "


def start_once(home: Path) -> tuple[float, float, bool, int]:
    """(seconds to the printed address, seconds to the whole first page, torch is loaded, bytes resident)."""
    command = [sys.executable, "app.py", "--port", "0", "--home", str(home)]
    begun = time.perf_counter()
    with running(command, SIGN, Settings(home=home, devices=("cpu",))) as (process, line):
        said = time.perf_counter() - begun
        with urlopen(line.split(SIGN)[1].split()[0], timeout=60) as answer:  # noqa: S310
            assert b"Atelier" in answer.read()
        served = time.perf_counter() - begun
        torch = any("libtorch" in entry.path for entry in process.memory_maps())
        return said, served, torch, process.memory_info().rss


def main() -> None:
    """Measure and print; the first round also pays for compiling what the others find compiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rows = []
    for index in range(parser.parse_args().rounds):
        with tempfile.TemporaryDirectory() as home:
            rows.append(start_once(Path(home)))
        print(f"round {index + 1}: address {rows[-1][0]:.2f} s, first page {rows[-1][1]:.2f} s", flush=True)
    print(f"seconds to the first page, median: {statistics.median(row[1] for row in rows):.2f}   (goal: at most 3)")
    print(f"torch in the web process: {'yes' if any(row[2] for row in rows) else 'no'}   (goal: no)")
    print(f"resident memory of the web process: {max(row[3] for row in rows) / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
