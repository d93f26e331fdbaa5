"""How good is the pocket model for UltraViCo at the length it was trained for? Prints a table, keeps every row.

    python -m benchmarks.ultravico_training_size --seeds 0:128 --out runs/video_training_size.jsonl

Every seed has one caption and one true clip, drawn from the world of moving things; the model's video of the caption
starts from the same seed. Sampling is the plain, unmodified `WanPipeline`. The finder of objects is tried on the true
clips first: what it says of them is the first line of the table. Rows are appended as they are made, and a second
start goes on where the first ended. Intervals are 95 % bootstraps over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline

from benchmarks.rows import batches, interval, read_rows, workers
from benchmarks.ultravico_effect import caption_of
from engines.ultravico.metrics import consistency, drift, follow, speed, survival
from engines.ultravico.presets import MODELS
from pocket.clips import SIDE, render, sample

NUMBERS = ("survival", "speed", "drift", "consistency")
FRAMES = 45


def measured(group: str, seed: int, frames: np.ndarray) -> dict[str, Any]:
    """The row of one video, uint8 [T, H, W, 3]."""
    track = follow(frames)
    return {
        "group": group,
        "seed": seed,
        "survival": survival(track),
        "speed": speed(track) or 0.0,
        "drift": drift(frames),
        "consistency": consistency(frames),
    }


def generate(pipeline: WanPipeline, seeds: list[int], steps: int, guidance: float) -> np.ndarray:
    """Videos uint8 [B, T, H, W, 3], each from its own seed."""
    frames = pipeline(
        [caption_of(seed) for seed in seeds],
        negative_prompt=[""] * len(seeds),
        guidance_scale=guidance,
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        max_sequence_length=pipeline.tokenizer.model_max_length,
        output_type="np",
    ).frames
    return (np.asarray(frames) * 255).round().astype(np.uint8)


def table(rows: list[dict[str, Any]]) -> str:
    """The report; the last line is what must hold."""
    groups = {name: [row for row in rows if row["group"] == name] for name in ("data", "model")}
    lines = [f"| | n | {' | '.join(NUMBERS)} |", f"|{'---|' * (2 + len(NUMBERS))}"]
    for name, rows in groups.items():
        cells = []
        for number in NUMBERS:
            values = np.array([row[number] for row in rows])
            cells.append("{:.4f} [{:.4f}, {:.4f}]".format(*interval(values, np.random.default_rng(0))))
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    true, made = (np.array([row["speed"] for row in groups[name]]) for name in ("data", "model"))
    share = made.mean() / true.mean()
    alive = np.mean([row["survival"] for row in groups["model"]])
    return (
        "\n".join(lines) + f"\n\nexactly one object in {100 * alive:.2f} % of frames; speed {share:.3f} of the data's"
    )


def main() -> None:
    """The command line."""
    model = MODELS["pocket"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:128", help="first:last+1")
    parser.add_argument("--steps", type=int, default=model.settings["steps"])
    parser.add_argument("--guidance", type=float, default=model.settings["guidance"])
    parser.add_argument("--weights", type=Path, default=Path(model.repo))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes that measure")
    parser.add_argument("--out", type=Path, default=Path("runs/ultravico_training_size.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = range(*map(int, given.seeds.split(":")))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["group"], row["seed"]) for row in read_rows(given.out)}
    with workers(given.jobs) as many, given.out.open("a") as file:

        def keep(rows: list[dict[str, Any]]) -> None:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()

        new = [seed for seed in seeds if ("data", seed) not in known]
        keep(many(measured, ["data"] * len(new), new, [render(sample(seed), FRAMES) for seed in new]))
        pipeline = WanPipeline.from_pretrained(given.weights).to(given.device)
        pipeline.set_progress_bar_config(disable=True)
        for some in batches([seed for seed in seeds if ("model", seed) not in known], given.batch):
            begun = time.process_time()
            videos = generate(pipeline, list(some), given.steps, given.guidance)
            spent = (time.process_time() - begun) / len(some)
            keep(many(measured, ["model"] * len(some), some, videos))
            print(f"seeds {some[0]}..{some[-1]}, {spent:.1f} CPU s each", flush=True)
    print(table([row for row in read_rows(given.out) if row["seed"] in seeds]))


if __name__ == "__main__":
    main()
