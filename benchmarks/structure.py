"""The structure in figures: how long files and functions are, room by room.

    python -m benchmarks.structure

Counts every line of every Python file outside tests, and of every function from `def` to its last line.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("app.py", "studio", "engines", "demos", "pocket", "benchmarks")


def files(room: str) -> list[Path]:
    """The Python files of one room."""
    path = ROOT / room
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """(lines, name) of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}"


def row(name: str, paths: list[Path]) -> str:
    """One line of the table."""
    lengths = sorted((len(path.read_text().splitlines()), str(path.relative_to(ROOT))) for path in paths)
    spans = sorted(span for path in paths for span in functions(path)) or [(0, "-")]
    short = sum(lines < 55 for lines, _ in spans) / len(spans)
    return (
        f"| {name} | {len(paths)} | {sum(lines for lines, _ in lengths)} "
        f"| {statistics.median(lines for lines, _ in lengths):.0f} | {lengths[-1][0]} {lengths[-1][1]} "
        f"| {statistics.median(lines for lines, _ in spans):.0f} | {short:.0%} | {spans[-1][0]} {spans[-1][1]} |"
    )


def main() -> None:
    """Print the table."""
    print("| room | files | lines | median file | longest file | median function | under 55 | longest function |")
    print("|---|---|---|---|---|---|---|---|")
    everything = {room: [path for path in files(room) if path.exists()] for room in ROOMS}
    for room, paths in everything.items():
        if paths:
            print(row(room, paths))
    print(row("all", [path for paths in everything.values() for path in paths]))


if __name__ == "__main__":
    main()
