"""The autoencoder of the moving things: `AutoencoderKLWan`, four times smaller in space and in time, four channels.

Trained on crops of short clips: its convolutions are local, and causal in time, so that a crop of nine frames has
met every case that a long clip has. Then the decoder alone goes on, on what it still gets wrong where whole frames
are decoded. Knows nothing of captions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from engines.shared.training import Recipe, beside, load_average, train
from pocket.clips import SIDE, render, sample

# Frames and pixels of training crops: short ones show more, long ones forbid colours to drift.
SHAPES = ((9, 24), (29, 16), (69, 12))
RECIPE = Recipe(steps=2600, batch=8, ranks=1, muon_rate=0.02, adam_rate=2e-3, warmup=30, cooldown=800, ema=0.995)
KL_WEIGHT = 1e-4  # per latent element
LATENT_NOISE = 0.1  # added before decoding: what a small transformer generates is never exact
TINT_WEIGHT = 2.0  # on 8x8 means: walls differ by a few levels
CODE_WEIGHT = 0.3  # on the difference of the first latent frame from the next, for a picture that stands still

# The second half: whole frames of short clips, and quarters of long ones.
POLISH_SHAPES = ((13, 64), (45, 32))
POLISH = Recipe(
    seed=8, steps=1200, batch=2, ranks=1, muon_rate=0.01, adam_rate=1e-3, warmup=30, cooldown=900, ema=0.995
)
POLISH_NOISE = 0.05  # added before decoding, in deviations of the latents
FIRST_WEIGHT = 3.0  # of the first frame, which has a latent one to itself and no past


def build() -> AutoencoderKLWan:
    """The untrained autoencoder; means and deviations of its latents are set by `calibrate`.

    Starts with hardly any noise in its latents, or it would first have to learn to be heard.
    """
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        scale_factor_temporal=4,
        scale_factor_spatial=4,
    )
    with torch.no_grad():
        vae.quant_conv.bias[4:] -= 4.0
    return vae


def to_tensor(clips: np.ndarray) -> Tensor:  # uint8 [B, T, H, W, 3] -> float32 [B, 3, T, H, W] in [-1, 1]
    """Clips as the autoencoder takes them."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def loss(vae: AutoencoderKLWan, clips: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, T, H, W]
    """L1, L1 of local means, a little KL, and one code for all frames."""
    posterior = vae.encode(clips).latent_dist
    spread = (posterior.var + LATENT_NOISE**2).sqrt()
    decoded = vae.decode(posterior.mean + spread * torch.randn(spread.shape, generator=generator).to(spread)).sample
    divergence = posterior.kl().mean() / posterior.mean[0].numel()
    tint = F.l1_loss(F.avg_pool3d(decoded, (1, 8, 8)), F.avg_pool3d(clips, (1, 8, 8)))
    return (
        F.l1_loss(decoded, clips) + TINT_WEIGHT * tint + KL_WEIGHT * divergence + CODE_WEIGHT * code_gap(vae, clips)
    )


def code_gap(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:  # [B, 3, T, H, W] -> []
    """How far the first latent frame of a picture that stands still is from the next, as a share of the variance.

    The first holds one frame, the others four each. Left alone it is written in a code of its own, which a
    transformer must learn besides, and which a video that repeats itself then shows in its middle.
    """
    still = vae.encode(clips[:, :, :1].expand(-1, -1, 5, -1, -1)).latent_dist.mean
    return F.mse_loss(still[:, :, 0], still[:, :, 1]) / still.var().detach()


def crops(count: int, seed: int, shapes: tuple[tuple[int, int], ...] = SHAPES) -> np.ndarray:
    """Crops of clips, uint8 [count, T, S, S, 3], T and S one of `shapes`, mostly with the object at half time."""
    rng = np.random.default_rng(seed)
    frames, size = shapes[rng.integers(len(shapes))]
    cut = []
    for _ in range(count):
        clip = render(sample(rng), frames)
        saturated = np.ptp(clip[frames // 2].astype(int), axis=-1) > 100
        row, column = rng.integers(0, SIDE - size + 1, 2)
        if rng.random() < 0.8 and saturated.any():
            places = np.argwhere(saturated)
            place = places[rng.integers(len(places))]
            row, column = np.clip(place - rng.integers(2, size - 2, 2), 0, SIDE - size)
        cut.append(clip[:, row : row + size, column : column + size])
    return np.stack(cut)


@dataclass(frozen=True)
class Reconstructing:
    """The task: give back crops of clips that are made as they are needed."""

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of `count` crops."""
        seed = int(torch.randint(2**40, (1,), generator=generator))
        (shown,) = beside(student, [to_tensor(crops(count, seed))])
        return {"loss": loss(student, shown, generator)}


@dataclass
class Decoding:
    """The task of the second half: read what an encoder that stays has written.

    What lives on its latents already, a cache of them or a transformer, then has nothing to learn anew.
    """

    vae: AutoencoderKLWan  # with the student as its decoder

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Ten times the squared error, the absolute error, and that of local means; the first frame counts more."""
        seed = int(torch.randint(2**40, (1,), generator=generator))
        (shown,) = beside(student, [to_tensor(crops(count, seed, POLISH_SHAPES))])
        vae = self.vae.to(shown.device)
        vae.decoder, vae.post_quant_conv = student.decoder, student.post_quant_conv
        with torch.no_grad():
            latents = vae.encode(shown).latent_dist.mean
            deviation = latents.new_tensor(vae.config.latents_std)[:, None, None, None]
            noise = torch.randn(latents.shape, generator=generator).to(latents)
        error = vae.decode(latents + POLISH_NOISE * deviation * noise).sample - shown
        weight = error.new_ones(error.shape[2])
        weight[0] = FIRST_WEIGHT
        error = error * weight[:, None, None]
        tint = F.avg_pool3d(error, (1, 8, 8)).abs().mean()
        return {"loss": 10 * error.square().mean() + error.abs().mean() + TINT_WEIGHT * tint}


def reader(vae: AutoencoderKLWan) -> nn.Module:
    """All that decodes, as one module."""
    return nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})


def polish(vae: AutoencoderKLWan, folder: Path, seed: int, resume: bool, log: Callable[[str], None]) -> None:
    """Go on with the decoder alone; measure on clips from `seed` on."""
    half = reader(vae)
    task = Decoding(copy.deepcopy(vae).requires_grad_(False))
    train(half, task, POLISH, folder, hidden, resume and (folder / "state.pt").exists())
    load_average(folder, half)
    log(f"autoencoder, polished: {psnr(vae.eval(), seed + 1000):.2f} dB")


def hidden(name: str, weight: Tensor) -> bool:
    """Kernels between the first and the last convolution of each half."""
    return weight.ndim >= 4 and not any(part in name for part in ("conv_in", "conv_out", "quant_conv"))


def make(folder: Path, seed: int, resume: bool, log: Callable[[str], None]) -> AutoencoderKLWan:
    """Train, measure on clips from `seed` on, which training never sees, write the result to `folder`/vae."""
    torch.manual_seed(RECIPE.seed)
    vae = build()
    train(vae, Reconstructing(), RECIPE, folder, hidden, resume and (folder / "state.pt").exists())
    load_average(folder, vae)
    calibrate(vae.eval(), seed)
    log(f"autoencoder: {psnr(vae, seed + 1000):.2f} dB on clips it has not seen")
    vae.save_pretrained(folder / "vae")
    return vae


@torch.no_grad()
def calibrate(vae: AutoencoderKLWan, seed: int, count: int = 48, frames: int = 45) -> None:
    """Set the means and deviations of the latents' channels, which the pipeline takes off."""
    means = [vae.encode(to_tensor(render(sample(seed + i), frames)[None])).latent_dist.mean for i in range(count)]
    latents = torch.cat(means)
    vae.register_to_config(
        latents_mean=[round(value, 5) for value in latents.mean((0, 2, 3, 4)).tolist()],
        latents_std=[round(value, 5) for value in latents.std((0, 2, 3, 4)).tolist()],
    )


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, seed: int, count: int = 16, frames: int = 45) -> float:
    """Mean peak signal-to-noise ratio (dB) of the reconstructions of held-out clips."""
    values = []
    for index in range(count):
        target = to_tensor(render(sample(seed + index), frames)[None])
        decoded = vae.decode(vae.encode(target).latent_dist.mean).sample
        values.append(-10 * ((decoded - target) / 2).square().mean().log10().item())
    return float(np.mean(values))
