"""Perturbations found picture by picture, by climbing the denoising loss of one or more diffusion models.

RID (arXiv 2412.09844), supplement. With surrogates as they are this is AdvDM (Liang et al. 2023), the default there;
with surrogates that learn the person meanwhile it is ASPL, alternating surrogate and perturbation learning
(Anti-DreamBooth, Van Le et al. 2023). Minutes a picture where the defender takes one pass: the baselines, and the
maker of the targets that the defender's regression learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.rid.attacks import ensemble_average, momentum_pgd_step, pgd_step
from engines.rid.surrogate import Diffusion
from engines.rid.thief import Way, class_latents, personalise

STEP_SHARE = 0.1  # of the budget: 1.2/255 of 12/255
OnStep = Callable[[int], None]
Slope = Callable[[Tensor], Tensor]  # pictures -> the gradient of what is climbed, [B, 3, S, S] both


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
    on_step: OnStep = lambda done: None,
) -> Tensor:  # [B, 3, S, S], within eps of the pictures and within [-1, 1]
    """The protected pictures, by surrogates that stay as they are."""
    slopes = [_denoising(model, model.embed([prompt]).detach(), generator) for model in models]
    climb = _Climb(pictures, eps, generator, momentum, on_step)
    return climb.together(slopes, pictures.clone(), rounds, inner)


def protect_by_reconstruction(
    models: Sequence[Diffusion],
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    *,
    eps: float,  # in [-1, 1]
    rounds: int,  # outer iterations; after each the models' results are averaged
    inner: int,  # steps a model and round
    generator: torch.Generator,
    on_step: OnStep = lambda done: None,
) -> Tensor:  # [B, 3, S, S], within eps of the pictures and within [-1, 1]
    """The protected pictures by an attack on the autoencoders alone, as PhotoGuard's (Salman et al. 2023) is one.

    Climbs how far what an autoencoder gives back is from the picture; no target latents, and no denoiser is asked.
    The first step is drawn, a tenth of the budget in any direction.
    """
    slopes = [partial(reconstruction_gradient, model, wanted=pictures) for model in models]
    begun = STEP_SHARE * eps * (2 * torch.rand(pictures.shape, generator=generator) - 1).to(pictures)
    climb = _Climb(pictures, eps, generator, False, on_step)
    return climb.together(slopes, (pictures + begun).clamp(-1, 1), rounds, inner)


def protect_by_alternation(
    models: Sequence[Diffusion],
    pictures: Tensor,  # [B, 3, S, S] in [-1, 1]
    *,
    eps: float,  # in [-1, 1]
    rounds: int,  # outer iterations; after each the models' results are averaged. 50 in the published code
    inner: int,  # steps of the climb a model and round; 6 in the published code
    way: Way,  # full fine-tuning, its steps those of each of the two learnings of a round: 3 in the published code
    subject: str,  # prompt of the person, {token} for the placeholder
    person: str,  # prompt of the class, whose prior is preserved where the way asks for it
    generator: torch.Generator,
    on_step: OnStep = lambda done: None,
) -> Tensor:  # [B, 3, S, S], within eps of the pictures and within [-1, 1]
    """The protected pictures by ASPL, against surrogates that learn the person while the pictures change.

    In every round a copy of each surrogate learns the clean pictures, the perturbation climbs the loss of that copy,
    and the surrogate itself learns the pictures as they are protected so far (Anti-DreamBooth, section "Alternating
    Surrogate and Perturbation Learning"). Its authors take clean pictures of the person that are not to be protected;
    who protects an album has no others, so the clean ones here are the same. Raises ValueError for a way of stealing
    that is not full fine-tuning. The models that are handed in stay as they were. `on_step` hears of every step of a
    climb, and again between steps of learning, and may raise.
    """
    if way.kind != "full":
        raise ValueError(f"ASPL fine-tunes the whole surrogate, not by {way.kind!r}")
    climb = _Climb(pictures, eps, generator, False, on_step)
    priors = [_prior(model, pictures, way, person, climb) for model in models]
    surrogates, current = list(models), pictures.clone()

    def taught(index: int, shown: Tensor) -> tuple[Diffusion, Tensor]:
        """Surrogate `index` after a few steps on pictures, and what it makes of the subject's prompt."""
        learned = personalise(
            surrogates[index],
            shown,
            way,
            subject=subject,
            person=person,
            generator=generator,
            prior=priors[index],
            on_step=climb.again,
        )
        return learned.model, learned.model.embed([learned.prompt]).detach()

    for _ in range(rounds):
        made = []
        for index in range(len(surrogates)):
            made.append(climb(_denoising(*taught(index, pictures), generator), current, inner))
            surrogates[index], _ = taught(index, made[-1])
        current = ensemble_average(made)
    return current


def _prior(model: Diffusion, pictures: Tensor, way: Way, person: str, climb: _Climb) -> Tensor | None:
    """Latents of the class, drawn once for all rounds."""
    if not way.prior_weight:
        return None
    return class_latents(model, 2 * len(pictures), person, climb.generator, climb.again)


class _Climb:
    """Steps up a slope within the budget; counts them over all slopes, and keeps their momentum."""

    def __init__(
        self, pictures: Tensor, eps: float, generator: torch.Generator, momentum: bool, on_step: OnStep
    ) -> None:
        self.pictures, self.eps, self.generator, self.on_step = pictures, eps, generator, on_step
        self.memory = torch.zeros(len(pictures), 1, 1, 1).to(pictures) if momentum else None
        self.done = 0

    def __call__(self, slope: Slope, start: Tensor, steps: int) -> Tensor:
        """Where `steps` steps from `start` lead, [B, 3, S, S]."""
        moved = start
        size = {"alpha": STEP_SHARE * self.eps, "eps": self.eps}
        for _ in range(steps):
            gradient = slope(moved)
            if self.memory is None:
                moved = pgd_step(moved, self.pictures, gradient, **size)
            else:
                moved, self.memory = momentum_pgd_step(moved, self.pictures, gradient, self.memory, **size)
            self.done += 1
            self.on_step(self.done)
        return moved

    def together(self, slopes: Sequence[Slope], start: Tensor, rounds: int, inner: int) -> Tensor:
        """Where rounds lead in which every slope is climbed from the mean of what the round before made of all."""
        current = start
        for _ in range(rounds):
            current = ensemble_average([self(slope, current, inner) for slope in slopes])
        return current

    def again(self, learned: int) -> None:
        """Something else than a step was done."""
        self.on_step(self.done)


def _denoising(model: Diffusion, words: Tensor, generator: torch.Generator) -> Slope:  # words [1, T, D]
    """The slope of the denoising loss, with fresh noise at every step."""
    return lambda moved: denoising_gradient(model, moved, words.expand(len(moved), -1, -1), generator)


def denoising_gradient(
    model: Diffusion,
    pictures: Tensor,  # [B, 3, S, S]
    words: Tensor,  # [B, T, D]
    generator: torch.Generator,
) -> Tensor:  # [B, 3, S, S]
    """Of the error of what is predicted, through U-Net and encoder, at fresh noise and timesteps."""
    moved = pictures.detach().requires_grad_(True)
    latents = model.sampled(model.posterior(moved), generator)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    timesteps = torch.randint(model.steps, (len(pictures),), generator=generator).to(latents.device)
    (gradient,) = torch.autograd.grad(model.denoising_error(latents, noise, timesteps, words), moved)
    return gradient


def reconstruction_gradient(
    model: Diffusion,
    pictures: Tensor,  # [B, 3, S, S]
    wanted: Tensor,  # [B, 3, S, S], what should come back
) -> Tensor:  # [B, 3, S, S]
    """Of the error of what the autoencoder gives back, by the mean of its latents."""
    moved = pictures.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.mse_loss(model.given_back(moved), wanted), moved)
    return gradient
