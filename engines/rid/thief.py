"""The thief: a diffusion model personalised on a few pictures of one person, by the three usual ways.

DreamBooth's full fine-tuning (Ruiz et al. 2023), low-rank adapters with a word of their own, and textual inversion
(Gal et al. 2023), as RID's evaluation uses them (arXiv 2412.09844, "Experiments"). What is trained is a copy; the
model that was handed in stays as it was. Knows no defender and no measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from peft import LoraConfig
from torch import Tensor, nn

from engines.rid.surrogate import Diffusion

TOKEN = "<new1>"
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]
CLIP = 1.0  # norm of a gradient
DECAY = 1e-2  # of AdamW
STEPS, BATCH = 20, 8  # of the sampler; pictures drawn at a time
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Way:
    """How a thief learns."""

    kind: str  # "full", "lora" or "inversion"
    rate: float
    batch: int
    steps: int
    rank: int = 0  # of the adapters
    train_text: bool = False  # the text encoder too, with full fine-tuning
    prior_weight: float = 0.0  # of pictures of the class that the model made itself


@dataclass(frozen=True)
class Stolen:
    """A personalised model and how to ask it for its subject."""

    model: Diffusion
    prompt: str


def personalise(
    model: Diffusion,
    pictures: Tensor,  # [N, 3, S, S] in [-1, 1]
    way: Way,
    *,
    subject: str,  # prompt of the subject, {token} for the placeholder
    person: str,  # prompt of its class; its last word starts the placeholder
    generator: torch.Generator,
    prior: Tensor | None = None,  # [M, C, h, w], latents of the class; drawn by the model where the way asks for them
    on_step: OnStep = lambda done: None,
) -> Stolen:
    """Learn the person on the pictures; `on_step` hears of every step and may raise.

    While pictures of the class are drawn it hears 0. A model that has been personalised before goes on from what it
    has learned.
    """
    student = model.own_copy()
    device = student.alphas_cumprod.device
    row = _placeholder(student, person)
    prompt = subject.format(token=TOKEN)
    weights, groups = _trained(student, way, row)
    optimiser = torch.optim.AdamW(groups, lr=way.rate, weight_decay=DECAY, fused=True)  # a tenth of a step less
    if way.prior_weight and prior is None:
        prior = class_latents(model, 2 * len(pictures), person, generator, lambda drawn: on_step(0))
    student.unet.train()
    with torch.no_grad():
        posterior = student.posterior(pictures.to(device))
    try:
        for done in range(way.steps):
            noise = _randn((way.batch, *posterior.mean.shape[1:]), generator, device)
            chosen = torch.randint(len(pictures), (way.batch,), generator=generator).to(device)
            latents = student.sampled(posterior, generator)[chosen]
            loss = _denoising(student, latents, noise, student.embed([prompt]), generator)
            if way.prior_weight and prior is not None:
                some = prior[torch.randint(len(prior), (way.batch,), generator=generator).to(device)]
                again = _randn(some.shape, generator, device)
                loss = loss + way.prior_weight * _denoising(student, some, again, student.embed([person]), generator)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            on_step(done + 1)
    finally:
        student.requires_grad_(False).eval()
    return Stolen(student, prompt)


def _trained(student: Diffusion, way: Way, row: int) -> tuple[list[nn.Parameter], list[dict[str, Any]]]:
    """What is trained, and in which groups; of the embedding the placeholder's row alone."""
    embedding = student.text.get_input_embeddings().weight
    embedding.requires_grad_(True)
    only = torch.zeros(len(embedding), 1, device=embedding.device)
    only[row] = 1
    embedding.register_hook(lambda gradient: gradient * only)
    groups: list[dict[str, Any]] = [{"params": [embedding], "weight_decay": 0.0}]
    if way.kind == "full":
        student.unet.requires_grad_(True)
        groups.append({"params": list(student.unet.parameters())})
        if way.train_text:
            rest = [w for w in student.text.parameters() if w is not embedding]
            groups.append({"params": [w.requires_grad_(True) for w in rest]})
    elif way.kind == "lora":
        student.unet.add_adapter(
            LoraConfig(r=way.rank, lora_alpha=way.rank, init_lora_weights="gaussian", target_modules=ADAPTED)
        )
        groups.append({"params": [w for w in student.unet.parameters() if w.requires_grad]})
    elif way.kind != "inversion":
        raise ValueError(f"no way of stealing is called {way.kind!r}")
    return [weight for group in groups for weight in group["params"]], groups


def _placeholder(student: Diffusion, person: str) -> int:
    """The placeholder's row of the embedding, which starts as that of the class where it is new."""
    tokenizer, embedding = student.tokenizer, student.text.get_input_embeddings()
    known = not tokenizer.add_tokens(TOKEN)
    row = int(tokenizer.convert_tokens_to_ids(TOKEN))
    if row >= embedding.num_embeddings:
        embedding = student.text.resize_token_embeddings(row + 1)
    if known:
        return row
    class_row = tokenizer(person.split()[-1], add_special_tokens=False).input_ids[-1]
    with torch.no_grad():
        embedding.weight[row] = embedding.weight[class_row]
    return row


def class_latents(
    model: Diffusion, count: int, person: str, generator: torch.Generator, on_step: OnStep = lambda done: None
) -> Tensor:  # [count, C, h, w]
    """Latents of what the model itself draws for a class: the prior that DreamBooth preserves (Ruiz et al. 2023)."""
    drawn = generate(Stolen(model, person), count, generator=generator, guidance=3.0, on_step=on_step)
    with torch.no_grad():
        return model.encode(drawn)


def _denoising(
    student: Diffusion, latents: Tensor, noise: Tensor, words: Tensor, generator: torch.Generator
) -> Tensor:
    timesteps = torch.randint(student.steps, (len(latents),), generator=generator).to(latents.device)
    return student.denoising_error(latents, noise, timesteps, words.expand(len(latents), -1, -1))


@torch.no_grad()
def generate(
    stolen: Stolen,
    count: int,
    *,
    generator: torch.Generator,
    steps: int = STEPS,
    guidance: float = 5.0,
    batch: int = BATCH,
    prompt: str | None = None,
    on_step: OnStep = lambda done: None,
) -> Tensor:  # [count, 3, S, S] in [-1, 1]
    """Pictures of the subject by DPM-Solver++ with classifier-free guidance.

    `on_step` hears of every step of every batch, `passes` in all, and may raise.
    """
    model, pictures = stolen.model, []
    device, side = model.alphas_cumprod.device, model.unet.config.sample_size
    words = model.embed([prompt or stolen.prompt, ""])
    noise = _randn((count, model.unet.config.in_channels, side, side), generator, device)
    for start in range(0, count, batch):
        latents = noise[start : start + batch]
        # `predict` says noise, whatever the network says
        scheduler = DPMSolverMultistepScheduler.from_config(model.scheduler.config, prediction_type="epsilon")
        scheduler.set_timesteps(steps, device=device)
        done = start // batch * len(scheduler.timesteps)
        both = words.repeat_interleave(len(latents), dim=0)
        for index, timestep in enumerate(scheduler.timesteps):
            times = timestep.expand(2 * len(latents)).long()
            asked, empty = model.predict(latents.repeat(2, 1, 1, 1), times, both).chunk(2)
            latents = scheduler.step(empty + guidance * (asked - empty), timestep, latents).prev_sample
            on_step(done + index + 1)
        pictures.append(model.decode(latents))
    return torch.cat(pictures)


def passes(count: int, steps: int = STEPS, batch: int = BATCH) -> int:
    """How often `generate` calls the network for `count` pictures."""
    return -(-count // batch) * steps


def _randn(shape: Any, generator: torch.Generator, device: Any) -> Tensor:
    """Noise drawn on the CPU, so that a seed means the same everywhere."""
    return torch.randn(tuple(shape), generator=generator).to(device)
