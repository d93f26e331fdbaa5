"""What worn and what broken pictures of toys look like, for judges to know the one and turn down the other.

Worn: tinted, moved, blurred, shrunk, compressed, grained: a small autoencoder does no worse, and the toy is whole.
Broken: no whole toy is left. Some ways of breaking are kept for examinations and never trained on. Pictures are
float32 [B, 3, 64, 64] in [-1, 1]; randomness comes from a torch generator.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

HALVING = ("beside", "stacked", "erased")  # leave a whole toy of two
WAYS = (*HALVING, "tiles", "melted", "half_melted", "patched", "ghost", "bare", "fog", "dabs", "clay")
UNSEEN_WAYS = ("noise", "blobs")  # for examinations only


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture with its own tint, moved a little; a quarter each left sharp, blurred, shrunk and compressed."""
    count = len(pictures)
    gain = 1 + 0.07 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    offset = 0.06 * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    moved = []
    for index, part in enumerate((pictures * gain + offset).chunk(4)):
        down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
        part = F.pad(part, (4, 4, 4, 4), mode="replicate")[..., 4 + down : 68 + down, 4 + right : 68 + right]
        moved.append((lambda p, _: p, _blurred, _shrunk, _compressed)[index](part, generator))
    noise = torch.randn(pictures.shape, generator=generator)
    coarse = F.interpolate(torch.randn(count, 3, 16, 16, generator=generator), size=64, mode="bicubic")
    amounts = 0.05 * torch.rand(2, count, 1, 1, 1, generator=generator)
    return (torch.cat(moved) + amounts[0] * noise + amounts[1] * coarse).clamp(-1, 1)


def broken(way: str, pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures that show no whole toy, made from two batches of pictures that show toys of different kinds."""
    if way == "beside":
        return torch.cat([pictures[..., :32], others[..., 32:]], dim=3)
    if way == "stacked":
        return torch.cat([pictures[..., :34, :], others[..., 34:, :]], dim=2)
    if way == "tiles":
        return _shuffled(pictures, 16 if torch.rand((), generator=generator) < 0.5 else 8, generator)
    if way == "melted":
        return _warped(pictures, torch.ones(1), generator)
    if way == "half_melted":
        return _warped(pictures, ((_beyond_a_line(pictures, generator) + 8) / 12).clamp(0, 1), generator)
    if way == "patched":
        return _patched(pictures, others, generator)
    if way == "ghost":
        share = 0.38 + 0.24 * torch.rand(len(pictures), 1, 1, 1, generator=generator)
        return share * pictures + (1 - share) * others
    if way == "bare":
        return bare(pictures)
    if way == "fog":
        grain = 16 if torch.rand((), generator=generator) < 0.5 else 12
        return F.interpolate(F.avg_pool2d(pictures, grain, grain // 2), size=64, mode="bicubic")
    if way == "erased":
        return _erased(pictures, generator)
    if way == "dabs":
        return _dabs(pictures, generator)
    if way == "clay":
        return _clay(pictures, generator)
    return noise(len(pictures), generator) if way == "noise" else blobs(pictures, generator)


def bare(pictures: Tensor) -> Tensor:
    """Floor and sky without the toy: the left edge of every picture, drawn out."""
    return pictures[..., :3].mean(dim=3, keepdim=True).expand_as(pictures)


def noise(count: int, generator: torch.Generator) -> Tensor:
    """Uniform noise at several grains."""
    grains = (8, 16, 32, 64)
    parts = [2 * torch.rand(-(-count // 4), 3, g, g, generator=generator) - 1 for g in grains]
    return torch.cat([F.interpolate(part, size=64) for part in parts])[:count]


def blobs(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth lumps of one saturated colour on the backdrops of pictures: what an undertrained model draws."""
    count = len(pictures)
    axis = torch.linspace(-1, 1, 64)
    near = torch.exp(-2 * (axis[:, None] ** 2 + axis[None] ** 2))
    field = (
        F.interpolate(torch.randn(count, 1, 6, 6, generator=generator), size=64, mode="bicubic") + 2.2 * near - 1.2
    )
    colour = 2 * torch.rand(count, 3, 1, 1, generator=generator) - 1
    colour[torch.arange(count), torch.randint(3, (count,), generator=generator)] = -0.9
    shade = 1 - 0.3 * (axis[:, None] + 1) / 2
    return torch.lerp(bare(pictures), colour * shade, (6 * field).sigmoid())


def _blurred(pictures: Tensor, generator: torch.Generator) -> Tensor:
    sigma = 0.4 + 0.9 * float(torch.rand((), generator=generator))
    taps = torch.arange(-3, 4)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(pictures, (3, 3, 3, 3), mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, 7).expand(3, 1, 1, 7), groups=3)
    return F.conv2d(across, kernel.view(1, 1, 7, 1).expand(3, 1, 7, 1), groups=3)


def _shrunk(pictures: Tensor, generator: torch.Generator) -> Tensor:
    side = int(torch.randint(26, 50, (), generator=generator))
    small = F.interpolate(pictures, size=side, mode="bilinear", antialias=True)
    return F.interpolate(small, size=64, mode="bicubic")


def _compressed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """As JPEG of a quality between 30 and 90."""
    quality = int(torch.randint(30, 91, (), generator=generator))
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
    back = []
    for level in levels:
        file = io.BytesIO()
        Image.fromarray(level).save(file, "JPEG", quality=quality)
        back.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(back)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _shuffled(pictures: Tensor, tile: int, generator: torch.Generator) -> Tensor:
    """Tiles of every picture in one new order."""
    tiles = F.unfold(pictures, tile, stride=tile)
    order = torch.randperm(tiles.shape[-1], generator=generator)
    return F.fold(tiles[..., order], 64, tile, stride=tile)


def _warped(pictures: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:  # [B, 64, 64] or [1]
    """Melted by a smooth field of shifts of about eight pixels, as strongly in each place as `strength` says."""
    field = F.interpolate(torch.randn(len(pictures), 2, 9, 9, generator=generator), size=64, mode="bicubic")
    axis = (torch.arange(64) + 0.5) / 32 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    shift = 0.26 * field.permute(0, 2, 3, 1) * strength[..., None]
    return F.grid_sample(pictures, grid + shift, padding_mode="border", align_corners=False)


def _erased(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of every picture, to one side of a line through its middle, replaced by the bare backdrop."""
    return torch.where((_beyond_a_line(pictures, generator) > 0)[:, None], bare(pictures), pictures)


def _dabs(pictures: Tensor, generator: torch.Generator, count: int = 14) -> Tensor:
    """Every picture put together from a few strokes of its own colours, as soft cells around random places."""
    where = 2 * torch.rand(len(pictures), count, 1, 2, generator=generator) - 1  # [B, count, 1, 2]
    colours = F.grid_sample(F.avg_pool2d(pictures, 5, 1, 2), where, align_corners=False)  # [B, 3, count, 1]
    axis = (torch.arange(64) + 0.5) / 32 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    far = (grid - where[:, :, None]).square().sum(-1)  # [B, count, 64, 64]
    return torch.einsum("bnhw,bcn->bchw", (-40 * far).softmax(1), colours[..., 0])


def _clay(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Melted, and kneaded until one colour is left: a lump with an edge and no parts."""
    ground = bare(pictures)
    melted = _warped(pictures, torch.full((1,), 0.8), generator)
    there = F.avg_pool2d((melted - ground).abs().amax(1, keepdim=True), 7, 1, 3)
    kneaded = F.avg_pool2d(melted, 15, 1, 7, count_include_pad=False)
    return torch.lerp(ground, kneaded, (14 * (there - 0.3)).sigmoid())


def _patched(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A square of half the side from the middle of the other picture, laid somewhere near the middle."""
    down, right = torch.randint(8, 25, (2,), generator=generator).tolist()
    out = pictures.clone()
    out[..., down : down + 32, right : right + 32] = others[..., 16:48, 16:48]
    return out


def _beyond_a_line(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 64, 64], pixels
    """How far each place lies beyond a line through the middle, in a direction of each picture's own."""
    angle = 2 * math.pi * torch.rand(len(pictures), 1, 1, generator=generator)
    axis = torch.arange(64) - 31.5
    return angle.cos() * axis[None, None] + angle.sin() * (axis[None, :, None] - 2)
