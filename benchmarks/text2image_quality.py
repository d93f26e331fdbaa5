"""How good is the pocket text-to-image model? Kind, colour, side, withheld pairs, reconstruction, memorisation.

    python -m benchmarks.text2image_quality --seeds 0:512 --out rows.jsonl --sheet sheet.png
    python -m benchmarks.text2image_quality --seeds 10000:10064 --search "guidance=5,7.5 steps=10,20" --out s.jsonl

Every seed has one prompt of a pair of kind and colour that training saw, from any of the four sides alike, and every
withheld pair has prompts of its own. The judge was trained on world renders alone; beside the model's pictures it
judges the world's own for the same prompts, which shows what it can tell at all. Rows are appended as they are made
and a second start goes on where the first ended; `benchmarks.text2image_card` writes the cards from them. Proportions
carry Wilson intervals, means bootstrap intervals over seeds, both 95 %. Settings are chosen on seeds from
10000 on and reported once on 0:512.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPModel, PreTrainedTokenizerFast

from engines.text2image.judge import Judge, to_tensor
from engines.text2image.metrics import agreement, described, nearest, pictures_of, world_scene
from engines.text2image.neighbours import TrainingIndex
from engines.text2image.presets import ASSETS
from engines.text2image.sampling import scheduler_for
from pocket.toypool import WITHHELD
from pocket.toys import KINDS
from pocket.wording import COLOURS, GROUNDS, PLAINS, SKIES, VIEWS, ToySpec, parse, write

BATCH = 16
EACH_WITHHELD = 16  # prompts of every withheld pair
HELD_OUT = 600_000_000  # first seed of the pictures that are reconstructed
RECONSTRUCTED = 256
AUTOENCODER = "autoencoder"  # the group of the one row of reconstructions
GOALS = {"kind": 0.85, "colour": 0.95, "view": 0.80, "pair": 0.70, "psnr": 30}


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
    for turn, pair in itertools.product(range(each), pairs):
        seed = seeds.start + turn
        rows.append({"group": "withheld", "seed": seed, "prompt": prompt_for(seed, pair)})
    return rows


class Bench:
    """The model and everything that judges it, in memory."""

    def __init__(self, model: Path, assets: Path) -> None:
        self.pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
        self.pipeline.set_progress_bar_config(disable=True)
        self.schedule = self.pipeline.scheduler.config
        self.judge = Judge.load(assets / "text2image_judge")
        self.index = TrainingIndex.load(assets / "text2image_index")
        self.clip = CLIPModel.from_pretrained(assets / "clip").eval()
        self.words = PreTrainedTokenizerFast.from_pretrained(assets / "clip")

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

    def measured(self, rows: Sequence[dict[str, Any]], pictures: np.ndarray) -> list[dict[str, Any]]:
        """What the page would print under each picture."""
        scores = self.scores([row["prompt"] for row in rows], pictures)
        found = []
        for row, picture, seen, score in zip(rows, pictures, self.judge(pictures), scores, strict=True):
            told = agreement(parse(row["prompt"]), seen, self.judge.sided)
            told |= {"pair": bool(told["kind"] and told["colour"]), "seen": described(seen), "clip": score}
            near = nearest(picture, self.index, 1)[0]
            found.append({**told, "distance": round(near.distance, 3), "nearest": near.seed})
        return found

    @torch.no_grad()
    def scores(self, prompts: Sequence[str], pictures: np.ndarray) -> list[float]:
        """Cosines between pictures and their prompts."""
        tokens = self.words(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        found = self.clip(input_ids=tokens, pixel_values=to_tensor(pictures))
        return [round(value, 4) for value in (found.image_embeds * found.text_embeds).sum(1).tolist()]

    @torch.no_grad()
    def reconstruction(self, count: int) -> np.ndarray:  # [count], dB
        """Peak signal-to-noise ratio of unseen pictures of the world, encoded and decoded."""
        vae, values = self.pipeline.vae, []
        scenes = [world_scene(prompt_for(HELD_OUT + i), HELD_OUT + i) for i in range(count)]
        for part in to_tensor(pictures_of(scenes, 64)).split(BATCH):
            decoded = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            values.append(-10 * ((decoded - part) / 2).square().mean((1, 2, 3)).log10())
        return torch.cat(values).numpy()


def make_rows(bench: Bench, plans: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], out: Path) -> None:
    """Append a row of the model for every picture and settings, and once one of the world, where they are missing."""
    known = {_key(row) for row in read_rows(out)}
    with out.open("a", encoding="utf-8") as file:
        for chosen in [None, *settings]:
            todo = [{**row, "settings": chosen} for row in plans if _key({**row, "settings": chosen}) not in known]
            for part in _parts(todo, BATCH):
                begun = time.process_time()
                if chosen is None:
                    pictures = pictures_of([world_scene(row["prompt"], row["seed"]) for row in part], 64)
                else:
                    pictures = bench.pictures(part, **chosen)
                for row, told in zip(part, bench.measured(part, pictures), strict=True):
                    file.write(json.dumps({**row, **told}) + "\n")
                file.flush()
                spent = (time.process_time() - begun) / len(part)
                print(f"{chosen or 'world'}: {part[0]['group']} {part[0]['seed']}, {spent:.2f} s each", flush=True)


def make_reconstructions(bench: Bench, out: Path) -> None:
    """Append how well the autoencoder gives unseen pictures back, once."""
    if not any(row["group"] == AUTOENCODER for row in read_rows(out)):
        values = [round(float(value), 3) for value in bench.reconstruction(RECONSTRUCTED)]
        row = {"group": AUTOENCODER, "prompt": "", "seed": HELD_OUT, "settings": None, "psnr": values}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier start; a line cut off by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _key(row: dict[str, Any]) -> tuple[str, str, int, str]:
    return row["group"], row["prompt"], row["seed"], json.dumps(row["settings"])


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


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


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A line for the world and for each setting, in Markdown; the goals stand last."""
    print("\n| group | pictures | n | kind | colour | view | number | kind and colour | CLIP | nearest |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    pictures = [row for row in rows if row["group"] != AUTOENCODER]
    groups = dict.fromkeys((row["group"], json.dumps(row["settings"])) for row in pictures)
    for group, settings in groups:
        part = [row for row in pictures if (row["group"], json.dumps(row["settings"])) == (group, settings)]
        cells = [share([row[name] for row in part]) for name in ("kind", "colour", "view", "number", "pair")]
        cells += [mean([row[name] for row in part]) for name in ("clip", "distance")]
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
    """A mean with its interval."""
    low, high = bootstrap(np.array(values))
    return f"{np.mean(values):.3g} [{low:.3g}, {high:.3g}]"


def sheet(
    draw: Callable[[Sequence[dict[str, Any]]], np.ndarray], rows: Sequence[dict[str, Any]], times: int = 3
) -> Any:
    """64 pictures in eight rows, every pixel `times` wide, as a PIL image."""
    pictures = np.concatenate([draw(part) for part in _parts(rows[:64], BATCH)])
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ASSETS / "text2image")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder with judge, clip and index")
    parser.add_argument("--seeds", default="0:512", help="first:last+1")
    parser.add_argument("--sampler", default="dpm")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--search", default="", help="settings to combine, e.g. 'guidance=5,7.5 steps=10,20'")
    parser.add_argument("--out", type=Path, required=True, help="the rows, one JSON object a line")
    parser.add_argument("--sheet", type=Path, help="PNG with the pictures of the first 64 prompts")
    parser.add_argument("--only-print", action="store_true", help="print the table of rows that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = {"sampler": given.sampler, "steps": given.steps, "guidance": given.guidance}
    rows = plan(range(*map(int, given.seeds.split(":"))))
    if not given.only_print:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        bench = Bench(given.model, given.assets)
        make_rows(bench, rows, grid_of(given.search, base), given.out)
        make_reconstructions(bench, given.out)
        if given.sheet:
            sheet(lambda part: bench.pictures(part, **base), rows).save(given.sheet)
    print_table(read_rows(given.out))


if __name__ == "__main__":
    main()
