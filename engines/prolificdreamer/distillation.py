"""One step of distillation in latent space: what should change in the renders, and what phi learns from them.

ProlificDreamer (arXiv 2305.16213), algorithm 1, lines 5 to 7. With the noise in place of phi it is score
distillation sampling, the baseline. Knows neither fields nor cameras beyond their poses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from engines.prolificdreamer.estimator import Estimator
from engines.prolificdreamer.prompts import Wording, perp_neg_epsilon, perp_neg_mix, weights_tensor
from engines.prolificdreamer.schedules import TimeRange
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.viewpoints import Views
from engines.prolificdreamer.vsd import (
    Prediction,
    Weighting,
    add_noise,
    convert_prediction,
    gradient_loss,
    score_estimator_loss,
    vsd_gradient,
)


@dataclass(frozen=True)
class Guidance:
    """How the particles are moved."""

    algorithm: Literal["vsd", "sds"] = "vsd"
    scale: float = 7.5
    weighting: Weighting = "sigma2"
    clip: float | None = None
    perp_neg: bool = False
    times: TimeRange = field(default_factory=TimeRange)


@dataclass(frozen=True)
class Learning:
    """How phi is trained; the defaults are the released ones."""

    rate: float = 1e-4
    warmup: int = 500  # steps from zero to the full rate
    camera_drop: float = 0.1  # of the poses that are not told
    target: Prediction = "v_prediction"  # what the squared error is taken of, whatever the network predicts
    repeats: int = 1  # noises of every render in a batch
    steps: int = 1  # of phi after each step of the particles
    every: int = 1  # steps of the particles between those of phi


@dataclass(frozen=True)
class Push:
    """What one look at the renders gave."""

    gradient: Tensor  # [B, C, h, w], to be divided by B
    times: tuple[int, int]  # the range timesteps came from
    norm: float  # mean length of the gradient of a sample

    @property
    def told(self) -> dict[str, float]:
        """As a stage tells it."""
        return {"low": float(self.times[0]), "high": float(self.times[1]), "gradient": self.norm}


class Distiller:
    """Teacher and phi under one guidance."""

    def __init__(
        self,
        teacher: Teacher,
        estimator: Estimator | None,  # None for score distillation sampling
        wording: Wording,
        guidance: Guidance,
        learning: Learning | None = None,
    ) -> None:
        self.teacher, self.estimator, self.wording, self.guidance = teacher, estimator, wording, guidance
        self.learning = learning or Learning()
        self.pace = 1.0  # factor on the rate of phi; halved after a step that gave no numbers
        self.optimiser = None
        if estimator is not None:
            self.optimiser = torch.optim.AdamW(estimator.parameters, lr=self.learning.rate, fused=True)

    # -- the particles ---------------------------------------------------------------------------------------------

    def look(
        self,
        image: Tensor,  # [B, 3, S, S] in [0, 1], without a graph
        views: Views | None,
        step: int,
        streams: Streams,
    ) -> tuple[Tensor, Tensor, Push]:  # gradient [B, 3, S, S], latents [B, C, h, w], what was found
        """What should change in pictures: through the autoencoder, past the denoisers."""
        leaf, teacher = image.detach().requires_grad_(), self.teacher
        shape = (len(image), teacher.channels, teacher.cells, teacher.cells)
        noise = torch.randn(shape, generator=streams.at("posterior", step)).to(image.device)
        latents = teacher.encode(leaf, noise)
        push = self.push(latents.detach(), views, step, streams)
        (gradient,) = torch.autograd.grad(gradient_loss(latents, push.gradient), leaf)
        return gradient, latents.detach(), push

    @torch.no_grad()
    def push(self, x0: Tensor, views: Views | None, step: int, streams: Streams) -> Push:
        """w(t) (eps_pre - eps_phi) for latents x0 [B, C, h, w]; without views no side is told."""
        g, teacher = self.guidance, self.teacher
        low, high = g.times.bounds(step, len(teacher.alphas_cumprod))
        high = min(high, len(teacher.alphas_cumprod) - 1)  # a largest time of 1 is the last there is
        low = min(low, high)
        generator = streams.at("push", step)
        t = torch.randint(low, high + 1, (len(x0),), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        abar = teacher.alphas_cumprod[t]
        x_t = add_noise(x0, noise, abar)
        uncond, cond = self._teach(x_t, t, views)
        if g.algorithm == "vsd" and self.estimator is not None:
            predicted = self.estimator(x_t, t, self._plain(len(x0)), *_poses(views, x0))
            kind = self.estimator.prediction_type
        else:
            predicted, kind = noise, "epsilon"
        gradient = vsd_gradient(
            x_t,
            uncond,
            cond,
            predicted,
            abar,
            guidance_scale=g.scale,
            phi_prediction_type=kind,
            weighting=g.weighting,
            clip=g.clip,
        )
        # Equation 9 lets nothing through that is no number; that a network said so must be told all the same.
        sound = all_finite((uncond, cond, predicted))
        norm = float(gradient.flatten(1).norm(dim=1).mean()) if sound else math.nan
        return Push(gradient, (low, high), norm)

    def healthy(self) -> bool:
        """Whether every number of phi is one."""
        return self.estimator is None or all_finite(self.estimator.parameters)

    def _teach(self, x_t: Tensor, t: Tensor, views: Views | None) -> tuple[Tensor, Tensor]:
        """Two predictions whose guided combination is eps_pre."""
        if views is not None and self.guidance.perp_neg and self.wording.sides:
            return self._perp_neg(x_t, t, views)
        if views is None:
            positive, unwanted = [self.wording.plain] * len(x_t), [self.wording.negative] * len(x_t)
        else:
            sides = views.sides
            positive = [self.wording.positive(side) for side in sides]
            unwanted = [self.wording.unwanted(side) for side in sides]
        wanted = self.teacher.text(positive)
        if self.guidance.scale == 1.0:  # what is unconditional would cancel out
            (cond,) = self.teacher.epsilon(x_t, t, [wanted])
            return cond, cond
        uncond, cond = self.teacher.epsilon(x_t, t, [self.teacher.text(unwanted), wanted])
        return uncond, cond

    def _perp_neg(self, x_t: Tensor, t: Tensor, views: Views) -> tuple[Tensor, Tensor]:
        """The combination at guidance one, so that the guided combination of the two is Perp-Neg's."""
        teacher, wording = self.teacher, self.wording
        poles = {4: "overhead", 5: "bottom"}
        names = {"front": 0, "side": 1, "back": 2} | {pole: side for side, pole in poles.items()}
        read = {name: teacher.texts[wording.positive(side)] for name, side in names.items()}
        seen = zip(views.phi, views.sides, strict=True)
        mixes = [perp_neg_mix(float(phi), poles.get(side, "")) for phi, side in seen]
        blended = torch.stack([sum(share * read[name] for name, share in mix.items()) for mix, _ in mixes])
        unwanted = teacher.text([wording.unwanted(side) for side in views.sides])
        away = [
            torch.stack([read[row[index][0]] if index < len(row) else read["front"] for _, row in mixes])
            for index in (0, 1)
        ]
        uncond, positive, *negatives = teacher.epsilon(x_t, t, [unwanted, blended, *away])
        weights = weights_tensor([row for _, row in mixes], 2, x_t)
        return uncond, perp_neg_epsilon(uncond, positive, negatives, weights, 1.0)

    def _plain(self, count: int) -> Tensor:
        return self.teacher.text([self.wording.plain] * count)

    # -- phi -------------------------------------------------------------------------------------------------------

    def learn(self, x0: Tensor, views: Views | None, step: int, streams: Streams) -> float | None:
        """Train phi on latents x0 [B, C, h, w]; the mean denoising loss, None where phi is not trained now.

        Times come from the whole range always, with new noise; text is the plain prompt, without guidance.
        """
        if self.estimator is None or self.optimiser is None or step % self.learning.every:
            return None
        losses = [self._learn_once(x0, views, step, part, streams) for part in range(self.learning.steps)]
        return sum(losses) / len(losses)

    def _learn_once(self, x0: Tensor, views: Views | None, step: int, part: int, streams: Streams) -> float:
        learning = self.learning
        assert self.optimiser is not None
        generator = streams.at("learn", step, part)
        x0 = x0.detach().repeat_interleave(learning.repeats, dim=0)
        count = len(self.teacher.alphas_cumprod)
        t = torch.randint(0, count, (len(x0),), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        drop = (torch.rand(len(x0), generator=generator) < learning.camera_drop).to(x0.device)
        c2w, hidden = _poses(views, x0, learning.repeats)
        done = step // learning.every * learning.steps + part
        warmed = min(1.0, (done + 1) / (learning.warmup + 1))
        self.optimiser.param_groups[0]["lr"] = self.pace * learning.rate * warmed
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.descend(x0, noise, t, self._plain(len(x0)), c2w, drop if hidden is None else hidden)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(loss)

    def descend(
        self,
        x0: Tensor,  # [B, C, h, w]
        noise: Tensor,  # [B, C, h, w]
        t: Tensor,  # int64 [B]
        text: Tensor,  # [B, L, D]
        c2w: Tensor,  # [B, 4, 4]
        hidden: Tensor,  # bool [B]
    ) -> Tensor:  # []
        """The denoising loss of phi; its gradients become those of the parameters.

        A mean over many numbers has derivatives that half precision rounds to nothing. So the sum goes backwards,
        to the next power of two, which changes no bit of what float32 finds.
        """
        estimator, target = self.estimator, self.learning.target
        assert estimator is not None
        abar = self.teacher.alphas_cumprod[t]
        x_t = add_noise(x0, noise, abar)
        predicted = estimator(x_t, t, text, c2w, hidden)
        predicted = convert_prediction(predicted, x_t, abar, estimator.prediction_type, target)
        loss = score_estimator_loss(predicted, x0, noise, abar, target)
        scale = 2.0 ** int(math.log2(predicted.numel()))
        (loss * scale).backward()
        torch._foreach_div_([p.grad for p in estimator.parameters if p.grad is not None], scale)
        return loss.detach()

    @torch.no_grad()
    def imagine(self, views: Views | None, count: int, streams: Streams, steps: int = 25) -> Tensor | None:
        """Latents [B, C, h, w] sampled from phi itself by DDIM: they should look like the renders do now."""
        if self.estimator is None:
            return None
        teacher = self.teacher
        shape = (count, teacher.channels, teacher.cells, teacher.cells)
        x = torch.randn(shape, generator=streams.at("imagine")).to(teacher.device)
        times = torch.linspace(len(teacher.alphas_cumprod) - 1, 0, steps + 1).round().long().tolist()
        for now, following in zip(times[:-1], times[1:], strict=True):
            t = torch.full((count,), now, device=x.device)
            predicted = self.estimator(x, t, self._plain(count), *_poses(views, x))
            abar = teacher.alphas_cumprod[t]
            epsilon = convert_prediction(predicted, x, abar, self.estimator.prediction_type, "epsilon")
            clean = convert_prediction(epsilon, x, abar, "epsilon", "sample")
            x = add_noise(clean, epsilon, teacher.alphas_cumprod[torch.full_like(t, following)])
        return clean

    # -- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """phi and its optimiser."""
        if self.estimator is None or self.optimiser is None:
            return {}
        return {"phi": self.estimator.state(), "optimiser": optimiser_state(self.optimiser)}

    def load(self, state: dict[str, object]) -> None:
        """Put back what `state` gave."""
        if self.estimator is not None and self.optimiser is not None and state:
            self.estimator.load(state["phi"])  # type: ignore[arg-type]
            load_optimiser(self.optimiser, state["optimiser"])  # type: ignore[arg-type]


def _poses(views: Views | None, like: Tensor, repeats: int = 1) -> tuple[Tensor, Tensor | None]:
    """Poses [B, 4, 4] and which of them are hidden: all where there are no views."""
    if views is None:
        none = torch.zeros(len(like), 4, 4, dtype=like.dtype, device=like.device)
        return none, torch.ones(len(like), dtype=torch.bool, device=like.device)
    return views.c2w.to(like).repeat_interleave(repeats, dim=0), None


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number is one, waiting for the device once; true of no tensors."""
    found = [torch.isfinite(tensor).all() for tensor in tensors]
    return not found or bool(torch.stack(found).all())


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, object]:
    """Moments by position, without rates: those follow from the step."""
    return {f"{index:04d}": _copied(moments) for index, moments in optimiser.state_dict()["state"].items()}


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]]) -> None:
    """Put back what `optimiser_state` gave."""
    known = optimiser.state_dict()
    known["state"] = {int(index): _copied(moments) for index, moments in state.items()}
    optimiser.load_state_dict(known)
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():  # a fused optimiser walks through memory: all must lie as the weight does
            if value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)


def _copied(moments: dict[str, Tensor]) -> dict[str, Tensor]:
    """Optimisers work in place: what is kept must not be theirs."""
    return {name: value.detach().clone() for name, value in moments.items()}
