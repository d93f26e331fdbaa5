"""The recipe of the pocket defender: what it is built of, what it learns from, and at which budgets.

One network a budget, each started from the one before. The first learns the published objective, with targets:
pictures protected one by one through the autoencoders. So small a network learns little more from those than a tint,
and what autoencoders give back of a picture tells it directly where to go: that is asked for from then on, beside the
published parts, and at last that nothing changes where it would show, on even areas. Against both pocket portrait
models, as it ships; against the first alone, so that a thief can start from one it has not seen; and through rough
treatment of the pictures. The pictures are those the identity embedder is trained on; everybody who is examined later
has seeds of their own. Knows how to train; knows nothing of thieves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engines.rid.pipeline import load_diffusion, save_defender, search
from engines.rid.train import GREY_LEVELS, Protecting, build, hidden, to_float, to_levels
from engines.shared.training import Recipe, best_device, load_average, train
from pocket import identity

SHAPE = (64, 8, 192, 5, 6)  # pixels, patch, width, depth, heads
LARGEST = 24.0  # grey levels


@dataclass(frozen=True)
class Variant:
    """What a family of defenders is trained against."""

    surrogates: tuple[str, ...]
    rough: bool = False  # perturbed pictures are shrunk, saved as JPEG or made grainy every other time


VARIANTS = {
    "rid": Variant(("portraits", "portraits_b")),
    "rid_alone": Variant(("portraits",)),
    "rid_rough": Variant(("portraits", "portraits_b"), rough=True),
}
TARGETS = 1024  # pictures whose perturbation is searched for
TOGETHER = 32  # of them, at a time
ROUNDS, INNER = 2, 10  # of the search
BESIDE: dict[str, Any] = {"batch": 16, "ranks": 1, "warmup": 20, "muon_rate": 0.01, "adam_rate": 1e-3, "ema": 0.98}
FASTER: dict[str, Any] = BESIDE | {"muon_rate": 0.02}
GIVEN_BACK: dict[str, Any] = {"regression": 0.3, "paired": 0.25, "reconstruction": 1.0}
UNNOTICED: dict[str, Any] = {"reconstruction": 1.0, "showing": 3.0}  # and no targets, which show


@dataclass(frozen=True)
class Stage:
    """One training, from where the one before ended."""

    name: str
    budget: float  # grey levels
    recipe: Recipe
    regression: float = 0.0  # weight of the L1 to the targets
    paired: float = 0.0  # share of a batch that has targets; 0 is without any
    reconstruction: float = 0.0  # weight of what the autoencoders give back
    showing: float = 0.0  # weight of what shows on even areas


STAGES = (
    Stage(
        "24-published",
        LARGEST,
        Recipe(
            seed=31, steps=1400, batch=32, ranks=1, warmup=20, cooldown=900, muon_rate=0.03, adam_rate=2e-3, ema=0.99
        ),
        regression=10.0,
        paired=0.75,
    ),
    Stage("24-shown", LARGEST, Recipe(seed=34, steps=700, cooldown=450, **BESIDE), **GIVEN_BACK),
    Stage("24", LARGEST, Recipe(seed=35, steps=400, cooldown=250, **FASTER), **UNNOTICED),
    Stage("12", 12.0, Recipe(seed=32, steps=200, cooldown=150, **FASTER), **UNNOTICED),
    Stage("6", 6.0, Recipe(seed=33, steps=120, cooldown=100, **FASTER), **UNNOTICED),
)


def targets(
    path: Path, pictures: list[Path], surrogates: list[Path], budget: float, log: Callable[[str], None]
) -> None:
    """Write pairs of pictures, drawn from all shards, and their perturbations by search, at one budget."""
    generator = torch.Generator().manual_seed(30)
    pool = torch.cat([load_file(shard)["pictures"].flatten(0, 1) for shard in pictures])
    source = pool[torch.randperm(len(pool), generator=generator)[:TARGETS]]
    device = best_device()
    models = [load_diffusion(folder).to(device) for folder in surrogates]
    attacked = []
    for index, part in enumerate(source.split(TOGETHER)):
        log(f"searching for targets, part {index + 1} of {-(-TARGETS // TOGETHER)}")
        shown = to_float(part.to(device))
        found = search(models, shown, eps=budget / GREY_LEVELS, rounds=ROUNDS, inner=INNER, generator=generator)
        attacked.append(to_levels(found).cpu())
    save_file({"source": source.contiguous(), "attacked": torch.cat(attacked)}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` is not repeated when resuming.

    Targets lie beside `work`: families that are trained against the same models share them.
    """
    variant = VARIANTS[out.name]
    folders = [out.parent / name for name in variant.surrogates]
    people = identity.fill(work.parent / "rid_identity" / "pictures", resume, log).people
    found = work.parent / "rid_targets" / "-".join(variant.surrogates)
    found.mkdir(parents=True, exist_ok=True)
    pairs = found / "24.safetensors"
    if not (resume and pairs.exists()):
        targets(pairs, people, folders, LARGEST, log)
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    defender = build(SHAPE, LARGEST / GREY_LEVELS, STAGES[0].recipe.seed)
    for stage in STAGES:
        folder = work / stage.name
        defender.eps = stage.budget / GREY_LEVELS
        task = Protecting(
            people,
            folders,
            load_diffusion,
            pairs if stage.paired else None,
            regression=stage.regression,
            paired=stage.paired,
            reconstruction=stage.reconstruction,
            showing=stage.showing,
            rough=variant.rough,
        )
        log(f"stage {stage.name}: {stage.budget:g} grey levels; progress in {folder / 'log.txt'}")
        train(defender, task, stage.recipe, folder, hidden, resume and (folder / "state.pt").exists())
        load_average(folder, defender)
        save_defender(defender, out / f"rid-{stage.budget:g}.safetensors")
    told = {**asdict(variant), "targets": TARGETS, "stages": [asdict(stage) for stage in STAGES]}
    (out / "training.json").write_text(json.dumps(told, indent=2) + "\n")
    log(f"exported to {out}")
