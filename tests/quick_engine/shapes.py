"""What the quick engine saves beside pictures: clips whose frames carry their number, and small meshes."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from PIL import Image

BITS = 6  # of the frame's number, one bar each along the lower edge


def clip(side: int, frames: int, shade: int) -> np.ndarray:  # uint8 [T, H, W, 3]
    """A block that moves to the right; the white bars below it are the binary digits of the frame's number."""
    made = np.full((frames, side, side, 3), (shade, 96, 150), np.uint8)
    bar, block = side // BITS, side // 4
    for number in range(frames):
        left = (side - block) * number // max(1, frames - 1)
        made[number, side // 4 : side // 2, left : left + block] = (235, 180, 60)
        made[number, -side // 4 :] = 0
        for bit in range(BITS):
            made[number, -side // 4 :, bit * bar : (bit + 1) * bar] = 255 * (number >> bit & 1)
    return made


def sheet(frames: np.ndarray) -> Image.Image:
    """All frames in one row."""
    return Image.fromarray(np.concatenate(list(frames), axis=1))


def archive(frames: np.ndarray) -> bytes:
    """All frames as PNG files in one ZIP, of the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for number, frame in enumerate(frames):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "PNG")
            target.writestr(zipfile.ZipInfo(f"{number:03}.png", (1980, 1, 1, 0, 0, 0)), picture.getvalue())
    return buffer.getvalue()


def mesh(shade: int, round_one: bool) -> Any:
    """A ball or a box with four colours around it, one of them `shade`, so that every side looks different."""
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    made = trimesh.creation.icosphere(subdivisions=3) if round_one else trimesh.creation.box(extents=(3, 3, 3))
    x, y, z = made.vertices.T
    uv = np.stack([np.arctan2(x, z) / (2 * np.pi) + 0.5, y / 4 + 0.5], axis=1)
    colours = np.array([(220, 60, 50), (60, 160, 80), (50, 90, 200), (shade, 190, 60)], np.uint8)
    texture = Image.fromarray(np.broadcast_to(np.repeat(colours, 16, axis=0), (64, 64, 3)).copy())
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0)
    made.visual = TextureVisuals(uv=uv, material=material)
    return made


def poster(side: int = 48) -> Image.Image:
    """A still picture that stands for a mesh."""
    return Image.linear_gradient("L").resize((side, side)).convert("RGB")
