"""Portraits as the defender sees them and as they are saved: orientation, transparency, crop, budget, grey levels."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engines.rid.framing import Square
from engines.rid.levels import opened


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF tag says, transparency over white, in RGB."""
    return over_white(ImageOps.exif_transpose(image))


def over_white(image: Image.Image) -> Image.Image:
    """In RGB, transparency over white; a picture that is so already, itself."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def preprocess_portrait(image: Image.Image, size: int) -> tuple[np.ndarray, Tensor]:
    """The whole upright picture, uint8 [H, W, 3], and what the network takes, float32 [3, size, size] in [-1, 1].

    The short side is resized to `size` (bilinear, antialiased) and the middle cropped.
    """
    rgb = upright_rgb(image)
    return np.asarray(rgb), opened(np.array(middle(rgb, size))[None])[0]


def middle(rgb: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` pixels (bilinear, antialiased), and the square in the middle of the result."""
    width, height = rgb.size
    short = min(width, height)
    scaled = (int(size * width / short), int(size * height / short))
    resized = rgb.resize(scaled, Image.Resampling.BILINEAR) if scaled != rgb.size else rgb
    left, top = (round((side - size) / 2) for side in resized.size)
    return resized.crop((left, top, left + size, top + size))


def taken(rgb: Image.Image, parts: Sequence[Square], side: int) -> Tensor:  # [N, 3, side, side] in [-1, 1]
    """The squares of a picture as a network of `side` pixels takes them, resized as the whole picture would be."""
    boxes = [(part.left, part.top, part.left + part.side, part.top + part.side) for part in parts]
    # Cut out first: resizing a box looks at what lies around it, which the thief who crops does not have.
    return opened(np.stack([middle(rgb.crop(box), side) for box in boxes]))


def protect_levels(
    levels: np.ndarray,  # uint8 [H, W, 3]
    change: Iterable[tuple[slice, slice, Tensor]],  # rows, columns, perturbation in [-1, 1]
) -> np.ndarray:  # uint8 [H, W, 3]
    """The protected picture, band by band, so that a large one never lies in memory as fractions."""
    made = levels.copy()
    for rows, columns, delta in change:
        band = opened(levels[None, rows, columns])[0]
        made[rows, columns] = apply_perturbation(band, delta)[1].permute(1, 2, 0).numpy()
    return made


def apply_perturbation(image: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:  # [-1, 1] -> [0, 1], uint8
    """The protected picture, clamped to the range of colours, and its grey levels, rounded half up."""
    protected = ((image + delta) / 2 + 0.5).clamp(0, 1)
    return protected, (255 * protected + 0.5).floor().clamp(0, 255).to(torch.uint8)


def jpeg_roundtrip(image: np.ndarray, quality: int) -> np.ndarray:  # uint8 [H, W, 3] -> uint8 [H, W, 3]
    """What a real JPEG leaves, with the encoder's usual halved colours."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
