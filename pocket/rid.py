"""The recipe of the pocket defender: what it is built of, what it learns from, and at which budgets.

One network a budget, each started from the next larger one, with targets: pictures protected one by one through the
autoencoders. Against both pocket
portrait models, as it ships; against the first alone, so that a thief can start from one it has not seen; and through
rough treatment of the pictures. The pictures are those the identity embedder is trained on; everybody who is examined
later has seeds of their own. Knows how to train; knows nothing of thieves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engines.rid.pipeline import load_diffusion, save_defender, search
from engines.rid.train import GREY_LEVELS, Protecting, build, hidden, to_float, to_levels
from engines.shared.training import Recipe, best_device, load_average, train
from pocket import identity

SHAPE = (64, 8, 192, 5, 6)  # pixels, patch, width, depth, heads
BUDGETS = (24.0, 12.0, 6.0)  # grey levels, the largest first


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
REGRESSION = 10.0  # the published weight of the L1 to the targets
PAIRED = 0.75  # of a batch has targets
RECIPES = {
    24.0: Recipe(
        seed=31, steps=1400, batch=32, ranks=1, warmup=20, cooldown=900, muon_rate=0.03, adam_rate=2e-3, ema=0.99
    ),
    12.0: Recipe(
        seed=32, steps=60, batch=32, ranks=1, warmup=10, cooldown=40, muon_rate=0.006, adam_rate=7e-4, ema=0.96
    ),
    6.0: Recipe(
        seed=33, steps=60, batch=32, ranks=1, warmup=10, cooldown=40, muon_rate=0.006, adam_rate=7e-4, ema=0.96
    ),
}


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


def scaled(pairs: Path, path: Path, share: float) -> None:
    """The same pairs at a smaller budget."""
    both = load_file(pairs)
    source = both["source"].float()
    attacked = source + share * (both["attacked"].float() - source)
    save_file({"source": both["source"], "attacked": attacked.round().byte()}, path)


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
        targets(pairs, people, folders, BUDGETS[0], log)
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    defender = build(SHAPE, BUDGETS[0] / GREY_LEVELS, RECIPES[BUDGETS[0]].seed)
    for budget in BUDGETS:
        folder = work / f"{budget:g}"
        own = pairs
        if budget != BUDGETS[0]:
            own = work / f"pairs-{budget:g}.safetensors"
            scaled(pairs, own, budget / BUDGETS[0])
        defender.eps = budget / GREY_LEVELS
        task = Protecting(people, folders, load_diffusion, own, REGRESSION, PAIRED, variant.rough)
        log(f"defender for {budget:g} grey levels; progress in {folder / 'log.txt'}")
        train(defender, task, RECIPES[budget], folder, hidden, resume and (folder / "state.pt").exists())
        load_average(folder, defender)
        save_defender(defender, out / f"rid-{budget:g}.safetensors")
    told = {
        **asdict(variant),
        "targets": TARGETS,
        "regression": REGRESSION,
        "paired": PAIRED,
        "recipes": {f"{budget:g}": asdict(recipe) for budget, recipe in RECIPES.items()},
    }
    (out / "training.json").write_text(json.dumps(told, indent=2) + "\n")
    log(f"exported to {out}")
