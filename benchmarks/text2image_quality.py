"""How good is the pocket text-to-image model? Kind, colour, side, withheld pairs, reconstruction, memorisation.

    python -m benchmarks.text2image_quality --seeds 0:512 --folder pictures/ --out rows.jsonl --sheet sheet.png
    python -m benchmarks.text2image_quality --seeds 10000:10064 --search "guidance=5,7.5 steps=10,20" ...

Pictures are drawn by `benchmarks.text2image_pictures`, kept in the folder, and judged here. The judge was trained on
world renders alone; beside the model's pictures it judges the world's own for the same prompts, which shows what it
can tell at all. Rows are appended as they are made, and a second start goes on where the first ended;
`benchmarks.text2image_card` writes the cards from them. Proportions carry Wilson intervals, means bootstrap intervals
over seeds, both 95 %. Settings are chosen on seeds from 10000 on and reported once on 0:512.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.rows import append_row, batches, read_rows
from benchmarks.text2image_pictures import (
    BATCH,
    Painter,
    Row,
    add_arguments,
    asked,
    draw_missing,
    prompt_for,
    read_pictures,
    sheet,
)
from engines.text2image.judge import Judge, to_tensor
from engines.text2image.metrics import agreement, described, nearest, pictures_of, world_scene
from engines.text2image.neighbours import TrainingIndex
from engines.text2image.presets import ASSETS
from pocket.wording import parse

HELD_OUT = 600_000_000  # first seed of the pictures that are reconstructed
RECONSTRUCTED = 256
AUTOENCODER = "autoencoder"  # the group of the one row of reconstructions
GOALS = {"kind": 0.85, "hue": 0.95, "view": 0.80, "pair": 0.70, "psnr": 30}


class Bench:
    """Everything that judges a picture, in memory."""

    def __init__(self, assets: Path) -> None:
        self.judge = Judge.load(assets / "text2image_judge")
        self.index = TrainingIndex.load(assets / "text2image_index")
        self.clip = CLIPModel.from_pretrained(assets / "clip").eval()
        self.words = PreTrainedTokenizerFast.from_pretrained(assets / "clip")

    def measured(self, rows: Sequence[Row], pictures: np.ndarray) -> list[Row]:
        """What the page would print under each picture."""
        scores = self.scores([row["prompt"] for row in rows], pictures)
        found = []
        for row, picture, seen, score in zip(rows, pictures, self.judge(pictures), scores, strict=True):
            wanted = parse(row["prompt"])
            told = agreement(wanted, seen, self.judge.sided)
            told["hue"] = None if told["colour"] is None else seen.colour == wanted.colour  # of broken toys too
            told |= {"pair": bool(told["kind"] and told["colour"]), "seen": described(seen), "clip": score}
            if row["group"] == "seen":  # the dearest of all measures: sixteen renders a picture
                near = nearest(picture, self.index, 1)[0]
                told |= {"distance": round(near.distance, 3), "nearest": near.seed}
            found.append(told)
        return found

    @torch.no_grad()
    def scores(self, prompts: Sequence[str], pictures: np.ndarray) -> list[float]:
        """Cosines between pictures and their prompts."""
        tokens = self.words(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        found = self.clip(input_ids=tokens, pixel_values=to_tensor(pictures))
        return [round(value, 4) for value in (found.image_embeds * found.text_embeds).sum(1).tolist()]


@torch.no_grad()
def reconstruction(vae: Any, count: int) -> np.ndarray:  # [count], dB
    """Peak signal-to-noise ratio of unseen pictures of the world, encoded and decoded."""
    values = []
    scenes = [world_scene(prompt_for(HELD_OUT + i), HELD_OUT + i) for i in range(count)]
    for part in to_tensor(pictures_of(scenes, 64)).split(BATCH):
        decoded = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
        values.append(-10 * ((decoded - part) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(values).numpy()


def make_rows(bench: Bench, plans: Sequence[Row], settings: Sequence[Row], folder: Path, out: Path) -> None:
    """Append a row of the model for every picture and settings, and once one of the world, where they are missing."""
    known = {_key(row) for row in read_rows(out)}
    with out.open("a", encoding="utf-8") as file:
        for chosen in [None, *settings]:
            todo = [{**row, "settings": chosen} for row in plans if _key({**row, "settings": chosen}) not in known]
            for part in batches(todo, BATCH):
                if chosen is None:
                    pictures = pictures_of([world_scene(row["prompt"], row["seed"]) for row in part], 64)
                else:
                    pictures = read_pictures(part, chosen, folder)
                for row, told in zip(part, bench.measured(part, pictures), strict=True):
                    file.write(json.dumps({**row, **told}) + "\n")
                file.flush()
                print(f"{chosen or 'world'}: {part[0]['group']} {part[0]['seed']} judged", flush=True)


def make_reconstructions(vae: Any, out: Path) -> None:
    """Append how well the autoencoder gives unseen pictures back, once."""
    if not any(row["group"] == AUTOENCODER for row in read_rows(out)):
        values = [round(float(value), 3) for value in reconstruction(vae, RECONSTRUCTED)]
        append_row(out, {"group": AUTOENCODER, "prompt": "", "seed": HELD_OUT, "settings": None, "psnr": values})


def _key(row: Row) -> tuple[str, str, int, str]:
    return row["group"], row["prompt"], row["seed"], json.dumps(row["settings"])


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion."""
    z, share = 1.96, hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: np.ndarray, rounds: int = 5000) -> tuple[float, float]:
    """95 % percentile interval of a mean."""
    means = values[np.random.default_rng(0).integers(0, len(values), (rounds, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def print_table(rows: Sequence[Row]) -> None:
    """A line for the world and for each setting, in Markdown; the goals stand last."""
    heads = ("group", "pictures", "n", "kind", "colour", "whole and colour", "view", "number", "kind and colour")
    print(f"\n| {' | '.join((*heads, 'CLIP', 'nearest'))} |\n{'|---' * (len(heads) + 2)}|")
    pictures = [row for row in rows if row["group"] != AUTOENCODER]
    groups = dict.fromkeys((row["group"], json.dumps(row["settings"])) for row in pictures)
    for group, settings in groups:
        part = [row for row in pictures if (row["group"], json.dumps(row["settings"])) == (group, settings)]
        cells = [share([row[name] for row in part]) for name in ("kind", "hue", "colour", "view", "number", "pair")]
        cells += [mean([row[name] for row in part if name in row]) for name in ("clip", "distance")]
        shown = "the world" if settings == "null" else ", ".join(f"{k} {v}" for k, v in json.loads(settings).items())
        print(f"| {group} | {shown} | {len(part)} | {' | '.join(cells)} |")
    for row in rows:
        if row["group"] == AUTOENCODER:
            print(f"\nautoencoder: {mean(row['psnr'])} dB, {len(row['psnr'])} unseen pictures; goal {GOALS['psnr']}")
    goals = ", ".join(f"{name} {goal:.0%}" for name, goal in GOALS.items() if goal < 1)
    print(f"\ngoals: {goals} (pair: the withheld ones)")


def share(values: Sequence[bool | None]) -> str:
    """A proportion in percent with its interval; of what could be told."""
    told = [value for value in values if value is not None]
    if not told:
        return "–"
    low, high = wilson(sum(told), len(told))
    return f"{sum(told) / len(told):.1%} [{low:.1%}, {high:.1%}]"


def mean(values: Sequence[float]) -> str:
    """A mean with its interval; of what was measured."""
    if not len(values):
        return "–"
    low, high = bootstrap(np.array(values))
    return f"{np.mean(values):.3g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ASSETS / "text2image")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder with judge, clip and index")
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="the rows, one JSON object a line")
    parser.add_argument("--sheet", type=Path, help="PNG with the pictures of the first 64 prompts")
    parser.add_argument("--only-print", action="store_true", help="print the table of rows that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.only_print:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        painter, (rows, settings) = Painter(given.model), asked(given)
        draw_missing(painter, rows, settings, given.folder)
        make_reconstructions(painter.pipeline.vae, given.out)
        make_rows(Bench(given.assets), rows, settings, given.folder, given.out)
        if given.sheet:
            sheet(read_pictures(rows[:64], settings[0], given.folder)).save(given.sheet)
    print_table(read_rows(given.out))


if __name__ == "__main__":
    main()
