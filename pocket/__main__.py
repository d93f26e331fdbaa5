"""`python -m pocket [model]`: retrain the shipped pocket models from nothing."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def ultraimage(work: Path, out: Path, resume: bool) -> None:
    """The image transformer, and the judge of its pictures."""
    from pocket import ultraimage as recipe

    recipe.train_everything(work, out, resume)


def text2image(work: Path, out: Path, resume: bool) -> None:
    """The text-to-image model of the world of toys, or its surrogate."""
    from pocket import text2image as recipe

    recipe.train_everything(out.name, work, out, resume)


def portraits(work: Path, out: Path, resume: bool) -> None:
    """A text-to-image model, taught people."""
    from pocket import portraits as recipe

    recipe.train_everything(work, out, resume)


def text2image_judge(work: Path, out: Path, resume: bool) -> None:
    """The judge of toys."""
    from pocket import toyjudge as recipe

    recipe.train_everything(work, out, resume)


def clip(work: Path, out: Path, resume: bool) -> None:
    """The two towers that match words with pictures of toys."""
    from pocket import toyclip as recipe

    recipe.train_everything(work, out, resume)


def text2image_index(work: Path, out: Path, resume: bool) -> None:
    """The index of the pictures that the text-to-image models were trained on."""
    from pocket import toyindex as recipe

    recipe.train_everything(work, out)


def ultravico(work: Path, out: Path, resume: bool) -> None:
    """The video transformer."""
    from pocket import ultravico as recipe

    recipe.train_everything(work, out, resume)


def rid_identity(work: Path, out: Path, resume: bool) -> None:
    """The identity embedder, which judges what a thief makes."""
    from pocket import identity as recipe

    recipe.make(work, out, resume)


def rid(work: Path, out: Path, resume: bool) -> None:
    """A family of defenders."""
    from pocket import rid as recipe

    recipe.train_everything(work, out, resume)


RECIPES: dict[str, Callable[[Path, Path, bool], None]] = {
    "ultraimage": ultraimage,
    "text2image": text2image,
    "text2image_b": text2image,
    "portraits": portraits,
    "portraits_b": portraits,
    "text2image_judge": text2image_judge,
    "clip": clip,
    "text2image_index": text2image_index,
    "ultravico": ultravico,
    "rid_identity": rid_identity,
    "rid": rid,
    "rid_alone": rid,
    "rid_rough": rid,
}


def main() -> None:
    """Read the command line and run one recipe, or all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m pocket", description=__doc__)
    parser.add_argument("model", nargs="?", choices=tuple(RECIPES), help="which pocket model (default: all)")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--out", type=Path, help="where the models go (default: assets/pocket)")
    parser.add_argument("--work", type=Path, help="scratch folder for checkpoints (default: runs)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    out, work = options.out or ROOT / "assets" / "pocket", options.work or ROOT / "runs"
    for name in [options.model] if options.model else RECIPES:
        RECIPES[name](work / name, out / name, options.resume)


if __name__ == "__main__":
    main()
