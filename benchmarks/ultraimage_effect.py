"""Does UltraImage work? Objects, horizons, vividness, seams and recognised kinds, for every method, over seeds.

    python -m benchmarks.ultraimage_effect --seeds 0:64 --scale 2 --out rows-2x.jsonl
    python -m benchmarks.ultraimage_effect --search "margin=0.85,0.9 steps=12" --seeds 10000:10032 --out s.jsonl

Every seed has one prompt with a single object, fixed by the seed, and one noise, shared by all methods. Rows are
appended as they are made and a second start goes on where the first ended. Intervals are 95 % percentile bootstraps
over seeds. Settings are chosen on seeds from 10000 on (`--search`) and reported once on 0:64.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rows import batches, grid_of, interval, read_rows
from engines.ultraimage.calibration import NOISE_SEED, head_entropies
from engines.ultraimage.hooks import Rule, focus, positions
from engines.ultraimage.judge import Judge, shipped
from engines.ultraimage.methods import entropy_measure, focus_table, position_rule, proportional_table
from engines.ultraimage.metrics import measure
from engines.ultraimage.pipeline import Weights, locate
from engines.ultraimage.presets import METHODS, MODELS
from engines.ultraimage.sampling import denoise, scheduler_for
from engines.ultraimage.spec import UltraImageParams, target_size
from pocket.grammar import COLOURS, KINDS, SKIES, ObjectSpec, SceneSpec, write

NUMBERS = ("objects", "exact", "horizons", "vividness", "seam", "recognised")


def prompt_for(seed: int) -> str:
    """One object of a colour and kind under a sky, fixed by the seed."""
    rng = np.random.default_rng(seed)
    thing = ObjectSpec(str(rng.choice(KINDS)), str(rng.choice(COLOURS)))
    return write(SceneSpec((thing,), str(rng.choice(SKIES))))


class Sampler:
    """The pocket model in memory, sampling several seeds in one batch with each seed's own noise."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.model, self.family = self.weights.source, self.weights.family
        self.parts = {name: weights.load(name, "cpu") for name in ("transformer", "scheduler", "vae")}
        self.text = {name: weights.load(name, "cpu") for name in self.family.text_parts}
        prompts = (self.model.calibration_prompt, "")
        self.calibration = [self.family.encode(self.text, [prompt], "cpu") for prompt in prompts]
        self.entropies: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def pictures(self, method: str, params: UltraImageParams, seeds: Sequence[int]) -> list[np.ndarray]:
        """One uint8 picture [H, W, 3] per seed."""
        width, height = target_size(params)
        grid = (height // self.family.cell, width // self.family.cell)
        prompts = [prompt_for(seed) for seed in seeds]
        conditions = [self.family.encode(self.text, texts, "cpu") for texts in (prompts, [""] * len(seeds))]
        shape = (1, *self.family.latent_shape(width, height))
        noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        rule = position_rule(method, params, self.model, grid, conditions[0].tokens)
        table = self._table(method, params, rule, grid, conditions[0].tokens)
        transformer = self.parts["transformer"]
        scheduler = scheduler_for(self.parts["scheduler"].config, params.steps, params.shift, grid[0] * grid[1])
        with positions(transformer, rule) as place, focus(transformer, table) as focused:
            latents = denoise(
                self.family,
                transformer,
                scheduler,
                noise,
                conditions,
                params.guidance,
                lambda *_: None,
                place=place,
                focus=focused,
            )
        return [np.asarray(picture) for picture in self.family.decode(self.parts["vae"], latents, tiles=False)]

    def _table(
        self, method: str, params: UltraImageParams, rule: Rule | None, grid: tuple[int, int], text: int
    ) -> torch.Tensor | None:
        """The same table as a run with a shared calibration."""
        sequence, family = text + grid[0] * grid[1], self.family
        if METHODS[method].attention == "proportional":
            return proportional_table(self.model, sequence, family.layers, family.heads, family.head_dim)
        if METHODS[method].attention == "plain" or sequence <= self.model.attention_sequence:
            return None
        key = json.dumps([METHODS[method].position, grid, params.margin, params.indices, params.lambda_preset])
        if key not in self.entropies:
            shape = (1, *family.latent_shape(grid[1] * family.cell, grid[0] * family.cell))
            noise = torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED))
            measured = entropy_measure(params)
            transformer = self.parts["transformer"]
            self.entropies[key] = head_entropies(
                family, transformer, noise, self.calibration, params.guidance, rule, measured
            )
        return focus_table(self.entropies[key], params, self.model, sequence)


def make_rows(
    sampler: Sampler,
    judge: Judge,
    plans: Sequence[tuple[str, str, UltraImageParams]],
    seeds: Sequence[int],
    batch: int,
    out: Path,
) -> None:
    """Append one row for every (method, settings, seed) that is not there yet."""
    known = {(row["method"], row["settings"], row["scale"], row["seed"]) for row in read_rows(out)}
    with out.open("a") as file:
        for label, method, params in plans:
            todo = [seed for seed in seeds if (method, label, params.scale, seed) not in known]
            for chunk in batches(todo, batch):
                begun = time.perf_counter()
                for seed, picture in zip(chunk, sampler.pictures(method, params, chunk), strict=True):
                    found = measure(picture, prompt_for(seed), judge)
                    row = {"method": method, "settings": label, "scale": params.scale, "seed": seed}
                    row |= {"prompt": prompt_for(seed), **{name: found[name] for name in NUMBERS}}
                    file.write(json.dumps(row) + "\n")
                file.flush()
                spent = (time.perf_counter() - begun) / len(chunk)
                print(
                    f"{method} {label} x{params.scale:g}: seeds {chunk[0]}..{chunk[-1]}, {spent:.1f} s each",
                    flush=True,
                )


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each method, settings and scale, in Markdown."""
    print(f"\n| scale | method | settings | n | {' | '.join(NUMBERS)} |\n|{'---|' * (4 + len(NUMBERS))}")
    keys = dict.fromkeys((row["scale"], row["method"], row["settings"]) for row in rows)
    for key in sorted(keys, key=lambda k: (k[0], list(METHODS).index(k[1]), k[2])):
        group = [row for row in rows if (row["scale"], row["method"], row["settings"]) == key]
        cells = []
        for name in NUMBERS:
            values = np.array([np.nan if row[name] is None else float(row[name]) for row in group])
            mean, low, high = interval(values, np.random.default_rng(0))
            cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]")
        print(f"| {key[0]:g}x | {key[1]} | {key[2]} | {len(group)} | {' | '.join(cells)} |")


def print_gains(rows: Sequence[dict[str, Any]]) -> None:
    """What concentration adds to frequency correction, paired by seed: mean difference and its interval."""
    by_key = {(row["scale"], row["settings"], row["method"], row["seed"]): row for row in rows}
    groups = sorted({(row["scale"], row["settings"]) for row in rows})
    print("\n| scale | settings | ultraimage minus frequency_only | pairs | difference |\n|---|---|---|---|---|")
    for scale, settings in groups:
        seeds = sorted({row["seed"] for row in rows})
        pairs = [
            (by_key[scale, settings, "ultraimage", s], by_key[scale, settings, "frequency_only", s])
            for s in seeds
            if {(scale, settings, m, s) for m in ("ultraimage", "frequency_only")} <= by_key.keys()
        ]
        for name in NUMBERS if pairs else ():
            values = np.array([float(a[name] or 0) - float(b[name] or 0) for a, b in pairs])
            mean, low, high = interval(values, np.random.default_rng(0))
            sign = "significant" if low > 0 or high < 0 else "not significant"
            print(
                f"| {scale:g}x | {settings} | {name} | {len(pairs)} | {mean:+.3f} [{low:+.3f}, {high:+.3f}] {sign} |"
            )


def located(folder: Path | None) -> Weights:
    """The shipped model, or one that is still being trained."""
    if folder is not None:
        MODELS["pocket"] = replace(MODELS["pocket"], repo=str(folder))
    return locate("pocket", None)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:64", help="first:last+1")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--search", default="", help="settings to combine, e.g. 'margin=0.85,0.9'")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="another folder of the pocket model's layout")
    parser.add_argument("--judge", type=Path, help="another folder with a judge")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only-print", action="store_true", help="print the table of rows that are there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = range(*map(int, given.seeds.split(":")))
    if not given.only_print:
        plans = [
            (json.dumps(chosen) if chosen else "default", method, UltraImageParams(scale=given.scale, **chosen))
            for chosen in grid_of(given.search)
            for method in given.methods.split(",")
        ]
        weights = located(given.weights)
        judge = shipped(given.judge or weights.folder.with_name(weights.folder.name + "_judge"))
        make_rows(Sampler(weights), judge, plans, seeds, given.batch, given.out)
    rows = [row for row in read_rows(given.out) if row["seed"] in seeds]
    print_table(rows)
    print_gains(rows)


if __name__ == "__main__":
    main()
