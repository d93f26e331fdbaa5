"""What the page prints under a protected photo: how visible the protection is, and what a JPEG leaves of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.rid.defender import GREY_LEVELS
from engines.rid.portrait import jpeg_roundtrip
from engines.rid.quality import structural_similarity, survival, visibility_metrics

JPEG_QUALITY = 75
FULLY_MEASURED = 1_000_000  # pixels; likeness and what JPEG leaves are measured in the middle of larger photos
ROWS = 64  # of a difference that are computed at once: fractions take eight times the room of grey levels


def measured(clean: np.ndarray, protected: np.ndarray) -> dict[str, Any]:  # uint8 [H, W, 3], same shape
    """Changes in grey levels, PSNR in dB, SSIM, and the share of the perturbation that JPEG 75 leaves."""
    largest, mean, psnr = visibility_metrics(clean, protected)
    clean, protected = _middle(clean), _middle(protected)
    after = (jpeg_roundtrip(picture, JPEG_QUALITY) for picture in (clean, protected))
    energy, alike = survival(clean, protected, *after)
    return {
        "max_change": largest,
        "mean_change": round(mean, 3),
        "psnr": round(psnr, 2) if np.isfinite(psnr) else None,
        "ssim": round(structural_similarity(clean, protected), 4),
        "jpeg_energy": round(energy, 3),
        "jpeg_correlation": round(alike, 3),
    }


def _middle(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    share = min(1.0, (FULLY_MEASURED / (height * width)) ** 0.5)
    rows, columns = max(16, int(height * share)), max(16, int(width * share))
    top, left = max(0, (height - rows) // 2), max(0, (width - columns) // 2)
    return picture[top : top + rows, left : left + columns]


def amplified(clean: np.ndarray, protected: np.ndarray, budget: float) -> np.ndarray:  # uint8 [H, W, 3]
    """The change around mid-grey, so that the whole budget (in grey levels) spans the whole range."""
    shown = np.empty_like(clean)
    for top in range(0, len(clean), ROWS):
        rows = slice(top, top + ROWS)
        change = protected[rows].astype(np.float64) - clean[rows]
        shown[rows] = np.clip(np.floor(change / budget * GREY_LEVELS + 128), 0, 255)
    return shown
