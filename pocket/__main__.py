"""`python -m pocket [model]`: retrain the shipped pocket models from nothing."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("ultraimage",)


def main() -> None:
    """Read the command line and run one recipe."""
    parser = argparse.ArgumentParser(prog="python -m pocket", description=__doc__)
    parser.add_argument("model", nargs="?", choices=MODELS, default="ultraimage", help="which pocket model")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--out", type=Path, help="where the model goes (default: assets/pocket/MODEL)")
    parser.add_argument("--work", type=Path, help="scratch folder for checkpoints (default: runs/MODEL)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    from pocket import ultraimage

    ultraimage.train_everything(
        options.work or ROOT / "runs" / options.model,
        options.out or ROOT / "assets" / "pocket" / options.model,
        options.resume,
    )


if __name__ == "__main__":
    main()
