"""Does ProlificDreamer work? VSD beside SDS on objects and on pictures, for eight prompts, over seeds.

    python -m benchmarks.prolificdreamer_effect --seeds 0:4 --out rows.jsonl
    python -m benchmarks.prolificdreamer_effect --task playground --seeds 0:32 --in-turn --out play.jsonl
    python -m benchmarks.prolificdreamer_effect --search "guidance=2,7.5" --prompts 2 --seeds 10000:10002 --out s
    python -m benchmarks.prolificdreamer_effect --device cuda --part 3/8 --out rows-3.jsonl   # and 0 to 7 beside it

Every row is one run of one method as the page makes it, with the numbers the page prints; `--in-turn` gives every
seed one of the prompts instead of all. Rows are appended as they are made and a second start goes on where the first
ended. `--part i/n` makes every n-th pair of prompt and seed with all its methods, first seeds first, so that what n
processes have made is balanced at any time; their files are joined with `cat`. On a GPU networks are recorded and
replayed (see `recorded`; `--eager` does without). Intervals are 95 % percentile bootstraps over prompts and
seeds. Settings are chosen on seeds from 10000 on (`--search`) and reported on small ones. `--broken` shows that the
numbers fail on objects that are broken on purpose.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.recorded import recorded_networks
from benchmarks.rows import RESAMPLES, grid_of, interval, read_rows
from engines.prolificdreamer import metrics
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.presets import MODELS
from engines.prolificdreamer.run import run
from engines.prolificdreamer.spec import PRESETS
from studio.contract import ModelKey

PROMPTS = (
    "a red car",
    "a yellow house",
    "a green snowman",
    "a blue mushroom",
    "a teal rocket",
    "a purple mug",
    "an orange tree",
    "a pink boat",
)
OBJECT_NUMBERS = ("iou", "rmse", "consistent", "side_error", "sharpness", "true_sharpness", "clipped", "vividness")
PICTURE_NUMBERS = ("least_variety", "variety", "distance", "saturation", "vividness", "clipped")
KEY = ("weights", "task", "method", "settings", "prompt", "seed")  # what a row is of
# What no number that is reported depends on: files, and a mesh that is as tidy as it looks.
QUICK: dict[str, Any] = {
    "formats": ("field",),
    "preview_every": 10_000,
    "checkpoint_every": 10_000,
    "mesh_grid": 16,
    "clean": False,
    "most_faces": 1_000_000,
}
UNREPORTED = ("faces",)


class BenchContext:
    """A context that keeps numbers and forgets files; networks stay in memory between runs."""

    plan, weights = "fast", None

    def __init__(
        self,
        loaded: dict[ModelKey, Any],
        told: Callable[[str], None],
        device: str = "cpu",
        pictures: Path | None = None,  # pictures are saved as files that begin so
    ) -> None:
        self.loaded, self.told, self.device, self.pictures, self.models = loaded, told, device, pictures, self
        self.numbers: dict[str, dict[str, Any]] = {}

    @contextmanager
    def borrow(self, key: ModelKey, load: Callable[[], Any]) -> Iterator[Any]:
        """A component, loaded once."""
        if key not in self.loaded:
            self.loaded[key] = load()
        yield self.loaded[key]

    def progress(self, step: int, total: int, message: str, preview: Any | None = None) -> None:
        """See `studio.contract.Context`."""
        if step % 50 == 0:
            self.told(message)

    def check(self) -> None:
        """Nobody cancels a benchmark."""

    def enough(self) -> bool:
        """Never."""
        return False

    def generator(self, seed: int) -> torch.Generator:
        """See `studio.contract.Context`."""
        return torch.Generator("cpu").manual_seed(seed)

    def save(self, name: str, kind: str, value: Any, **attributes: Any) -> str:
        """Forgotten, but for pictures that somebody wants to look at."""
        if kind == "image" and self.pictures is not None:
            image = value if isinstance(value, Image.Image) else Image.fromarray(value)
            image.save(f"{self.pictures}-{name}")
        return name

    def done(self, name: str) -> bool:
        """Nothing is."""
        return False

    def metrics(self, name: str, /, **values: Any) -> None:
        """Kept."""
        self.numbers[name] = values

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Rows are what is kept."""

    def resume(self) -> None:
        """Nothing to go on from."""


Pair = tuple[int, str]  # seed and prompt


def pairs_of(
    seeds: Sequence[int], prompts: Sequence[str], *, in_turn: bool = False, part: tuple[int, int] = (0, 1)
) -> list[Pair]:
    """Every seed with all prompts, or with one of them in turn; of those, part i of n."""
    pairs = [(seed, prompt) for seed in seeds for prompt in prompts]
    if in_turn:
        pairs = [(seed, prompts[seed % len(prompts)]) for seed in seeds]
    return pairs[part[0] :: part[1]]


def make_rows(
    task: str,
    methods: Sequence[str],
    pairs: Sequence[Pair],
    settings: Sequence[dict[str, Any]],
    out: Path,
    *,
    device: str = "cpu",
    pictures: Path | None = None,  # a folder
) -> None:
    """Append a row for every run that is not there yet."""
    weights = fingerprint()
    known = {tuple(row.get(name) for name in KEY) for row in read_rows(out)}
    loaded: dict[ModelKey, Any] = {}
    with out.open("a") as file:
        for chosen, (seed, prompt), method in itertools.product(settings, pairs, methods):
            label = json.dumps(chosen) if chosen else "default"
            row = dict(zip(KEY, (weights, task, method, label, prompt, seed), strict=True))
            if tuple(row.values()) in known:
                continue
            preset = PRESETS["playground" if task == "playground" else "preview"]
            base = {**preset, "prompt": prompt, "methods": (method,), "seed": seed, **QUICK}
            stem = pictures / f"{task}-{prompt.replace(' ', '_')}" if pictures else None
            ctx = BenchContext(loaded, lambda text: print("  " + text, flush=True), device, stem)
            begun = time.perf_counter()
            run(ctx, ProlificDreamerParams(**base | chosen))
            spent = time.perf_counter() - begun
            found = {k: v for k, v in next(iter(ctx.numbers.values())).items() if k not in UNREPORTED}
            where = {} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}
            file.write(json.dumps({**row, "seconds": round(spent, 2), **where, **found}) + "\n")
            file.flush()
            shown = {k: round(v, 3) for k, v in found.items() if isinstance(v, float)}
            print(f"{method} {label} {prompt!r} seed {seed}: {spent:.1f} s, {shown}", flush=True)


def fingerprint() -> str:
    """Which training of the pocket model this is."""
    file = Path(MODELS["pocket"].teacher.repo) / "unet" / "diffusion_pytorch_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def cell(values: Sequence[Any]) -> str:
    """Mean and interval as text."""
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    mean, low, high = interval(numbers, np.random.default_rng(0))
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def print_table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """A line for each method and settings, in Markdown."""
    print(f"\n| method | settings | n | {' | '.join(names)} | seconds |\n|{'---|' * (4 + len(names))}")
    for key in dict.fromkeys((row["method"], row["settings"]) for row in rows):
        group = [row for row in rows if (row["method"], row["settings"]) == key]
        cells = [cell([row.get(name) for row in group]) for name in (*names, "seconds")]
        print(f"| {key[0]} | {key[1]} | {len(group)} | {' | '.join(cells)} |")


def print_ratios(rows: Sequence[dict[str, Any]], name: str) -> None:
    """The error of each other method over that of VSD, paired by prompt and seed, over the means."""
    by_key = {(row["method"], row["prompt"], row["seed"]): row[name] for row in rows if row.get(name) is not None}
    print(f"\n| {name} over that of vsd | pairs | ratio of means |\n|---|---|---|")
    for method in dict.fromkeys(row["method"] for row in rows if row["method"] != "vsd"):
        pairs = np.array(
            [
                (value, by_key["vsd", prompt, seed])
                for (which, prompt, seed), value in by_key.items()
                if which == method and ("vsd", prompt, seed) in by_key
            ]
        )
        if not len(pairs):
            continue
        rng = np.random.default_rng(0)
        drawn = pairs[rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))].mean(axis=1)
        low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (2.5, 97.5))
        mean = pairs.mean(axis=0)
        print(f"| {method} | {len(pairs)} | {mean[0] / mean[1]:.2f} [{low:.2f}, {high:.2f}] |")


def show_broken() -> None:
    """The numbers of the truth, and of objects broken on purpose: they have to tell them apart."""
    radius, theta, fovy = 3.2, 73.0, 42.0
    print("| object | iou | rmse | side error | consistent |\n|---|---|---|---|---|")
    for prompt in PROMPTS[:4]:
        colour, cover = metrics.true_views(prompt, radius, theta, fovy, metrics.AROUND)  # type: ignore[misc]
        grey = np.full_like(colour, metrics.GREY)
        front = np.repeat(colour[:1], len(colour), axis=0)
        front_cover = np.repeat(cover[:1], len(cover), axis=0)
        pure = np.where(colour > metrics.GREY, 1.0, 0.0) * cover[:, None] + metrics.GREY * (1 - cover[:, None])
        cases = {
            "the truth": (colour, cover),
            "the front on every side": (front, front_cover),
            "turned by 90 degrees": (np.roll(colour, 2, axis=0), np.roll(cover, 2, axis=0)),
            "pure colours": (pure, cover),
            "nothing": (grey, np.zeros_like(cover)),
        }
        for title, (seen, where) in cases.items():
            n = metrics.of_object(seen, where, prompt, radius, theta, fovy)
            cells = f"{n['iou']:.3f} | {n['rmse']:.3f} | {n['side_error']:.0f} | {n['consistent']}"
            print(f"| {prompt}: {title} | {cells} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="object", choices=["object", "playground"])
    parser.add_argument("--seeds", default="0:4", help="first:last+1")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts")
    parser.add_argument("--in-turn", action="store_true", help="one prompt a seed, in turn")
    parser.add_argument("--methods", default="", help="comma-separated; default: all of the task")
    parser.add_argument("--search", default="", help="settings to combine, e.g. 'guidance=2,7.5'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--eager", action="store_true", help="on a GPU: do not record networks")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th pair of prompt and seed from i on")
    parser.add_argument("--pictures", type=Path, help="folder for posters and sheets")
    parser.add_argument("--weights", type=Path, help="another folder of the pocket model's layout")
    parser.add_argument("--out", type=Path, help="file of the rows")
    parser.add_argument("--only-print", action="store_true", help="print the tables of rows that are there")
    parser.add_argument("--broken", action="store_true", help="show the numbers of broken objects and end")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.broken:
        show_broken()
        return
    if given.out is None:
        parser.error("--out is needed")
    if given.weights is not None:
        source = replace(MODELS["pocket"].teacher, repo=str(given.weights))
        MODELS["pocket"] = replace(MODELS["pocket"], teacher=source)
    playing = given.task == "playground"
    methods = (
        given.methods.split(",") if given.methods else ["vsd", "sds", "sds_50", "sds_100"] + ["ancestral"] * playing
    )
    seeds = range(*map(int, given.seeds.split(":")))
    if not given.only_print:
        prompts = PROMPTS[: given.prompts]
        first, parts = map(int, given.part.split("/"))
        pairs = pairs_of(seeds, prompts, in_turn=given.in_turn, part=(first, parts))
        if given.pictures is not None:
            given.pictures.mkdir(parents=True, exist_ok=True)
        with recorded_networks() if given.device != "cpu" and not given.eager else nullcontext():
            make_rows(
                given.task,
                methods,
                pairs,
                grid_of(given.search),
                given.out,
                device=given.device,
                pictures=given.pictures,
            )
    chosen = {"weights": fingerprint(), "task": given.task}
    rows = [row for row in read_rows(given.out) if row["seed"] in seeds and chosen.items() <= row.items()]
    print_table(rows, PICTURE_NUMBERS if playing else OBJECT_NUMBERS)
    if not playing:
        print_ratios(rows, "rmse")


if __name__ == "__main__":
    main()
