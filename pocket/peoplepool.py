"""A cached pool of toy people beside that of the toys, in the same layout, so that one model learns to draw both.

Several views of every identity are drawn together, which is three times as fast as one at a time. A person has no
paints of a toy, so those channels of the layout stay empty. Files go to a scratch folder, never into the repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pocket import lessons, people, toypool
from pocket.crew import batches
from pocket.toys import PAINTS
from pocket.wording import PersonSpec

TOGETHER = 12  # identities drawn at a time
SAID = {"shirt": 0.5, "hair": 0.5, "worn": 0.6, "view": 0.7, "plain": 0.6}  # how often a caption says each


def fill(path: Path, first_identity: int, identities: int) -> None:
    """Draw the identities `first_identity ...`; writes one shard (tensors and truths), the tensors last."""
    toypool.write(path, _drawn, batches(first_identity, identities, TOGETHER), f"people {path.stem}")


def _drawn(seeds: Sequence[int]) -> toypool.Drawn:
    shown = [lessons.portrait(seed, view) for seed in seeds for view in range(lessons.PORTRAITS)]
    view = people.render(shown, toypool.SIDE)
    where = toypool.layout(view)
    where[:, -len(PAINTS) :] = 0
    return toypool.levels(view), where.half().numpy(), [asdict(portrait.truth) for portrait in shown]


def load(paths: Iterable[Path]) -> tuple[Tensor, tuple[PersonSpec, ...]]:  # float16 [N, LAYOUT, CELLS, CELLS]
    """Layouts and truths of shards, in the same order."""
    paths = list(paths)
    truths = [_spec(item) for path in paths for item in json.loads(path.with_suffix(".json").read_text())]
    return torch.cat([load_file(path)["layouts"] for path in paths]), tuple(truths)


def _spec(item: dict[str, Any]) -> PersonSpec:
    return PersonSpec(**item | {"worn": tuple(item["worn"])})


def speak(truth: PersonSpec, rng: np.random.Generator) -> PersonSpec:
    """What a caption says of a picture: always that it is a person, the rest often, at most what the model reads."""
    said = {name: rng.random() < chance for name, chance in SAID.items()}
    worn = tuple(thing for thing in truth.worn if said["worn"] and rng.random() < 0.8)
    spec = PersonSpec(
        truth.shirt if said["shirt"] else None,
        truth.hair if said["hair"] else None,
        worn,
        truth.view if said["view"] else None,
        truth.plain if said["plain"] else None,
    )
    return spec if people.words_of(spec) <= people.LONGEST else replace(spec, shirt=None)
