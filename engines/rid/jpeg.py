"""A JPEG that gradients pass through, to train perturbations that survive the real one.

Not part of the published method. Colours 4:4:4 by the JFIF constants, orthonormal 8x8 cosine transform, the tables of
Annex K scaled as the Independent JPEG Group scales them, rounding either true or bent into a cubic (Shin and Song
2017), so that a gradient is left.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99, 99, 99, 99, 99, 99, 99, 99),) * 4,
)
FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def quantisation_tables(quality: float) -> Tensor:  # float64 [3, 8, 8]: luminance, chrominance twice
    """Annex K scaled to a quality of 1 to 100. Raises ValueError outside."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality {quality}: from 1 to 100")
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE], dtype=torch.float64)
    return ((tables * scale + 50) / 100).floor().clamp(1, 255)


def _cosines() -> Tensor:  # float64 [8, 8], orthonormal
    n = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * n[None, :] + 1) * n[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


def jpeg_proxy(
    image: Tensor,  # [B, 3, H, W] in [0, 1]
    quality: float,
    rounding: Literal["round", "cubic"] = "cubic",
) -> Tensor:  # [B, 3, H, W] in [0, 1]
    """What is left of a picture after JPEG at this quality; edges are repeated up to whole blocks of 8 pixels.

    In double precision inside: flat grey lies exactly between two steps of the tables at many qualities.
    """
    if rounding not in ("round", "cubic"):
        raise ValueError(f"rounding {rounding!r}: round or cubic")
    kind = {"dtype": torch.float64, "device": image.device}
    height, width = image.shape[-2:]
    offset = torch.tensor([0.0, 128, 128], **kind).view(3, 1, 1)
    colours = torch.einsum("ij,bjhw->bihw", torch.tensor(FROM_RGB, **kind), 255 * image.double()) + offset
    colours = F.pad(colours, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate") - 128
    blocks = colours.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2)  # [B, 3, y, x, 8, 8]
    basis = _cosines().to(**kind)
    table = quantisation_tables(quality).to(**kind)[:, None, None]
    steps = (basis @ blocks @ basis.T) / table
    nearest = steps.round()
    kept = nearest if rounding == "round" else nearest + (steps - nearest) ** 3
    blocks = basis.T @ (kept * table) @ basis
    colours = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)[..., :height, :width] + 128 - offset
    rgb = torch.einsum("ij,bjhw->bihw", torch.tensor(TO_RGB, **kind), colours) / 255
    return rgb.clamp(0, 1).to(image.dtype)
