"""A cached pool of toy pictures with what is true of them, for the models that are trained on the world of toys.

Rendering is the dearest part of training; a pool pays it once. Pictures are kept as bytes, their layouts at an
eighth of the size, and the truths as words: what of them is said in a caption is drawn anew each time a picture is
used. Files go to a scratch folder, never into the repository.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from pocket import lessons
from pocket.crew import batches, spread
from pocket.toys import PAINTS
from pocket.wording import ToySpec
from pocket.world import View, render

SIDE = 64  # pixels
CELLS = 8  # of a layout, a side
LAYOUT = 1 + 3 + 3 + len(PAINTS)  # channels: coverage, canonical place, normal, paints

# pictures uint8 [B, 3, SIDE, SIDE], layouts float16 [B, LAYOUT, CELLS, CELLS], truths
Drawn = tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]


@dataclass(frozen=True)
class Pool:
    """Pictures, layouts and truths, in the same order."""

    pictures: Tensor  # uint8 [N, 3, SIDE, SIDE]
    layouts: Tensor  # float16 [N, LAYOUT, CELLS, CELLS]
    truths: tuple[ToySpec, ...]

    def __len__(self) -> int:
        return len(self.truths)

    @cached_property
    def spread(self) -> Tensor:  # float32 [LAYOUT, 1, 1]
        """The deviation of every channel of the layouts."""
        return self.layouts[:2000].float().std((0, 2, 3))[:, None, None].clamp(min=1e-3)


def layout(view: View) -> Tensor:  # float32 [B, LAYOUT, CELLS, CELLS]
    """What is where: means over squares of pixels, nothing where there is no toy."""
    paints = F.one_hot(view.paint + 1, len(PAINTS) + 1)[..., 1:].permute(0, 3, 1, 2).float()
    on = (view.paint >= 0)[:, None].float()
    whole = torch.cat([on, (view.canonical - 0.5) * on, view.normal, paints], dim=1)
    return F.adaptive_avg_pool2d(whole, CELLS)


def fill(path: Path, first_seed: int, count: int, batch: int = 192) -> None:
    """Render the scenes `first_seed ...`; writes one shard (tensors and truths), the tensors last."""
    write(path, _drawn, batches(first_seed, count, batch), f"toys {path.stem}")


def _drawn(seeds: Sequence[int]) -> Drawn:
    scenes = [lessons.toys(seed) for seed in seeds]
    view = render(scenes, SIDE)
    return levels(view), layout(view).half().numpy(), [asdict(scene.truth) for scene in scenes]


def levels(view: View) -> np.ndarray:  # uint8 [B, 3, SIDE, SIDE]
    """Colours as a pool keeps them."""
    return (view.rgb * 255).round().to(torch.uint8).numpy()


def write(path: Path, draw: Callable[[Sequence[int]], Drawn], parts: Sequence[Sequence[int]], doing: str) -> None:
    """One shard of what `draw` makes of seeds, on every core; the tensors last."""
    made = tqdm(spread(draw, parts), doing, len(parts), disable=None)
    pictures, layouts, truths = zip(*made, strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps([truth for part in truths for truth in part]))
    tensors = {"pictures": np.concatenate(pictures), "layouts": np.concatenate(layouts)}
    save_file({name: torch.from_numpy(values) for name, values in tensors.items()}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def load(paths: Iterable[Path]) -> Pool:
    """Join shards into one pool."""
    paths = list(paths)
    truths = [item for path in paths for item in json.loads(path.with_suffix(".json").read_text())]
    shards = [load_file(path) for path in paths]
    pictures, layouts = (torch.cat([shard[name] for shard in shards]) for name in ("pictures", "layouts"))
    return Pool(pictures, layouts, tuple(ToySpec(**item) for item in truths))


def pictures(paths: Iterable[Path]) -> Tensor:  # uint8 [N, 3, SIDE, SIDE]
    """The pictures alone, of whatever is shown on them."""
    return torch.cat([load_file(path)["pictures"] for path in paths])


def to_tensor(pictures: Tensor) -> Tensor:  # uint8 -> float32 in [-1, 1]
    """Pictures as an autoencoder takes them."""
    return pictures.float().div_(127.5).sub_(1)


def speak(truth: ToySpec, rng: np.random.Generator) -> ToySpec:
    """What a caption says of a picture: kind and number always, the rest often."""
    colour, material, view, place = rng.random(4) < (0.92, 0.5, 0.7, 0.6)
    return replace(
        truth,
        colour=truth.colour if colour else None,
        material=truth.material if material else None,
        view=truth.view if view else None,
        **({} if place else {"plain": None, "ground": None, "sky": None}),
    )
