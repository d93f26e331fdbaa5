"""The judge: what kind and what colour is this saturated thing? A small convolutional classifier of 32 px crops.

It was trained on renders of the flat world alone, never on what a model generated, and has a class for crops that
show no single whole object. It decides nothing else: finding the objects is the business of `metrics.py`, which
needs no learning.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.ultraimage.metrics import Component, Recognition, find_objects

SIDE = 32  # pixels of a crop
MARGIN = 1.3  # crop side over the longer side of the component
KINDS = ("disc", "square", "triangle", "ring", "star", "cross", None)  # None: no single whole object
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")


class JudgeNet(nn.Module):
    """Three strided convolutions and two heads; 72 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(48, 64, 3, 2, 1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * 16, 32),
            nn.GELU(),
        )
        self.kind, self.colour = nn.Linear(32, len(KINDS)), nn.Linear(32, len(COLOURS))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:  # [B, 3, 32, 32] in [-1, 1] -> logits [B, 7], [B, 6]
        features = self.body(crops)
        return self.kind(features), self.colour(features)


class Judge:
    """A trained network as the callable that `metrics.measure` takes."""

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval()

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """The judge from `model.safetensors` in a folder."""
        net = JudgeNet()
        net.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
        return cls(net)

    @torch.no_grad()
    def __call__(self, image: np.ndarray, components: list[Component]) -> list[Recognition]:
        """Recognise every component of a uint8 picture [H, W, 3]."""
        if not components:
            return []
        crops = to_tensor(np.stack([crop(image, component) for component in components]))
        kinds, colours = self.net(crops)
        probability, index = kinds.softmax(-1).max(-1)
        return [
            Recognition(KINDS[int(k)], COLOURS[int(c)], float(p))
            for k, c, p in zip(index, colours.argmax(-1), probability, strict=True)
        ]

    def examine(self, image: np.ndarray) -> list[Recognition]:
        """Recognise everything saturated in a uint8 picture [H, W, 3], largest first."""
        return self(image, find_objects(image))


@lru_cache(maxsize=2)
def shipped(folder: Path) -> Judge:
    """The judge of a folder, read once per process; it is 0.15 MB and holds no state."""
    return Judge.load(folder)


def crop(image: np.ndarray, component: Component) -> np.ndarray:  # uint8 [H, W, 3] -> uint8 [32, 32, 3]
    """The square around a component, with a margin; beyond the picture its edge is repeated."""
    half = MARGIN * max(component.bottom - component.top, component.right - component.left) / 2
    y, x = (component.top + component.bottom) / 2, (component.left + component.right) / 2
    pad = int(half) + 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    box = (x - half + pad, y - half + pad, x + half + pad, y + half + pad)
    return np.asarray(Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))


def to_tensor(crops: np.ndarray) -> Tensor:  # uint8 [B, 32, 32, 3] -> float32 [B, 3, 32, 32] in [-1, 1]
    """Crops as the network takes them."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def fit(
    crops: np.ndarray,  # uint8 [N, 32, 32, 3]
    kinds: np.ndarray,  # int64 [N], 0..6
    colours: np.ndarray,  # int64 [N], 0..5; ignored where kind is 6
    seed: int,
    epochs: int = 12,
) -> JudgeNet:
    """Train on labelled crops: AdamW, cosine rate, cross-entropy with a little smoothing against overconfidence."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net, batch = JudgeNet().train(), 128
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * (len(crops) // batch))
    inputs, kind, colour = to_tensor(crops), torch.from_numpy(kinds), torch.from_numpy(colours)
    colour = torch.where(kind == len(KINDS) - 1, -100, colour)  # cross_entropy ignores -100
    for _ in range(epochs):
        for part in torch.randperm(len(crops), generator=generator).split(batch)[: len(crops) // batch]:
            seen_kind, seen_colour = net(inputs[part])
            loss = nn.functional.cross_entropy(seen_kind, kind[part], label_smoothing=0.05)
            (loss + nn.functional.cross_entropy(seen_colour, colour[part])).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            plan.step()
    return net.eval()
