"""Autoencoders of the pictures of toys and people: `AutoencoderKL`, trained on renders alone.

That of the toys takes 64 px to 16x16x4; with one more width it is eight times smaller a side, as Stable Diffusion's.

The same loss as the flat world's autoencoder (`pocket.vae`), a network with more channels, since toys have faces.
Small on purpose: text to 3D encodes a render at every step. Knows nothing of captions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from engines.shared.training import Recipe, beside, best_device, load_average, train
from pocket import toypool
from pocket.toypool import SIDE, to_tensor
from pocket.vae import loss

WIDTHS = (16, 32, 64)  # of the levels, each half the size of the one before
CROP = 32  # pixels of most training pictures: four times cheaper than whole ones, and nearly as instructive
WHOLE = 0.2  # share of the steps that see whole pictures, a quarter as many
RECIPE = Recipe(steps=2600, batch=16, ranks=1, muon_rate=0.02, adam_rate=2e-3, warmup=30, cooldown=1600, ema=0.995)


POLISH = Recipe(steps=4200, batch=16, ranks=1, muon_rate=0.01, adam_rate=1e-3, warmup=30, cooldown=3500, ema=0.995)
POLISH_NOISE = 0.03  # in the latents
NEARNESS = 0.02  # weight of how far the latents have moved, in their own variances


def build(widths: tuple[int, ...] = WIDTHS) -> AutoencoderKL:
    """The untrained autoencoder: 0.65 million parameters or more, no attention, four latent channels.

    Starts with hardly any noise in its latents, or it would first have to learn to be heard.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=SIDE,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    with torch.no_grad():
        vae.encoder.conv_out.bias[4:] = -4.0
    return vae


@dataclass
class Reconstructing:
    """The task: give back crops of a pool's pictures. Holds paths until it is used."""

    shards: list[Path]
    pictures: Tensor | None = None  # uint8 [N, 3, 64, 64]

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of `count` crops, or of a quarter as many whole pictures."""
        if self.pictures is None:
            self.pictures = toypool.pictures(self.shards)
        whole = torch.rand((), generator=generator) < WHOLE
        count, side = (count // 4, SIDE) if whole else (count, CROP)
        chosen = torch.randint(len(self.pictures), (count,), generator=generator)
        corners = torch.randint(SIDE - side + 1, (count, 2), generator=generator).tolist()
        some = [
            self.pictures[index, :, row : row + side, column : column + side]
            for index, (row, column) in zip(chosen.tolist(), corners, strict=True)
        ]
        (shown,) = beside(student, [to_tensor(torch.stack(some))])
        return {"loss": self.lose(student, shown, generator)}

    def lose(self, student: nn.Module, pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S]
        """How wrong the pictures come back."""
        return loss(student, pictures, generator)


@dataclass
class Polishing(Reconstructing):
    """The task of the second half: squared error, nearly clean latents, which stay near what they were.

    What learns the latents meanwhile, or lives on them already, then has little to learn anew.
    """

    first: AutoencoderKL = field(kw_only=True)  # what is polished, as it was

    def lose(self, student: nn.Module, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Ten times the mean squared error, the absolute error, and a little of the way the latents went."""
        latents = student.encode(pictures).latent_dist.mean
        with torch.no_grad():
            known = self.first.to(pictures.device).encode(pictures).latent_dist.mean
        moved = (latents - known).square().mean() * self.first.config.scaling_factor**2
        noise = POLISH_NOISE * torch.randn(latents.shape, generator=generator).to(latents)
        error = student.decode(latents + noise).sample - pictures
        return 10 * error.square().mean() + error.abs().mean() + NEARNESS * moved


def hidden(name: str, weight: Tensor) -> bool:
    """Kernels between the first and the last convolution of each half."""
    return weight.ndim == 4 and not any(part in name for part in ("conv_in", "conv_out"))


def make(
    folder: Path,
    shards: list[Path],
    resume: bool,
    log: Callable[[str], None],
    recipe: Recipe = RECIPE,
    widths: tuple[int, ...] = WIDTHS,
) -> AutoencoderKL:
    """Train on `shards`, measure on the first pictures of the last of them, write the result to `folder`/vae."""
    torch.manual_seed(recipe.seed)
    vae = build(widths)
    train(vae, Reconstructing(shards[:-1]), recipe, folder, hidden, resume and (folder / "state.pt").exists())
    load_average(folder, vae)
    held = toypool.pictures(shards[-1:])
    calibrate(vae.eval().to(best_device()), held)
    log(f"autoencoder: {psnr(vae, held[:512]).mean():.2f} dB on pictures it has not seen")
    vae.save_pretrained(folder / "vae")
    return vae


def polish(
    vae: AutoencoderKL,
    folder: Path,
    shards: list[Path],
    resume: bool,
    log: Callable[[str], None],
    recipe: Recipe = POLISH,
) -> None:
    """Go on with both halves, on what the picture loses in squares; measure on the last of `shards`."""
    task = Polishing(shards[:-1], first=copy.deepcopy(vae).requires_grad_(False))
    train(vae, task, recipe, folder, hidden, resume and (folder / "state.pt").exists())
    load_average(folder, vae)
    held = toypool.pictures(shards[-1:])[:512]
    log(f"autoencoder, polished: {psnr(vae.eval().to(best_device()), held).mean():.2f} dB")


@torch.no_grad()
def calibrate(vae: AutoencoderKL, pictures: Tensor) -> None:  # uint8 [N, 3, 64, 64]
    """Set the scale so that latents have deviation 1; Stable Diffusion knows no shift, so the mean stays."""
    parts = (to_tensor(part.to(vae.device)) for part in pictures.split(64))
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in parts])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor) -> Tensor:  # uint8 [N, 3, 64, 64] -> [N], dB
    """Peak signal-to-noise ratio of the reconstructions."""
    values = []
    for part in pictures.split(64):
        target = to_tensor(part.to(vae.device))
        decoded = vae.decode(vae.encode(target).latent_dist.mean).sample.clamp(-1, 1)
        values.append(-10 * ((decoded - target) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(values)
