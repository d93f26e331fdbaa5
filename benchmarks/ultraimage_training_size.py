"""How good is the pocket model for UltraImage at the size it was trained for? Prints a table, keeps every row.

    python -m benchmarks.ultraimage_training_size --seeds 0:256 --guidance 3 --out rows.jsonl

Two prompts per seed, one with one object and one with two, are taken from the flat world; the picture of a prompt
starts from the same seed. Sampling is the plain, unmodified `FluxPipeline`. Proportions carry Wilson intervals, means
bootstrap intervals over seeds, both 95 %. The judge was trained on world renders alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline

from engines.ultraimage.judge import Judge
from engines.ultraimage.metrics import measure
from pocket.flatworld import caption, sample_scene

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "pocket"
BATCH = 16


def prompts(seeds: range) -> list[dict]:
    """One single-object and one two-object prompt for every seed."""
    return [
        {"group": group, "seed": seed, "prompt": caption(sample_scene(seed, two=float(group == "two objects")))}
        for group in ("one object", "two objects")
        for seed in seeds
    ]


def generate(pipeline: FluxPipeline, rows: list[dict], side: int, steps: int, guidance: float) -> np.ndarray:
    """Pictures uint8 [B, side, side, 3] for a batch of rows, each from its own seed."""
    images = pipeline(
        [row["prompt"] for row in rows],
        negative_prompt=[""] * len(rows),
        true_cfg_scale=guidance,
        height=side,
        width=side,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(row["seed"]) for row in rows],
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion."""
    z, share = 1.96, hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: np.ndarray, rounds: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of a mean."""
    draws = np.random.default_rng(0).integers(0, len(values), (rounds, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return float(low), float(high)


def table(rows: list[dict]) -> str:
    """The report, one block per group of prompts."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        part = [row for row in rows if row["group"] == group]
        lines.append(f"{group}, n = {len(part)}")
        for name, values in (
            ("right number of objects", [row["exact"] for row in part]),
            ("one horizon", [row["horizons"] == 1 for row in part]),
        ):
            low, high = wilson(sum(values), len(values))
            lines.append(f"  {name:32} {100 * np.mean(values):6.1f} %  [{100 * low:.1f}, {100 * high:.1f}]")
        for name, key, factor, unit in (
            ("kind and colour recognised", "recognised", 100, "%"),
            ("objects", "objects", 1, ""),
            ("vividness", "vividness", 1, ""),
            ("seam", "seam", 1, ""),
        ):
            values = np.array([row[key] for row in part], float) * factor
            low, high = bootstrap(values)
            lines.append(f"  {name:32} {values.mean():6.2f} {unit:1}  [{low:.2f}, {high:.2f}]")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ASSETS / "ultraimage")
    parser.add_argument("--seeds", default="0:256", help="FIRST:END")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="file for the rows, one JSON object a line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = FluxPipeline.from_pretrained(options.model, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    judge = Judge.load(ASSETS / "ultraimage_judge")
    rows, start = prompts(range(*map(int, options.seeds.split(":")))), time.monotonic()
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        pictures = generate(pipeline, batch, options.side, options.steps, options.guidance)
        for row, picture in zip(batch, pictures, strict=True):
            row.update(measure(picture, row["prompt"], judge))
    print(table(rows))
    print(f"{len(rows)} pictures of {options.side} px in {time.monotonic() - start:.0f} s, {options.steps} steps")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
