"""The pocket autoencoder: `AutoencoderKL`, four times smaller on each side, four channels, trained on the flat
world.

Crops of pictures rendered at 96, 192 and 288 px are reconstructed, so that a picture decoded at two or three
times the training size has sharp edges too. There is no attention in it: decoding is local, apart from group
normalisation. Knows nothing of captions or of the transformer that will live in its latent space.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pocket.flatworld import render, sample_scene

CROP = 64  # pixels; whole 96 px pictures cost more than twice as much and teach little more
GALLERY = ((96, 1600), (192, 500), (288, 250))  # (side in pixels, how many pictures crops are cut from)
KL_WEIGHT = 2e-4  # per latent element; enough to keep the latent space smooth, far too little to blur
LATENT_NOISE = 0.1  # added before decoding: what a small transformer generates is never exact
TINT_WEIGHT = 3.0  # on 8x8 means: pale skies differ by a few levels, which edges drown in plain L1


def build() -> AutoencoderKL:
    """The untrained autoencoder; `shift_factor` must be a number, or the Flux pipeline fails on None."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=96,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def to_tensor(pictures: np.ndarray) -> Tensor:  # uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]
    """Pictures as the autoencoder takes them."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:  # both [B, C, H, W] in [-1, 1] -> scalar
    """Mean SSIM (Wang et al. 2004) with a 7x7 box window, constants for a range of 2."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_a, mean_b = F.avg_pool2d(a, 7, 1), F.avg_pool2d(b, 7, 1)
    var_a = F.avg_pool2d(a * a, 7, 1) - mean_a**2
    var_b = F.avg_pool2d(b * b, 7, 1) - mean_b**2
    cov = F.avg_pool2d(a * b, 7, 1) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def loss(vae: AutoencoderKL, pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, H, W] in [-1, 1]
    """L1 + 3 L1 of local means + 0.2 (1 - SSIM) + a little KL."""
    posterior = vae.encode(pictures).latent_dist
    spread = (posterior.var + LATENT_NOISE**2).sqrt()
    decoded = vae.decode(posterior.mean + spread * torch.randn(spread.shape, generator=generator).to(spread)).sample
    divergence = posterior.kl().mean() / posterior.mean[0].numel()
    detail = F.l1_loss(decoded, pictures) + 0.2 * (1 - structural_similarity(decoded, pictures))
    tint = F.l1_loss(F.avg_pool2d(decoded, 8), F.avg_pool2d(pictures, 8))
    return detail + TINT_WEIGHT * tint + KL_WEIGHT * divergence


def train(
    seed: int,
    seconds: float,
    log: Callable[[str], None],
    batch: int = 16,
    vae: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Train for a time budget; the learning rate falls to zero with the clock, so every budget ends cleanly."""
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    gallery = [
        np.stack([render(sample_scene(int(rng.integers(2**40))), side) for _ in range(count)])
        for side, count in GALLERY
    ]
    vae = (vae or build()).train()
    optimiser = torch.optim.AdamW(vae.parameters(), 3e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    start, step = time.monotonic(), 0
    while (done := (time.monotonic() - start) / seconds) < 1:
        rate = 3e-3 * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        optimiser.param_groups[0]["lr"] = rate
        value = loss(vae, to_tensor(_crops(gallery, batch, rng)), generator)
        value.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            log(f"autoencoder step {step} loss {value.item():.4f} rate {rate:.2e} {done:.0%}")
    return vae.eval()


@torch.no_grad()
def calibrate(vae: AutoencoderKL, seed: int, count: int = 512) -> None:
    """Set shift and scale so that latents have mean 0 and deviation 1, as the diffusion assumes."""
    latents = torch.cat([vae.encode(to_tensor(batch)).latent_dist.mean for batch in pictures(seed, count)])
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 5), scaling_factor=round(1 / latents.std().item(), 5)
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, side: int, seed: int, count: int = 64) -> float:
    """Mean peak signal-to-noise ratio (dB) of reconstructions of held-out pictures."""
    values = []
    for batch in pictures(seed, count, side, 16):
        target = to_tensor(batch)
        decoded = vae.decode(vae.encode(target).latent_dist.mean).sample.clamp(-1, 1)
        error = ((decoded - target) / 2).square().mean((1, 2, 3))
        values += (-10 * error.log10()).tolist()
    return float(np.mean(values))


def pictures(seed: int, count: int, side: int = 96, batch: int = 64):  # yields uint8 [B, side, side, 3]
    """Batches of world pictures, each from its own seed."""
    for first in range(0, count, batch):
        yield np.stack([render(sample_scene(seed + i), side) for i in range(first, min(first + batch, count))])


def _crops(gallery: list[np.ndarray], batch: int, rng: np.random.Generator) -> np.ndarray:
    """Random crops from all sizes, half of them mirrored; uint8 [batch, CROP, CROP, 3]."""
    cut = []
    for _ in range(batch):
        images = gallery[rng.choice(len(gallery), p=(0.5, 0.3, 0.2))]
        image = images[rng.integers(len(images))]
        top, left = rng.integers(0, image.shape[0] - CROP + 1, 2)
        piece = image[top : top + CROP, left : left + CROP]
        cut.append(piece[:, ::-1] if rng.random() < 0.5 else piece)
    return np.stack(cut)
