"""The analytic toy: particles in the plane, a Gaussian to imitate, and every score exact.

What separates the algorithms when no network can be blamed: score distillation collapses to the mode, variational
score distillation keeps the distribution (ProlificDreamer, arXiv 2305.16213, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engines.prolificdreamer.exact import mixture_epsilon
from engines.prolificdreamer.schedules import timestep_bounds
from engines.prolificdreamer.vsd import add_noise, gradient_loss, scaled_linear_alphas_cumprod, vsd_gradient

MEAN = (1.5, -0.5)
VARIANCE = (0.25, 1.0)
START = 2.0  # deviation of the particles before the first step
RATE = 0.03
ANNEAL_SHARE = 0.2  # of the steps after which only the lower timesteps are drawn


@dataclass(frozen=True)
class ToyResult:
    """Where the particles went."""

    particles: Tensor  # float64 [n, 2]
    path: Tensor  # float64 [snapshots, n, 2], beginning with the start

    @property
    def mean(self) -> Tensor:  # [2]
        """Of the particles."""
        return self.particles.mean(dim=0)

    @property
    def variance(self) -> Tensor:  # [2]
        """Of the particles."""
        return self.particles.var(dim=0)


def distil_gaussian(
    method: Literal["vsd", "sds"],
    *,
    steps: int = 4000,
    particles: int = 64,
    seed: int = 0,
    snapshots: int = 5,
) -> ToyResult:
    """Move particles by the exact gradient of either algorithm; the same seed starts both from the same places."""
    generator = torch.Generator().manual_seed(seed)
    abars = scaled_linear_alphas_cumprod().double()
    mean, variance = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, VARIANCE))
    theta = (START * torch.randn(particles, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=RATE, betas=(0.9, 0.99))
    path = [theta.detach().clone()]
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
        low, high = timestep_bounds(step, anneal_step=round(ANNEAL_SHARE * steps))
        abar = abars[torch.randint(low, high + 1, (particles,), generator=generator)]
        noise = torch.randn(particles, 2, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            x_t = add_noise(theta, noise, abar)
            teacher = mixture_epsilon(x_t, mean[None], abar, variance)
            phi = mixture_epsilon(x_t, theta, abar) if method == "vsd" else noise
            grad = vsd_gradient(x_t, teacher, teacher, phi, abar, phi_prediction_type="epsilon")
        optimiser.zero_grad()
        gradient_loss(theta, grad).backward()
        optimiser.step()
        if (step + 1) % max(1, steps // max(1, snapshots - 1)) == 0:
            path.append(theta.detach().clone())
    return ToyResult(theta.detach(), torch.stack(path))
