"""A cached pool of world pictures, already encoded, for training a transformer in the autoencoder's latent space.

Beside each picture lies its layout, what is where in it, for the transformer to be asked about while it learns.

Encoding is a third of the cost of a training step; a pool pays it once. The pool keeps what is true of each
picture, not a caption: which optional words are spoken is drawn anew each time a picture is used. Files go to a
scratch folder, never into the repository.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from pocket.flatworld import layout, render, sample_scene, truth
from pocket.grammar import ObjectSpec, SceneSpec
from pocket.vae import to_tensor


@dataclass(frozen=True)
class Pool:
    """Normalised latents and the truth about each of them."""

    latents: Tensor  # float16 [N, 4, 24, 24], mean 0, deviation 1
    layouts: Tensor  # float16 [N, LAYOUT, 12, 12], see `flatworld.layout`
    truths: tuple[SceneSpec, ...]

    def __len__(self) -> int:
        return len(self.truths)

    @cached_property
    def spread(self) -> Tensor:  # float32 [LAYOUT, 1, 1]
        """The deviation of every channel of the layouts."""
        return self.layouts[:2000].float().std((0, 2, 3))[:, None, None]


@torch.no_grad()
def fill(
    path: Path,
    vae: AutoencoderKL,
    first_seed: int,
    count: int,
    two: float = 0.5,  # share of pictures with two objects
    side: int = 96,  # pixels
    batch: int = 32,
) -> None:
    """Render and encode the scenes `first_seed ...`; writes one shard (tensors and truths), the tensors last."""
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    latents, layouts, truths = [], [], []
    for start in tqdm(range(first_seed, first_seed + count, batch), path.stem, disable=None):
        scenes = [sample_scene(seed, two=two) for seed in range(start, min(start + batch, first_seed + count))]
        mean = vae.encode(to_tensor(np.stack([render(scene, side) for scene in scenes]))).latent_dist.mean
        latents.append(((mean - shift) * scale).half().contiguous())
        layouts.append(torch.from_numpy(np.stack([layout(scene, side // 8) for scene in scenes])).half())
        truths += [asdict(truth(scene)) for scene in scenes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(truths))
    save_file({"latents": torch.cat(latents).contiguous(), "layouts": torch.cat(layouts).contiguous()}, path)


def load(paths: list[Path]) -> Pool:
    """Join shards into one pool."""
    truths = [item for path in paths for item in json.loads(path.with_suffix(".json").read_text())]
    shards = [load_file(path) for path in paths]
    latents, layouts = (torch.cat([shard[name] for shard in shards]) for name in ("latents", "layouts"))
    return Pool(latents, layouts, tuple(_spec(item) for item in truths))


def _spec(item: dict) -> SceneSpec:
    return SceneSpec(tuple(ObjectSpec(**thing) for thing in item["objects"]), item["sky"], item["ground"])
