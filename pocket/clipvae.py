"""The autoencoder of the moving things: `AutoencoderKLWan`, four times smaller in space and in time, four channels.

Trained on crops of short clips: its convolutions are local, and causal in time, so that a crop of nine frames has
met every case that a long clip has. Then it goes on with whole frames, and learns to write a clip as if it had stood
still before it begins. Knows nothing of captions.
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
    seed=8, steps=1800, batch=4, ranks=1, muon_rate=0.01, adam_rate=1e-3, warmup=30, cooldown=1350, ema=0.995
)
POLISH_NOISE = 0.05  # added before decoding, in deviations of the latents
REST = 16  # frames of stillness before a clip, after which nothing tells its first frame from the others
SETTLING = 1.0  # weight of the way to the settled code, in deviations
LATEST = 2  # latent frame at which a decoder that is not told the beginning may begin
FRAMES_PER_LATENT = 4


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


@torch.no_grad()
def settled(
    vae: AutoencoderKLWan, clips: Tensor
) -> Tensor:  # [B, 3, T, H, W] -> [B, C, 1 + (T - 1) / 4, H / 4, W / 4]
    """The latents that clips would have, had they stood still for a while before they began.

    Of a still, the encoder of the first half writes the first two latent frames otherwise than those that follow, by
    0.8 and 0.7 of their deviation. A transformer that goes on for longer than it was trained for begins with what it
    holds for an ordinary frame; read as a first one, that has the wrong colours for half a second.
    """
    rest = clips[:, :, :1].expand(-1, -1, REST, -1, -1)
    return vae.encode(torch.cat([rest, clips], 2)).latent_dist.mean[:, :, REST // 4 :]


@dataclass
class Settling:
    """The task of the second half: give back clips whose code is, from the first frame on, what it settles to."""

    before: AutoencoderKLWan  # as the first half left it; what its code settles to is learned

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Errors of `count` crops, and the squared way to the settled code."""
        seed = int(torch.randint(2**40, (1,), generator=generator))
        (shown,) = beside(student, [to_tensor(crops(count, seed, POLISH_SHAPES))])
        return settling_loss(student, self.before.to(shown.device), shown, generator)


def settling_loss(
    vae: nn.Module, before: AutoencoderKLWan, shown: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Ten times the squared error, the absolute error and that of local means; apart from them, that of the code.

    Two times in five the decoder is not told how the clip began: a longer video begins with what was an ordinary
    frame in training, in the middle of a movement.
    """
    deviation = shown.new_tensor(before.config.latents_std)[:, None, None, None]
    code = vae.encode(shown).latent_dist.mean
    noise = torch.randn(code.shape, generator=generator).to(code)
    first = max(0, int(torch.randint(-LATEST, LATEST + 1, (), generator=generator)))  # mostly 0
    heard = (code + POLISH_NOISE * deviation * noise)[:, :, first:]
    error = vae.decode(heard).sample - shown[:, :, FRAMES_PER_LATENT * first :]
    tint = F.avg_pool3d(error, (1, 8, 8)).abs().mean()
    away = ((code - settled(before, shown)) / deviation).square().mean()
    picture = 10 * error.square().mean() + error.abs().mean() + TINT_WEIGHT * tint
    return {"picture": picture, "settling": SETTLING * away}


def polish(vae: AutoencoderKLWan, folder: Path, seed: int, resume: bool, log: Callable[[str], None]) -> None:
    """Go on with both halves; measure on clips from `seed` on."""
    before = copy.deepcopy(vae).requires_grad_(False).eval()
    train(vae, Settling(before), POLISH, folder, hidden, resume and (folder / "state.pt").exists())
    load_average(folder, vae)
    calibrate(vae.eval(), seed)
    log(f"autoencoder, polished: {psnr(vae, seed + 1000):.2f} dB, {unsettled(vae, seed + 1000):.2f} unsettled")


@torch.no_grad()
def unsettled(vae: AutoencoderKLWan, seed: int, count: int = 8) -> float:
    """How far the first two latent frames of clips are from what they settle to (root mean square, in deviations)."""
    deviation = torch.tensor(vae.config.latents_std)[:, None, None, None]
    gaps = []
    for index in range(count):
        clip = to_tensor(render(sample(seed + index), 5)[None])
        gaps.append(((vae.encode(clip).latent_dist.mean - settled(vae, clip)) / deviation).square().mean())
    return float(torch.stack(gaps).mean().sqrt())


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
