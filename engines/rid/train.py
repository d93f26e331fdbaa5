"""Training a defender: adversarial score distillation against diffusion models, and regression to targets.

RID (arXiv 2412.09844), the combined objective: every step takes plain pictures, on which the perturbed latents are
pushed away from what the diffusion models believe, and pairs of pictures with their perturbations found by search.
Three additions of ours are options: what an autoencoder gives back of a perturbed picture is pushed away from the
picture itself, a perturbation keeps to where it does not show, and it survives JPEG, resizing and noise. Does not
know where pictures come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.rid.adv_sds import adv_sds_loss, rid_total_loss
from engines.rid.defender import GREY_LEVELS, Defender
from engines.rid.jpeg import jpeg_proxy
from engines.rid.levels import to_float, to_levels
from engines.rid.surrogate import Diffusion
from engines.shared.training import beside

__all__ = [  # with the units, for whoever writes a recipe
    "GREY_LEVELS",
    "PROMPT",
    "Protecting",
    "build",
    "drawn",
    "evenness",
    "hidden",
    "reconstruction_loss",
    "shaken",
    "showing_loss",
    "surrogate_loss",
    "to_float",
    "to_levels",
]

PROMPT = " "  # of the surrogates in training
REGRESSION = 0.3  # weight of the L1 to the targets; at 10 its gradient is 29 times that of the distillation
CELL = 8  # pixels of a cell of latents, a side
LEAST_WRONG = 1e-3  # mean squared error below which nothing is gained by less
AROUND = 5  # pixels a side, of what a pixel is compared with
EVEN = 0.015  # deviation of colours around a pixel at which it counts half as even; two grey levels
SHAKEN = 0.5  # how often a perturbed picture is treated roughly, where that is asked for


@dataclass
class Protecting:
    """The task of `engines.shared.training`: perturb what a source of pictures hands over.

    Holds paths until its first call, so that handing it to another process costs nothing.
    """

    pictures: list[Path]  # safetensors with "pictures", uint8 [..., 3, S, S]
    surrogates: list[Path]  # Stable Diffusion folders
    load: Callable[[Path], Diffusion]
    pairs: Path | None = None  # safetensors with "source" and "attacked", uint8 [N, 3, S, S]
    regression: float = REGRESSION
    paired: float = 0.25  # share of a batch that has targets
    reconstruction: float = 0.0  # weight of what autoencoders give back
    showing: float = 0.0  # weight of what shows on even areas
    rough: bool = False
    pool: Tensor | None = None
    targets: tuple[Tensor, Tensor] | None = None
    models: list[Diffusion] = field(default_factory=list)
    words: list[Tensor] = field(default_factory=list)  # what each model makes of PROMPT, [1, T, D]

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of `count` pictures, a share of which have targets."""
        self._open(next(student.parameters()).device)
        assert self.pool is not None
        paired = round(count * self.paired) if self.targets is not None else 0
        plain = drawn(self.pool, count - paired, generator)
        source, attacked = plain[:0], plain[:0]
        if self.targets is not None:
            which = torch.randint(len(self.targets[0]), (paired,), generator=generator)
            source, attacked = rolled([part[which] for part in self.targets], generator)
            source, attacked = to_float(source), to_float(attacked)
        plain, source, attacked = beside(student, [plain, source, attacked])
        deltas = student(torch.cat([plain, source]))
        moved = plain + deltas[: len(plain)]
        if self.rough:
            moved = shaken(moved, generator)
        encoded = [model.posterior(moved) for model in self.models]  # once, for both terms
        asked = list(zip(self.models, encoded, self.words, strict=True))
        losses = torch.stack([surrogate_loss(*each, generator) for each in asked])
        parts = {"sds": losses.mean()}
        if paired:
            total = rid_total_loss(deltas[len(plain) :], source, attacked, losses, self.regression)
            parts["regression"] = total.total - losses.mean()
        if self.reconstruction:
            given = [model.vae.decode(posterior.mean).sample for model, posterior, _ in asked]
            kept = torch.stack([reconstruction_loss(each, plain) for each in given]).mean()
            parts["reconstruction"] = self.reconstruction * kept
        if self.showing:
            parts["showing"] = self.showing * showing_loss(deltas[: len(plain)] / student.eps, plain)
        return parts

    def _open(self, device: torch.device) -> None:
        if self.pool is None:
            shards = [load_file(path)["pictures"] for path in self.pictures]
            self.pool = torch.cat([shard.flatten(0, -4) if shard.ndim > 4 else shard for shard in shards])
            self.models = [self.load(path).to(device) for path in self.surrogates]
            self.words = [model.embed([PROMPT]).detach() for model in self.models]
            if self.pairs is not None:
                pairs = load_file(self.pairs)
                self.targets = pairs["source"], pairs["attacked"]


def surrogate_loss(
    model: Diffusion,
    posterior: Any,  # of pictures, by the model's encoder
    words: Tensor,  # [1, T, D]
    generator: torch.Generator,
) -> Tensor:  # []
    """Adv-SDS of one surrogate; the gradient reaches the pictures through the encoder alone."""
    latents = model.sampled(posterior, generator)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    timesteps = torch.randint(model.steps, (len(latents),), generator=generator).to(latents.device)
    with torch.no_grad():
        noisy = model.noised(latents, noise, timesteps)
        predicted = model.predict(noisy, timesteps, words.to(noisy).expand(len(latents), -1, -1))
    return adv_sds_loss(latents, noise, predicted, timesteps, model.alphas_cumprod)[1]


def reconstruction_loss(
    given_back: Tensor,  # [B, 3, S, S] in about [-1, 1], by an autoencoder, of perturbed pictures
    clean: Tensor,  # [B, 3, S, S]
) -> Tensor:  # []
    """Minus the logarithm of how far what an autoencoder gives back is from the picture; ours.

    What PhotoGuard's attack on the encoder (Salman et al. 2023) climbs for one picture. With the logarithm pictures
    that are given back badly anyway do not outweigh the others.
    """
    wrong = (given_back - clean).square().mean(dim=(1, 2, 3))
    return -(wrong + LEAST_WRONG).log().mean()


def showing_loss(share: Tensor, pictures: Tensor) -> Tensor:  # [B, 3, S, S] in [-1, 1], twice -> []
    """How much of a perturbation, as a share of the budget, lies where it shows: squared, on even areas; ours."""
    return (evenness(pictures) * share.square()).mean()


def evenness(pictures: Tensor) -> Tensor:  # [B, 3, S, S] in [-1, 1] -> [B, 1, S, S] in (0, 1]
    """1 where a picture is even, towards 0 where it has edges or texture, which hide a change from the eye."""
    edged = F.pad(pictures, (AROUND // 2,) * 4, mode="reflect")
    mean, squared = (F.avg_pool2d(each, AROUND, stride=1) for each in (edged, edged.square()))
    variance = (squared - mean.square()).clamp_min(0).mean(1, keepdim=True)
    return 1 / (1 + variance / EVEN**2)


def drawn(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:  # uint8 [N, 3, S, S] -> [count, 3, S, S]
    """Pictures from a pool, half of them mirrored."""
    chosen = to_float(pool[torch.randint(len(pool), (count,), generator=generator)])
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, chosen.flip(-1), chosen)


def rolled(pairs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:  # [B, C, S, S] each
    """All of them moved around their edges by the same whole cells of latents, other ones for every picture.

    An encoder sees the same a cell further, so a target moves with its picture: what is learned is what a place looks
    like, and not where it is.
    """
    count, side = len(pairs[0]), pairs[0].shape[-1]
    steps = CELL * torch.randint(side // CELL, (2, count), generator=generator)
    places = torch.arange(side)
    rows, columns = ((places + step[:, None]) % side for step in steps)
    which = torch.arange(count)[:, None, None]
    return [part[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2) for part in pairs]


def shaken(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S] in about [-1, 1]
    """Every other time the whole batch through a JPEG that lets gradients pass, or smaller and back, or grainy."""
    if torch.rand((), generator=generator) > SHAKEN:
        return pictures
    way, amount = int(torch.randint(3, (), generator=generator)), float(torch.rand((), generator=generator))
    if way == 0:
        return jpeg_proxy(((pictures + 1) / 2).clamp(0, 1), 50 + 45 * amount) * 2 - 1
    if way == 1:
        side = pictures.shape[-1]
        smaller = max(8, round(side * (0.5 + 0.5 * amount)))
        small = F.interpolate(pictures, (smaller, smaller), mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(small, (side, side), mode="bilinear", align_corners=False)
    return pictures + 0.04 * amount * torch.randn(pictures.shape, generator=generator).to(pictures)


def hidden(name: str, weight: Tensor) -> bool:
    """Matrices inside the blocks; not patches, modulations and the last layer."""
    return name.startswith("blocks.") and weight.ndim == 2 and "adaLN" not in name


def build(shape: Sequence[int], eps: float, seed: int) -> Defender:
    """A fresh folded defender of (side, patch, width, depth, heads): its first perturbation is exactly nothing."""
    from engines.rid.defender import Shape

    torch.manual_seed(seed)
    side, patch, width, depth, heads = shape
    return Defender(Shape(side, patch, width, depth, heads), eps, folded=True)
