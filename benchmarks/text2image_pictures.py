"""The pictures that the text-to-image model is judged by: their prompts, drawn once and kept in a folder.

    python -m benchmarks.text2image_pictures --seeds 0:512 --folder pictures/

Every seed has one prompt of a pair of kind and colour that training saw, from any of the four sides alike, and every
withheld pair has prompts of its own. A second start draws what is missing. Needs no judge and knows of none.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.rows import batches
from engines.text2image.presets import ASSETS
from engines.text2image.sampling import scheduler_for
from pocket.lessons import WITHHELD
from pocket.toys import KINDS
from pocket.wording import COLOURS, GROUNDS, PLAINS, SKIES, VIEWS, ToySpec, write

BATCH = 16
EACH_WITHHELD = 16  # prompts of every withheld pair
BASE = {"sampler": "dpm", "steps": 20, "guidance": 5.0}

Row = dict[str, Any]


def prompt_for(seed: int, withheld: tuple[str, str] | None = None) -> str:
    """A caption fixed by the seed: kind, colour and side, in half of them a place; of a withheld pair if given."""
    rng = np.random.default_rng(seed)
    kind, colour = str(rng.choice(KINDS)), str(rng.choice(COLOURS))
    while (kind, colour) in WITHHELD:
        colour = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]
    kind, colour = withheld or (kind, colour)
    place: dict[str, str] = {}
    said = rng.random()
    if said < 0.25:
        place = {"plain": str(rng.choice(PLAINS))}
    elif said < 0.5:
        place = {"ground": str(rng.choice(GROUNDS)), "sky": str(rng.choice(SKIES))}
    number = 2 if rng.random() < 0.15 else 1
    return write(ToySpec(kind, colour, number=number, view=str(rng.choice(VIEWS)), **place))


def plan(seeds: range) -> list[dict[str, Any]]:
    """One row to be filled for every picture."""
    rows = [{"group": "seen", "seed": seed, "prompt": prompt_for(seed)} for seed in seeds]
    pairs = sorted(WITHHELD)
    each = min(EACH_WITHHELD, max(1, len(seeds) // len(pairs)))
    for seed, (_, pair) in enumerate(itertools.product(range(each), pairs), seeds.start):  # each its own seed
        rows.append({"group": "withheld", "seed": seed, "prompt": prompt_for(seed, pair)})
    return rows


class Painter:
    """The model in memory."""

    def __init__(self, model: Path) -> None:
        self.pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
        self.pipeline.set_progress_bar_config(disable=True)
        self.schedule = self.pipeline.scheduler.config

    def pictures(self, rows: Sequence[dict[str, Any]], sampler: str, steps: int, guidance: float) -> np.ndarray:
        """uint8 [B, 64, 64, 3], each from its own seed."""
        self.pipeline.scheduler = scheduler_for(self.schedule, sampler)
        images = self.pipeline(
            [row["prompt"] for row in rows],
            height=64,
            width=64,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(row["seed"]) for row in rows],
            output_type="np",
        ).images
        return (images * 255).round().astype(np.uint8)


def draw_missing(painter: Painter, plans: Sequence[Row], settings: Sequence[Row], folder: Path) -> None:
    """Draw every picture that is not in the folder yet, seen and withheld pairs in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for chosen in settings:
        todo = [row for row in plans if not place_of(row, chosen, folder).exists()]
        for part in batches(sorted(todo, key=lambda row: row["seed"]), BATCH):
            begun = time.process_time()
            for row, picture in zip(part, painter.pictures(part, **chosen), strict=True):
                path = place_of(row, chosen, folder)
                Image.fromarray(picture).save(path.with_suffix(".part"), "PNG")
                path.with_suffix(".part").rename(path)
            spent = (time.process_time() - begun) / len(part)
            print(f"{chosen}: to seed {part[-1]['seed']}, {spent:.2f} s each", flush=True)


def place_of(row: Row, settings: Row, folder: Path) -> Path:
    """Where a picture lies."""
    digest = hashlib.sha256(json.dumps([row["prompt"], settings]).encode()).hexdigest()[:12]
    return folder / f"{row['group']}-{row['seed']}-{digest}.png"


def read_pictures(rows: Sequence[Row], settings: Row, folder: Path) -> np.ndarray:  # uint8 [B, 64, 64, 3]
    """Pictures that have been drawn."""
    return np.stack([np.asarray(Image.open(place_of(row, settings, folder))) for row in rows])


def sheet(pictures: np.ndarray, times: int = 3) -> Image.Image:  # uint8 [64, S, S, 3]
    """64 pictures in eight rows, every pixel `times` wide."""
    framed = np.pad(pictures.repeat(times, 1).repeat(times, 2), ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=255)
    side = framed.shape[1]
    return Image.fromarray(framed.reshape(8, 8, side, side, 3).swapaxes(1, 2).reshape(8 * side, 8 * side, 3))


def grid_of(text: str, base: dict[str, Any]) -> list[dict[str, Any]]:
    """`guidance=5,7.5 sampler=dpm,ddim` as every combination over the base settings."""
    axes = [(name, values.split(",")) for name, _, values in (item.partition("=") for item in text.split())]
    kinds = {name: type(value) for name, value in base.items()}
    names = [name for name, _ in axes]
    chosen = itertools.product(*(values for _, values in axes))
    return [{**base, **{n: kinds[n](v) for n, v in zip(names, each, strict=True)}} for each in chosen]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which pictures are meant."""
    parser.add_argument("--seeds", default="0:512", help="first:last+1")
    parser.add_argument("--sampler", default=BASE["sampler"])
    parser.add_argument("--steps", type=int, default=BASE["steps"])
    parser.add_argument("--guidance", type=float, default=BASE["guidance"])
    parser.add_argument("--search", default="", help="settings to combine, e.g. 'guidance=5,7.5 steps=10,20'")
    parser.add_argument("--folder", type=Path, required=True, help="where the pictures are kept")


def asked(given: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """The rows to be filled, and the settings to fill them with."""
    base = {"sampler": given.sampler, "steps": given.steps, "guidance": given.guidance}
    return plan(range(*map(int, given.seeds.split(":")))), grid_of(given.search, base)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ASSETS / "text2image")
    add_arguments(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw_missing(Painter(given.model), *asked(given), given.folder)


if __name__ == "__main__":
    main()
