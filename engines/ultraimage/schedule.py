"""The noise levels of a flow-matching run with a static time shift.

sigma_i = s u / (1 + (s - 1) u), u = linspace(1, 1/n, n), and a final 0; timestep = 1000 sigma. More of the run is
spent at high noise as `s` grows, which a larger picture needs. This is what FlowMatchEulerDiscreteScheduler computes
when it is made with `use_dynamic_shifting=False`; assigning `scheduler.config.shift` afterwards has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shifted_sigmas(num_steps: int, shift: float) -> tuple[Tensor, Tensor]:
    """(sigmas [n + 1], timesteps [n]), float32."""
    u = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
    sigmas = shift * u / (1 + (shift - 1) * u)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float(), (1000 * sigmas).float()
