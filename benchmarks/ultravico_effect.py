"""Does UltraViCo work? Repetition, speed, drift and survival of the object, for every method, over seeds.

    python -m benchmarks.ultravico_effect --ratios 2,3,4 --search "alpha=0.9,0.5" --out rows.jsonl
    python -m benchmarks.ultravico_effect --search "alpha=0.9,0.7,0.5,0.3" --methods ultravico \\
        --seeds 10000:10016 --out search.jsonl

Every seed has one caption and one true clip, drawn from the world of moving things, and one noise, shared by all
methods. The rows of the method `data` are the true clip, measured by the same rules. Rows are appended as they are
made, and a second start goes on where the first ended. On a GPU (`--device cuda --batch 64 --jobs 8`) noise is still
drawn on the processor, so that seeds mean the same videos. Intervals are 95 % percentile bootstraps over seeds.
Settings are chosen on seeds from 10000 on (`--search`) and reported once on 0:64.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import RESAMPLES, Many, batches, grid_of, interval, read_rows, workers
from engines.ultravico.attention import best_way
from engines.ultravico.families import Shape
from engines.ultravico.hooks import decayed, positions
from engines.ultravico.methods import decay_for, position_rule
from engines.ultravico.metrics import drift, follow, most_repetition, repetition, speed, survival
from engines.ultravico.norepeat import no_repeat_score
from engines.ultravico.pipeline import Weights, locate
from engines.ultravico.plot import COLUMNS, contact_sheet, thumbnails
from engines.ultravico.presets import METHODS, MODELS
from engines.ultravico.sampling import Level, Moment, denoise, scheduler_like
from engines.ultravico.spec import OWN_DECAY, UltraVicoParams, length_of, size_of
from pocket.clips import render, sample, write

NUMBERS = ("repetition", "most_repetition", "speed", "speed_share", "drift", "survival", "no_repeat")
DATA = "data"
ROWS = 128  # of logits at a time


@dataclass(frozen=True)
class Plan:
    """One cell of the table: a method with its settings."""

    method: str
    label: str
    params: UltraVicoParams

    @property
    def key(self) -> tuple[str, str, float]:
        """What rows of this cell have in common."""
        return self.method, self.label, length_of(self.params).ratio


def caption_of(seed: int) -> str:
    """All that is true of the clip of a seed."""
    return write(sample(seed).truth)


class Sampler:
    """The pocket model in memory, sampling several seeds in one batch with each seed's own noise."""

    def __init__(self, weights: Weights, device: str = "cpu") -> None:
        self.device = device
        self.model, self.family = weights.source, weights.family
        self.parts = {name: weights.load(name, device) for name in ("transformer", "scheduler", "vae")}
        self.text = {name: weights.load(name, device) for name in self.family.text_parts}

    @torch.no_grad()
    def videos(self, plan: Plan, seeds: Sequence[int]) -> np.ndarray:  # uint8 [B, T, H, W, 3]
        """One video per seed; of the method `data` the true clips."""
        params, family = plan.params, self.family
        length, (width, height) = length_of(params), size_of(params)
        if plan.method == DATA:
            return np.stack([render(sample(seed), length.frames) for seed in seeds])
        shape = Shape(length.latent_frames, length.frames, height, width)
        per_frame = family.tokens_per_frame(shape)
        two = params.guidance > 1
        texts = [[caption_of(seed) for seed in seeds], [params.negative_prompt] * len(seeds)][: 1 + two]
        conditions = [family.encode(self.text, text, self.device) for text in texts]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = family.draw_noise(shape, generators, self.device, torch.float32)
        transformer = self.parts["transformer"]
        rotary = (family.temporal_dim, family.theta, shape.latent_frames)
        rule = position_rule(plan.method, params, *rotary)
        decay = decay_for(plan.method, params, per_frame, rule, *rotary)
        level, scheduler = Level(), scheduler_like(self.parts["scheduler"], self.model, params.shift)
        with ExitStack() as stack:
            if rule is not None:
                stack.enter_context(positions(transformer, lambda: rule(level.value)))
            if decay is not None:
                way = best_way(self.device, torch.float32, family.head_dim, ROWS)
                stack.enter_context(decayed(transformer, decay, way.path, per_frame * shape.latent_frames))
            latents = denoise(
                family,
                transformer,
                scheduler,
                params.steps,
                Moment(noise),
                conditions,
                params.guidance,
                generators[0],
                lambda *_: None,
                level=level,
            )
        return family.decode(self.parts["vae"], latents, tiles=False)


def numbers_of(frames: np.ndarray, plan: Plan, seed: int) -> dict[str, float | None]:
    """Everything that is measured of the video of a seed, uint8 [T, H, W, 3]."""
    truth = speed(follow(render(sample(seed), len(frames)))) or float("nan")
    model = MODELS[plan.params.model]
    assert model.period is not None
    lag = round(model.period * model.frames_per_latent)
    track = follow(frames)
    moved = speed(track)
    score = no_repeat_score(frames, lag, model.repeat_distance)
    return {
        "repetition": repetition(track, lag),
        "most_repetition": most_repetition(track, model.frames_per_latent * (model.train_latent_frames - 1) + 1),
        "speed": moved,
        "speed_share": None if moved is None else moved / truth,
        "drift": drift(frames),
        "survival": survival(track),
        "no_repeat": None if score["static"] else score["score"],
    }


def make_rows(
    sampler: Sampler,
    plans: Sequence[Plan],
    seeds: Sequence[int],
    batch: int,
    out: Path,
    sheets: Path | None,
    many: Many,
) -> None:
    """Append one row for every (method, settings, ratio, seed) that is not there yet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["method"], row["settings"], row["ratio"], row["seed"]) for row in read_rows(out)}
    with out.open("a") as file:
        for plan in plans:
            todo = [seed for seed in seeds if (*plan.key, seed) not in known]
            for some in batches(todo, batch):
                begun = time.process_time()
                videos = sampler.videos(plan, some)
                spent = (time.process_time() - begun) / len(some)
                for seed, numbers in zip(some, many(numbers_of, videos, [plan] * len(some), some), strict=True):
                    row = dict(zip(("method", "settings", "ratio"), plan.key, strict=True))
                    file.write(json.dumps(row | {"seed": seed, "caption": caption_of(seed), **numbers}) + "\n")
                file.flush()
                print(
                    f"{' '.join(map(str, plan.key))}: seeds {some[0]}..{some[-1]}, {spent:.1f} CPU s each", flush=True
                )
                if sheets is not None:
                    save_sheet(sheets, plan, some, videos)


def save_sheet(folder: Path, plan: Plan, seeds: Sequence[int], videos: np.ndarray) -> None:
    """A row of frames for every seed, to be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {caption_of(seed): thumbnails(frames) for seed, frames in zip(seeds, videos, strict=True)}
    fps = MODELS[plan.params.model].fps
    sheet: Image.Image = contact_sheet(rows, [float(t) for t in np.linspace(0, len(videos[0]) / fps, COLUMNS)])
    name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in "-".join(map(str, plan.key)))
    sheet.save(folder / f"{name}-{seeds[0]}.png")


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each method, settings and ratio, in Markdown."""
    print(f"\n| ratio | method | settings | n | {' | '.join(NUMBERS)} |\n|{'---|' * (4 + len(NUMBERS))}")
    order = [DATA, "direct", *(name for name in METHODS if name != "direct")]
    keys = dict.fromkeys((row["ratio"], row["method"], row["settings"]) for row in rows)
    for key in sorted(keys, key=lambda k: (k[0], order.index(k[1]), k[2])):
        group = [row for row in rows if (row["ratio"], row["method"], row["settings"]) == key]
        cells = []
        for name in NUMBERS:
            values = np.array([np.nan if row[name] is None else float(row[name]) for row in group])
            digits = 4 if name == "drift" else 2
            cells.append(
                "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*interval(values, np.random.default_rng(0)), d=digits)
            )
        print(f"| {key[0]:g}x | {key[1]} | {key[2]} | {len(group)} | {' | '.join(cells)} |")


def print_gains(rows: Sequence[dict[str, Any]]) -> None:
    """Repetition of every cell as a share of direct sampling's, with an interval over the same seeds."""
    by_key = {(row["ratio"], row["method"], row["settings"], row["seed"]): row for row in rows}
    cells = sorted({(row["ratio"], row["method"], row["settings"]) for row in rows if row["method"] != DATA})
    print("\n| ratio | method | settings | pairs | repetition over direct's | speed over data's |")
    print("|" + 6 * "---|")
    for ratio, method, settings in cells:
        direct = {key[3]: row for key, row in by_key.items() if key[:3] == (ratio, "direct", undecayed(settings))}
        mine = {key[3]: row for key, row in by_key.items() if key[:3] == (ratio, method, settings)}
        # A seed whose object is nowhere to be seen one period later says nothing about repetition: it is left out.
        both = [s for s in mine if s in direct and None not in (mine[s]["repetition"], direct[s]["repetition"])]
        pairs = np.array([[rows[s]["repetition"] for rows in (mine, direct)] for s in both]).reshape(-1, 2)
        if not len(pairs):
            continue
        rng = np.random.default_rng(0)
        drawn = pairs[rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))].mean(1)
        low, high = np.percentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-9), (2.5, 97.5))
        shares = np.array([np.nan if mine[s]["speed_share"] is None else mine[s]["speed_share"] for s in both], float)
        pace = "{:.2f} [{:.2f}, {:.2f}]".format(*interval(shares, rng))
        over = pairs[:, 0].mean() / max(pairs[:, 1].mean(), 1e-9)
        print(f"| {ratio:g}x | {method} | {settings} | {len(both)} | {over:.2f} [{low:.2f}, {high:.2f}] | {pace} |")


def undecayed(settings: str) -> str:
    """The label of the same settings where nothing decays."""
    kept = {} if settings == "default" else {n: v for n, v in json.loads(settings).items() if n not in OWN_DECAY}
    return json.dumps(kept) if kept else "default"


def plans_of(given: argparse.Namespace) -> list[Plan]:
    """Every method with every setting that means something to it: no decay where nothing decays, nothing for data."""
    plans: dict[tuple[str, str, float], Plan] = {}
    cells = itertools.product(map(float, given.ratios.split(",")), given.methods.split(","), grid_of(given.search))
    for ratio, method, chosen in cells:
        decays = method in METHODS and METHODS[method].decays
        kept = {} if method == DATA else {name: v for name, v in chosen.items() if decays or name not in OWN_DECAY}
        strength = {"strength": "custom"} if any(name in OWN_DECAY for name in kept) else {}
        params = UltraVicoParams(prompt="a ball", ratio=ratio, **strength, **kept)
        plan = Plan(method, json.dumps(kept) if kept else "default", params)
        plans.setdefault(plan.key, plan)
    return list(plans.values())


def located(folder: Path | None) -> Weights:
    """The shipped model, or one that is still being trained."""
    if folder is not None:
        MODELS["pocket"] = replace(MODELS["pocket"], repo=str(folder))
    return locate("pocket", None)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:64", help="first:last+1")
    parser.add_argument("--methods", default="data,direct,pi,ntk,yarn,riflex,ultravico")
    parser.add_argument("--ratios", default="2", help="lengths over the training length, one after the other")
    parser.add_argument("--search", default="", help="settings to combine, e.g. 'steps=8 alpha=0.9,0.5,0.3'")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes that measure")
    parser.add_argument("--weights", type=Path, help="another folder of the pocket model's layout")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of every batch")
    parser.add_argument("--out", type=Path, default=Path("runs/ultravico_effect.jsonl"))
    parser.add_argument("--only-print", action="store_true", help="print the table of rows that are there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = range(*map(int, given.seeds.split(":")))
    if not given.only_print:
        sampler = Sampler(located(given.weights), given.device)
        with workers(given.jobs) as many:
            make_rows(sampler, plans_of(given), seeds, given.batch, given.out, given.sheets, many)
    rows = [row for row in read_rows(given.out) if row["seed"] in seeds]
    print_table(rows)
    print_gains(rows)


if __name__ == "__main__":
    main()
