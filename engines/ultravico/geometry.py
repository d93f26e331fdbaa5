"""How many tokens a video has, and where its text stands among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PIXELS = 16  # a token's side: 8 by the autoencoder, 2 by the patch
FRAMES = 4  # pixel frames a latent frame, after the first


@dataclass(frozen=True)
class Family:
    """What a family of video models was trained on."""

    train_latent_frames: int
    text_tokens: int
    text_position: int  # +1: text after the video, -1: before it, 0: none in the self-attention


FAMILIES = {
    "wan": Family(21, 0, 0),
    "hunyuan": Family(33, 256, 1),
    "cogvideox": Family(13, 226, -1),
}


def latent_frames(num_frames: int) -> int:
    """Of a video of 4 n + 1 frames: n + 1. Raises ValueError for any other count."""
    if num_frames < 1 or (num_frames - 1) % FRAMES:
        lower = max(1, (num_frames - 1) // FRAMES * FRAMES + 1)
        raise ValueError(f"{num_frames} frames are not 4 n + 1; use {lower} or {lower + FRAMES}")
    return (num_frames - 1) // FRAMES + 1


def frames_for(train_latent_frames: int, ratio: float) -> int:
    """Pixel frames of the whole number of latent frames closest to `ratio` times the training length."""
    return FRAMES * (round(train_latent_frames * ratio) - 1) + 1


def video_token_geometry(model: str, height: int, width: int, num_frames: int) -> dict[str, Any]:
    """Token counts of a video of `num_frames` frames of `height` x `width` pixels.

    Keys: latent_frames, grid_height, grid_width, tokens_per_frame, video_tokens, text_tokens, text_position,
    train_latent_frames, ratio (latent frames over trained ones), window_tokens (half the training length).
    Raises ValueError for sides that are no multiples of 16 and frame counts other than 4 n + 1.
    """
    if model not in FAMILIES:
        raise ValueError(f"no video model {model!r}; there are {', '.join(FAMILIES)}")
    for name, side in (("height", height), ("width", width)):
        if side < PIXELS or side % PIXELS:
            near = max(PIXELS, round(side / PIXELS) * PIXELS)
            raise ValueError(f"{name} {side} is no multiple of {PIXELS}; the closest is {near}")
    family, frames = FAMILIES[model], latent_frames(num_frames)
    rows, columns = height // PIXELS, width // PIXELS
    return {
        "latent_frames": frames,
        "grid_height": rows,
        "grid_width": columns,
        "tokens_per_frame": rows * columns,
        "video_tokens": frames * rows * columns,
        "text_tokens": family.text_tokens,
        "text_position": family.text_position,
        "train_latent_frames": family.train_latent_frames,
        "ratio": frames / family.train_latent_frames,
        "window_tokens": family.train_latent_frames * rows * columns / 2,
    }
