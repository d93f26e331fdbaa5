"""Portraits as the defender sees them and as they are saved: orientation, transparency, crop, budget, grey levels."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF tag says, transparency over white, in RGB."""
    return over_white(ImageOps.exif_transpose(image))


def over_white(image: Image.Image) -> Image.Image:
    """In RGB, transparency over white."""
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
    width, height = rgb.size
    short = min(width, height)
    scaled = (int(size * width / short), int(size * height / short))
    resized = rgb.resize(scaled, Image.Resampling.BILINEAR) if scaled != rgb.size else rgb
    left, top = (round((side - size) / 2) for side in resized.size)
    crop = np.asarray(resized.crop((left, top, left + size, top + size)))
    tensor = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return np.asarray(rgb), tensor


def apply_perturbation(image: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:  # [-1, 1] -> [0, 1], uint8
    """The protected picture, clamped to the range of colours, and its grey levels, rounded half up."""
    protected = ((image + delta) / 2 + 0.5).clamp(0, 1)
    return protected, (255 * protected + 0.5).floor().clamp(0, 255).to(torch.uint8)


def jpeg_roundtrip(image: np.ndarray, quality: int) -> np.ndarray:  # uint8 [H, W, 3] -> uint8 [H, W, 3]
    """What a real JPEG leaves, with the encoder's usual halved colours."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
