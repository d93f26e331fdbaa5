"""What the teacher is told about a view: direction words, negative words, and Perp-Neg against many-faced objects.

The score estimator gets the plain prompt, the teacher the prompt of the side (ProlificDreamer, appendix C). How a
model wants the side to be said is part of its preset. Pure functions; knows no network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.prolificdreamer.cameras import FRONT, VIEW_WORDS

# Perp-Neg (Armandpour et al. 2023) as threestudio sets it: (a, b, c) of a exp(-b r) + c.
DECAY = {"fs": (4.0, 0.5, -2.426), "sf": (4.0, 0.5, -2.426), "sb": (1.0, 0.5, -0.606), "fsb": (1.0, 0.5, 0.967)}


@dataclass(frozen=True)
class Wording:
    """How prompts are put together."""

    prompt: str
    negative: str = ""
    scene: str = ""  # said after the side, e.g. ", on a plain grey background"
    sides: bool = True  # whether the side is said at all
    words: tuple[str, ...] = VIEW_WORDS  # one for each side, as this teacher knows them
    suppress_face: bool = False  # "face" as a negative word where the front is not seen

    @property
    def plain(self) -> str:
        """Without a side: what the score estimator and the 2D playground get."""
        return self.prompt + self.scene

    def positive(self, side: int) -> str:
        """For one of the six sides."""
        return f"{self.prompt}, {self.words[side]} view{self.scene}" if self.sides else self.plain

    def unwanted(self, side: int) -> str:
        """The negative prompt of a side."""
        if not self.suppress_face or side == FRONT or not self.sides:
            return self.negative
        return f"{self.negative}, face" if self.negative else "face"

    @property
    def all(self) -> list[str]:
        """Every text that can be needed, each once."""
        texts = [self.plain, self.negative]
        texts += [text for side in range(len(self.words)) for text in (self.positive(side), self.unwanted(side))]
        return list(dict.fromkeys(texts))


def perpendicular(a: Tensor, b: Tensor) -> Tensor:  # [B, ...] twice -> [B, ...]
    """The part of a that is at right angles to b, sample by sample."""
    axes = tuple(range(1, a.ndim))
    along = (a * b).sum(axes, keepdim=True) / b.square().sum(axes, keepdim=True).clamp(min=1e-6)
    return a - along * b


def perp_neg_mix(phi: float, pole: str = "") -> tuple[dict[str, float], list[tuple[str, float]]]:
    """How to blend the texts of the sides at azimuth phi (radians): positive shares, and negatives with weights.

    Names are front, side and back, or the `pole` that is looked from: overhead or bottom. The negatives push away
    from the sides that are not seen.
    """
    if pole:
        return {pole: 1.0}, []
    away = abs((phi + math.pi) % (2 * math.pi) - math.pi) / (math.pi / 2)  # 0 front, 1 side, 2 back
    if away < 1:
        r = 1 - away
        return {"front": r, "side": 1 - r}, [("front", -_decay("fs", r)), ("side", -_decay("sf", 1 - r))]
    r = 2 - away
    return {"side": r, "back": 1 - r}, [("side", -_decay("sb", r)), ("front", -_decay("fsb", r))]


def _decay(name: str, r: float) -> float:
    a, b, c = DECAY[name]
    return a * math.exp(-b * r) + c


def perp_neg_epsilon(
    uncond: Tensor,  # [B, ...]
    positive: Tensor,  # [B, ...], predicted with the positive text
    negatives: list[Tensor],  # [B, ...] each
    weights: Tensor,  # [B, negatives]
    scale: float,
) -> Tensor:  # [B, ...]
    """eps_0 + s (e_pos + sum w_i perp(e_i, e_pos)), with e the difference to the unconditional prediction."""
    along = positive - uncond
    total = along
    for index, predicted in enumerate(negatives):
        weight = weights[:, index].view(-1, *[1] * (along.ndim - 1))
        total = total + weight * perpendicular(predicted - uncond, along)
    return uncond + scale * total


def weights_tensor(negatives: list[list[tuple[str, float]]], count: int, like: Tensor) -> Tensor:  # [B, count]
    """Weights of up to `count` negatives of each sample, zero where there are fewer."""
    rows = [[w for _, w in row] + [0.0] * (count - len(row)) for row in negatives]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
