"""Perturbations found picture by picture, by climbing the denoising loss of one or more diffusion models.

RID (arXiv 2412.09844), supplement. With surrogates as they are this is AdvDM (Liang et al. 2023), the default there.
Minutes a picture where the defender takes one pass: the baseline, and the maker of the targets that the defender's
regression learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.rid.attacks import ensemble_average, momentum_pgd_step, pgd_step
from engines.rid.surrogate import Diffusion

STEP_SHARE = 0.1  # of the budget: 1.2/255 of 12/255


def protect_by_search(
    models: Sequence[Diffusion],
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    *,
    eps: float,  # in [-1, 1]
    rounds: int,  # outer iterations; after each the models' results are averaged
    inner: int,  # steps a model and round
    prompt: str,
    generator: torch.Generator,
    momentum: bool = False,
    on_step: Callable[[int], None] = lambda done: None,
) -> Tensor:  # [B, 3, S, S], within eps of the pictures and within [-1, 1]
    """The protected pictures."""
    words = [model.embed([prompt]).detach().expand(len(pictures), -1, -1) for model in models]
    current, memory, done = pictures.clone(), torch.zeros(len(pictures), 1, 1, 1).to(pictures), 0
    for _ in range(rounds):
        made = []
        for model, said in zip(models, words, strict=True):
            moved = current
            for _ in range(inner):
                gradient = denoising_gradient(model, moved, said, generator)
                if momentum:
                    moved, memory = momentum_pgd_step(
                        moved, pictures, gradient, memory, alpha=STEP_SHARE * eps, eps=eps
                    )
                else:
                    moved = pgd_step(moved, pictures, gradient, alpha=STEP_SHARE * eps, eps=eps)
                done += 1
                on_step(done)
            made.append(moved)
        current = ensemble_average(made)
    return current


def denoising_gradient(
    model: Diffusion,
    pictures: Tensor,  # [B, 3, S, S]
    words: Tensor,  # [B, T, D]
    generator: torch.Generator,
) -> Tensor:  # [B, 3, S, S]
    """Of the error of the predicted noise, through U-Net and encoder, at fresh noise and timesteps."""
    moved = pictures.detach().requires_grad_(True)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    posterior = model.vae.encode(moved).latent_dist
    latents = (posterior.mean + posterior.std * draw(posterior.mean)) * model.vae.config.scaling_factor
    noise = draw(latents)
    timesteps = torch.randint(model.steps, (len(pictures),), generator=generator).to(latents.device)
    error = F.mse_loss(model.predict(model.noised(latents, noise, timesteps), timesteps, words), noise)
    (gradient,) = torch.autograd.grad(error, moved)
    return gradient
