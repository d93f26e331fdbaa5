"""Does RID protect? How alike are what thieves make from clean, noisy and protected pictures, and the person?

    python -m benchmarks.rid_effect --identities 0:16 --out runs/rid_effect.jsonl
    python -m benchmarks.rid_effect --identities 0:4 --thief lora --out runs/rid_effect.jsonl
    python -m benchmarks.rid_effect --identities 0:4 --purify jpeg75,jpeg50,resize,blur,noise,diffusion --out ...
    python -m benchmarks.rid_effect --report runs/rid_effect.jsonl

A thief learns a toy person from six pictures and draws 16; the judge compares them with twelve other pictures of that
person. Every row is one thief; rows that are there are not computed again. Settings are chosen on identities from
10,000 on and reported on the first ones. Intervals are bootstrapped over identities.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import append_row, read_rows
from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS
from engines.rid.identity import Recogniser, shipped
from engines.rid.lab import levels, likeness
from engines.rid.pgd import protect_by_search
from engines.rid.pipeline import load_diffusion
from engines.rid.portrait import apply_perturbation
from engines.rid.presets import JUDGE, MODELS, SURROGATES
from engines.rid.purify import purified
from engines.rid.quality import structural_similarity
from engines.rid.surrogate import Diffusion
from engines.rid.thief import Way, generate, personalise
from pocket import people
from studio.flags import seeds_of

FIRST = 50_000_000  # seed of the first reported identity; no model has seen it
LEARNED, HELD_OUT, DRAWN = 6, 12, 16  # pictures of an identity, and from a thief
BUDGETS = (3.0, 4.0, 6.0, 12.0, 24.0)
SEARCH = (10, 9)
KEY = ("identity", "condition", "budget", "thief", "purify", "model")


def main() -> None:
    """Read the flags; compute what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--identities", default="0:16", help="numbers of identities, e.g. 0:16; choosing: 10000:10008"
    )
    parser.add_argument("--conditions", default="clean,random,rid,pgd")
    parser.add_argument("--budgets", default=",".join(f"{budget:g}" for budget in BUDGETS), help="grey levels")
    parser.add_argument("--thief", default="full", choices=["full", "lora", "inversion"])
    parser.add_argument("--purify", default="none", help="one or several, comma separated")
    parser.add_argument("--model", default="portraits", help="folder under assets/pocket that the thief starts from")
    parser.add_argument("--defender", type=Path, default=Path(MODELS["pocket"].folder), help="folder of defenders")
    parser.add_argument("--steps", type=int, help="of the thief's learning")
    parser.add_argument("--out", type=Path, default=Path("runs/rid_effect.jsonl"))
    parser.add_argument("--sheets", type=Path, help="folder for pictures of every row")
    parser.add_argument("--report", type=Path, help="only print the table of a file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report is None:
        compute(options)
    print(table(read_rows(options.report or options.out)))


def jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row each, identity by identity, so that a run that is stopped has whole identities."""
    for identity in seeds_of(options.identities):
        for purify in options.purify.split(","):
            for condition in options.conditions.split(","):
                budgets = [0.0] if condition == "clean" else [float(text) for text in options.budgets.split(",")]
                for budget in budgets:
                    values = (identity, condition, budget, options.thief, purify, options.model)
                    yield dict(zip(KEY, values, strict=True))


def compute(options: argparse.Namespace) -> None:
    """Append the rows that are missing."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = {tuple(row[name] for name in KEY) for row in read_rows(options.out)}
    assets = Path(SURROGATES["pocket"].repo).parent
    model, judge = load_diffusion(assets / options.model), shipped(JUDGE)
    fields = SURROGATES["pocket"].ways[options.thief] | ({"steps": options.steps} if options.steps else {})
    way = Way(options.thief, **fields)
    for job in jobs(options):
        if tuple(job[name] for name in KEY) in known:
            continue
        begun = time.process_time()
        row, drawn = steal(job, model, judge, way, options.defender)
        row["seconds"] = round(time.process_time() - begun, 1)
        append_row(options.out, row)
        if options.sheets:
            save_sheet(options.sheets, row, drawn)
        print(row, flush=True)


def steal(
    job: dict[str, Any], model: Diffusion, judge: Recogniser, way: Way, defenders: Path
) -> tuple[dict[str, Any], Tensor]:
    """One thief: the row, and what was handed over and drawn, [N, 3, S, S]."""
    identity = job["identity"]
    seed = FIRST + identity
    shown = [people.sample(seed, 1000 * identity + view) for view in range(LEARNED + HELD_OUT)]
    pictures = levels(people.render(shown).rgb * 2 - 1)
    clean = torch.from_numpy(pictures[:LEARNED]).permute(0, 3, 1, 2).float() / 127.5 - 1
    handed_over = perturbed(job, clean, model, defenders)
    generator = torch.Generator().manual_seed(seed)
    learned = purified(handed_over, job["purify"], model=model, generator=generator)
    surrogate = SURROGATES["pocket"]
    stolen = personalise(
        model,
        learned,
        way,
        subject=surrogate.subject,
        person=surrogate.person,
        generator=torch.Generator().manual_seed(seed + 1),
    )
    draw = torch.Generator().manual_seed(seed + 2)
    drawn = generate(stolen, DRAWN, generator=draw, guidance=surrogate.guidance)
    numbers = likeness(judge, pictures[LEARNED:], levels(drawn))
    originals, changed = levels(clean), levels(handed_over)
    error = float(np.square(originals.astype(float) - changed).mean())
    alike = [structural_similarity(a, b) for a, b in zip(originals, changed, strict=True)]
    numbers |= {
        "psnr": round(10 * np.log10(255**2 / error), 2) if error else None,
        "ssim": round(float(np.mean(alike)), 4),
    }
    return {**job, **numbers}, torch.cat([handed_over, drawn])


def perturbed(job: dict[str, Any], clean: Tensor, model: Diffusion, defenders: Path) -> Tensor:
    """The pictures as they would be posted, on whole grey levels."""
    eps, generator = job["budget"] / GREY_LEVELS, torch.Generator().manual_seed(FIRST + job["identity"] + 3)
    match job["condition"]:
        case "clean":
            return clean
        case "random":
            delta = eps * (torch.randint(0, 2, clean.shape, generator=generator) * 2.0 - 1)
        case "rid":
            delta = defended(clean, job["budget"], defenders)
        case "pgd":
            found = protect_by_search(
                [model], clean, eps=eps, rounds=SEARCH[0], inner=SEARCH[1], prompt="a person", generator=generator
            )
            delta = found - clean
        case other:
            raise ValueError(f"no condition is called {other!r}")
    return apply_perturbation(clean, delta)[1].float() / 127.5 - 1


@torch.no_grad()
def defended(clean: Tensor, budget: float, folder: Path) -> Tensor:
    """By the smallest defender that reaches the budget."""
    found = MODELS["pocket"].file_for(budget)
    if found is None:
        raise ValueError(f"no defender reaches {budget} grey levels")
    defender = checkpoints.load(folder / found[1])
    return defender(clean) * (budget / GREY_LEVELS / defender.eps)


def save_sheet(folder: Path, row: dict[str, Any], pictures: Tensor) -> None:
    """What was handed over, then what was drawn, in rows."""
    from PIL import Image

    from engines.rid.lab import sheet

    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(str(row[part]) for part in KEY)
    Image.fromarray(sheet(levels(pictures), 11)).save(folder / f"{name}.png")


def table(rows: list[dict[str, Any]]) -> str:
    """One line a condition: means over identities with 95 % intervals, and the difference to noise of that budget."""
    groups: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        groups[tuple(row[name] for name in KEY[1:])][row["identity"]] = row
    lines = [
        "| condition | grey levels | thief | purified | model | n | identity | less than noise | no face | Fréchet "
        "| BRISQUE | PSNR | SSIM |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in sorted(groups, key=lambda key: (key[2:], key[1], key[0])):
        found = groups[key]
        noise = groups.get(("random", *key[1:]), {})
        pairs = [
            noise[who]["ism"] - row["ism"]
            for who, row in found.items()
            if who in noise and row.get("ism") is not None and noise[who].get("ism") is not None
        ]
        shown = [interval([row.get(name) for row in found.values()]) for name in ("ism", "fdfr", "fid", "brisque")]
        against = interval(pairs) if pairs and key[0] != "random" else ""
        plain = [_mean([row.get(name) for row in found.values()]) for name in ("psnr", "ssim")]
        cells = [key[0], f"{key[1]:g}", *key[2:], str(len(found)), shown[0], against, *shown[1:], *plain]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: list[float | None], draws: int = 4000) -> str:
    """Mean and bootstrapped 95 % interval."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return "none"
    rng = np.random.default_rng(0)
    means = known[rng.integers(0, len(known), (draws, len(known)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{known.mean():.3f} ({low:.3f} to {high:.3f})"


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3f}" if known else "none"


if __name__ == "__main__":
    main()
