"""The identity embedder: who is shown in a picture of 64 pixels, and whether anybody is.

Stands where ArcFace and RetinaFace stand in the published evaluation: a small network trained on the toy people alone
(`pocket/identity.py`), which gives a direction of 64 numbers for an identity and a score for a face being there. What
it achieves on identities it has not seen is in its card. Knows no defender and no thief.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.rid.levels import opened

SIDE = 64  # pixels
WIDTH = 64  # of an embedding
SCALE, MARGIN = 16.0, 0.2  # of the softmax over cosines (CosFace, Wang et al. 2018, eq. 4)


class Embedder(nn.Module):
    """Convolutions down to 4x4, then one linear layer for the identity and one for the presence of a face."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 80, 112)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.GELU()]
            if index:
                layers += [Residual(width)]
            before = width
        self.body = nn.Sequential(*layers, nn.Flatten())
        size = before * (SIDE // 2 ** len(widths)) ** 2
        self.identity = nn.Linear(size, WIDTH)
        self.face = nn.Linear(size, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:  # [B, 3, SIDE, SIDE] in [-1, 1]
        """Unit embeddings [B, WIDTH] and the logit of a face [B]."""
        features = self.body(pictures)
        return F.normalize(self.identity(features), dim=-1), self.face(features)[:, 0]


class Residual(nn.Module):
    """x + conv(gelu(norm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        """One residual step."""
        return x + self.conv(F.gelu(self.norm(x)))


def cosine_softmax_loss(
    embeddings: Tensor,  # [B, D], unit
    centres: Tensor,  # [N, D], one an identity
    labels: Tensor,  # int64 [B]
) -> Tensor:
    """Cross-entropy over scaled cosines, the true one lessened by a margin."""
    cosines = embeddings @ F.normalize(centres, dim=-1).T
    return F.cross_entropy(SCALE * (cosines - MARGIN * F.one_hot(labels, len(centres))), labels)


class Recogniser:
    """A trained embedder for pictures as they are stored, and from which cosine on it takes two for the same person.

    The `threshold` is that of a picture against the mean of others of the person, chosen where it was examined.
    """

    def __init__(self, net: Embedder, threshold: float) -> None:
        self.net, self.threshold = net.eval(), threshold

    @classmethod
    def load(cls, folder: Path) -> Recogniser:
        """From `model.safetensors` and `examination.json` in a folder.

        Raises ValueError where it was not examined against means: a judge without that is none.
        """
        net = Embedder()
        net.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
        card = folder / "examination.json"
        told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        if "mean_threshold" not in told:
            raise ValueError(f"{folder.name} was not examined: run `python -m pocket {folder.name} --resume`")
        return cls(net, float(told["mean_threshold"]))

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # uint8 [N, H, W, 3]
        """Unit embeddings [N, WIDTH] and whether there is a face, bool [N]."""
        parts = [self.net(to_tensor(pictures[start : start + 64])) for start in range(0, len(pictures), 64)]
        if not parts:
            return np.zeros((0, WIDTH)), np.zeros(0, bool)
        embeddings, faces = (torch.cat(part) for part in zip(*parts, strict=True))
        return embeddings.double().numpy(), (faces > 0).numpy()


@lru_cache(maxsize=2)
def shipped(folder: Path) -> Recogniser:
    """The recogniser of a folder, read once per process; it holds no state."""
    return Recogniser.load(folder)


def to_tensor(pictures: np.ndarray) -> Tensor:  # uint8 [N, H, W, 3] -> float32 [N, 3, SIDE, SIDE] in [-1, 1]
    """Pictures as the network takes them."""
    tensor = opened(pictures)
    if tensor.shape[-2:] == (SIDE, SIDE):
        return tensor
    return F.interpolate(tensor, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
