"""Grey levels as pictures are stored, the range from -1 to 1 that networks take, and the way between the two."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engines.rid.defender import GREY_LEVELS


def to_float(levels: Tensor) -> Tensor:  # uint8, any shape -> float32 in [-1, 1]
    """Pictures as networks take them."""
    return levels.float().div_(GREY_LEVELS).sub_(1)


def to_levels(pictures: Tensor) -> Tensor:  # [-1, 1], any shape -> uint8
    """Grey levels, rounded half up as pictures are saved; what lies outside of the range is brought to its ends."""
    return ((pictures + 1) * GREY_LEVELS + 0.5).floor().clamp(0, 255).to(torch.uint8)


def stored(pictures: Tensor) -> np.ndarray:  # [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3]
    """Pictures as files hold them."""
    return to_levels(pictures).permute(0, 2, 3, 1).cpu().numpy()


def opened(pictures: np.ndarray) -> Tensor:  # uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]
    """Pictures from files, as networks take them."""
    return to_float(torch.tensor(pictures).permute(0, 3, 1, 2)).contiguous()
