"""The judge: which toy is this, in what colour, from which side, and is it one or two? A small classifier of 64 px.

It was trained on renders of the world of toys alone, never on what a model generated, and has a class for pictures
that show no whole toy. What a caption asked for is not its business: comparing is done in `metrics.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

SIDE = 64  # pixels
KINDS = ("snowman", "mushroom", "house", "car", "rocket", "tree", "mug", "chair")
KINDS += ("robot", "duck", "fish", "lamp", "boat", "cake", "castle", "cactus")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
VIEWS = ("front", "side", "back", "overhead")
NUMBERS = (1, 2)
BROKEN = len(KINDS)  # the class of pictures that show no whole toy
HEADS = {"kind": BROKEN + 1, "colour": len(COLOURS), "view": len(VIEWS), "number": len(NUMBERS)}
FEATURES = 128

Logits = dict[str, Tensor]  # of every head, [B, classes]


@dataclass(frozen=True)
class Verdict:
    """What the judge sees; `kind` is None when it sees no whole toy, and the rest then means nothing."""

    kind: str | None
    colour: str
    view: str
    number: int
    probability: float  # of the kind


class Residual(nn.Module):
    """A convolution that adds to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = _conv(width, width, 3, 1)

    def forward(self, features: Tensor) -> Tensor:  # [B, C, H, W]
        return features + self.change(features)


class JudgeNet(nn.Module):
    """Four convolutions that halve each side, two that add to their input, four heads; 0.66 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 24, 4, 2), _conv(24, 48, 4, 2), Residual(48))
        self.body = nn.Sequential(_conv(48, 96, 4, 2), Residual(96), _conv(96, 128, 4, 2))
        self.summary = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(128 * 16, FEATURES), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, count) for name, count in HEADS.items()})

    def forward(self, pictures: Tensor) -> Logits:  # [B, 3, 64, 64] in [-1, 1]
        features = self.summary(self.body(self.stem(pictures)))
        return {name: head(features) for name, head in self.heads.items()}


class Judge:
    """A trained network, how sure it must be of damage, and the kinds whose side it can tell, as examined."""

    def __init__(self, net: JudgeNet, sided: Sequence[str], broken_from: float) -> None:
        self.net = net.eval()
        self.sided = frozenset(sided)
        self.broken_from = broken_from  # probability of the broken class from which no whole toy is seen

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """The judge from `model.safetensors` and `examination.json` in a folder."""
        net = JudgeNet()
        net.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
        report = json.loads((folder / "examination.json").read_text(encoding="utf-8"))
        return cls(net, report["sided_kinds"], report["broken_from"])

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> list[Verdict]:  # uint8 [B, H, W, 3]
        """One verdict for every picture; other sizes than 64 px are resized first."""
        if not len(pictures):
            return []
        logits = self.net(to_tensor(_fitted(pictures)))
        seen = classes(logits, self.broken_from)
        sure = logits["kind"].softmax(-1).gather(-1, seen["kind"][:, None])[:, 0].tolist()
        told = (seen[name].tolist() for name in HEADS)
        return [
            Verdict(KINDS[kind] if kind != BROKEN else None, COLOURS[colour], VIEWS[view], NUMBERS[number], p)
            for kind, colour, view, number, p in zip(*told, sure, strict=True)
        ]


def classes(logits: Logits, broken_from: float) -> dict[str, Tensor]:  # -> of every head, int64 [B]
    """The likeliest class of every head; of kinds the broken one as soon as it is as likely as `broken_from`."""
    seen = {name: values.argmax(-1) for name, values in logits.items()}
    broken = logits["kind"].softmax(-1)[:, BROKEN] >= broken_from
    return seen | {"kind": torch.where(broken, BROKEN, logits["kind"][:, :BROKEN].argmax(-1))}


@lru_cache(maxsize=2)
def shipped(folder: Path) -> Judge:
    """The judge of a folder, read once per process; it is 1 MB and holds no state."""
    return Judge.load(folder)


def to_tensor(pictures: np.ndarray) -> Tensor:  # uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]
    """Pictures as the network takes them."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def fit(
    pictures: np.ndarray,  # uint8 [N, 64, 64, 3]
    labels: dict[str, Tensor],  # of every head, int64 [N]
    distort: Callable[[Tensor, dict[str, Tensor], torch.Generator], tuple[Tensor, Tensor]],
    seed: int,
    epochs: int,
    log: Callable[[str], None],
    batch: int = 128,
) -> JudgeNet:
    """Train on labelled pictures: AdamW, one cycle of the rate, cross-entropy with a little smoothing.

    `distort` takes pictures [B, 3, 64, 64] in [-1, 1] and their labels, and gives back what worn or broken pictures
    look like, and which of them are broken; of those nothing else is learned.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net, steps = JudgeNet().train(), epochs * (len(pictures) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(pictures), generator=generator).split(batch)[: len(pictures) // batch]
        for part in tqdm(order, f"judge, epoch {epoch + 1}", disable=None):
            wanted = {name: label[part] for name, label in labels.items()}
            inputs, broken = distort(to_tensor(pictures[part.numpy()]), wanted, generator)
            value = _loss(net(inputs), wanted, broken)
            value.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            plan.step()
            total += value.item()
        log(f"judge: epoch {epoch + 1} of {epochs}, loss {total / len(order):.3f}")
    return net.eval()


def _loss(logits: Logits, labels: dict[str, Tensor], broken: Tensor) -> Tensor:  # bool [B]
    kind = torch.where(broken, BROKEN, labels["kind"])
    value = nn.functional.cross_entropy(logits["kind"], kind, label_smoothing=0.05)
    for name in ("colour", "view", "number"):
        target = torch.where(broken, -100, labels[name])  # cross_entropy ignores -100
        value = value + nn.functional.cross_entropy(logits[name], target)
    return value


def _conv(inner: int, outer: int, size: int, stride: int) -> nn.Sequential:
    padding = (size - stride + 1) // 2
    return nn.Sequential(nn.Conv2d(inner, outer, size, stride, padding, bias=False), nn.BatchNorm2d(outer), nn.GELU())


def _fitted(pictures: np.ndarray) -> np.ndarray:
    if pictures.shape[1:3] == (SIDE, SIDE):
        return pictures
    resized = [Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX) for p in pictures]
    return np.stack([np.asarray(picture) for picture in resized])
