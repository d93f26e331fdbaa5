"""Converting a published checkpoint of RID once, by hand: `python -m engines.rid.convert FILE [--budget LEVELS]`.

Writes safetensors under the name by which they are found, beside the file unless `--out` names another folder, and
the budget into their header and into the table of budgets. The published file is not needed then. Knows no network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engines.rid.checkpoints import PUBLISHED_HEADS, budget_of_name, convert, sha256_of, source_of
from engines.rid.defender import GREY_LEVELS
from engines.rid.presets import MODELS
from studio.errors import InvalidInput

BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Convert one file and print what was made; the exit code is 2 where it cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m engines.rid.convert", description=__doc__)
    parser.add_argument("file", type=Path, help="a published checkpoint, such as ASDS-eps-12_255.bin")
    parser.add_argument("--budget", type=float, help="grey levels, where the name does not say it; 12/255 are 6")
    parser.add_argument("--heads", type=int, default=PUBLISHED_HEADS, help="attention heads of the network")
    parser.add_argument("--out", type=Path, help="folder of what is written (default: that of the file)")
    options = parser.parse_args(arguments)
    try:
        print(converted(options.file, options.budget, options.heads, options.out or options.file.parent))
    except (InvalidInput, OSError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return 0


def converted(file: Path, budget: float | None, heads: int, folder: Path) -> str:
    """Convert, and say what was made; `budget` in grey levels. Raises InvalidInput or OSError."""
    levels = budget_of_name(file.name) * GREY_LEVELS if budget is None else budget
    known = MODELS["published"].files.get(round(levels, 6))
    target = folder / Path(known or file.name).with_suffix(".safetensors").name
    if target.is_file() and (there := source_of(target)) != sha256_of(file):
        raise InvalidInput(
            f"{target} is there already, made from another file ({there[:16] or 'it does not say which'}).",
            "Move it away first, or name another folder with --out.",
        )
    told = convert(file, target, None if budget is None else budget / GREY_LEVELS, heads)
    return f"{target}: {told.eps * GREY_LEVELS:g} grey levels, from {told.source[:16]}"


if __name__ == "__main__":
    sys.exit(main())
