"""Training a Flux transformer by rectified flow, on any machine with a few cores (Liu et al. 2022; Esser et al.
2024).

The straight path is x_t = (1 - t) x + t e and the target is v = e - x. Both text encoders are trained along with
the transformer. Half way through the transformer a linear reader is asked what lies where in the picture, since a
network that has to know this early learns to draw it much sooner (representation alignment, Yu et al. 2025, with
the world's own truth in place of a pretrained encoder's features); the reader is thrown away afterwards. Data
parallel without a network: every process holds the whole model, gradients meet in shared memory. All randomness of
step s on rank r comes from (seed, s, r), so that a resumed run repeats an undisturbed one exactly. Does not know
where latents and captions come from: a `Batches` object hands them over.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.multiprocessing as mp
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel


class Batches(Protocol):
    """Training data, the same for the same arguments."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised latents [B, C, H, W], token ids [B, T] and layouts [B, K, H/2, W/2] of deviation about 1.

        Captions are already dropped where they should be.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes."""

    seed: int = 7
    steps: int = 6000
    batch: int = 32  # over all ranks
    ranks: int = 2
    muon_rate: float = 0.02  # hidden matrices
    adam_rate: float = 2e-3  # everything else
    warmup: int = 100
    cooldown: int = 1500  # the last steps, over which the rate falls linearly to zero
    bfloat16: bool = False  # autocast; a third faster on CPUs with matrix units, half as fast on others
    ema: float = 0.9985
    time_mean: float = 0.8  # of the logit-normal times; above 0 means more noise, where shapes are decided
    time_std: float = 1.1
    reading: float = 0.3  # weight of the layout's error
    save_seconds: float = 120.0


class FluxStudent(nn.Module):
    """The three networks that learn together, called exactly as `FluxPipeline` calls them, and the reader."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        channels: int,  # of the layouts to be read
    ) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = transformer, clip, t5
        width = transformer.inner_dim
        self.reader = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))

    def forward(
        self,
        latents: Tensor,  # [B, C, H, W], noised
        times: Tensor,  # [B], in [0, 1], 1 is pure noise
        tokens: Tensor,  # int64 [B, T]
    ) -> tuple[Tensor, Tensor]:  # velocity [B, C, H, W], layout [B, K, H/2, W/2] as the reader sees it
        height, width = latents.shape[-2:]
        middle: list[Tensor] = []
        with self._halfway().register_forward_hook(lambda _block, _given, out: middle.append(out[1])):
            velocity = self.transformer(
                hidden_states=pack(latents),
                timestep=times,
                pooled_projections=self.clip(tokens).pooler_output,
                encoder_hidden_states=self.t5(tokens).last_hidden_state,
                img_ids=grid_ids(height // 2, width // 2),
                txt_ids=torch.zeros(tokens.shape[1], 3),
                return_dict=False,
            )[0]
        layout = self.reader(middle[0]).transpose(1, 2).unflatten(2, (height // 2, width // 2))
        return unpack(velocity, height, width), layout

    def _halfway(self) -> nn.Module:
        """The block after whose output about half of all blocks have been passed, the double ones counted in."""
        blocks = self.transformer.single_transformer_blocks
        return blocks[(len(blocks) - 1) // 3]


def pack(latents: Tensor) -> Tensor:  # [B, C, H, W] -> [B, HW/4, 4C]
    """2x2 patches to tokens, in the order of `FluxPipeline._pack_latents`."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:  # [B, HW/4, 4C] -> [B, C, H, W]
    """The inverse of `pack`."""
    b, _, c = tokens.shape
    return tokens.reshape(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def grid_ids(rows: int, columns: int) -> Tensor:  # -> float32 [rows * columns, 3]
    """Positions of image tokens: (0, row, column)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).float()


def flow_loss(
    student: nn.Module,
    latents: Tensor,  # [B, C, H, W], normalised
    tokens: Tensor,  # int64 [B, T]
    layouts: Tensor,  # [B, K, H/2, W/2]
    recipe: Recipe,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of velocity and layout, at stratified logit-normal times."""
    count = len(latents)
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    times = torch.sigmoid(recipe.time_mean + recipe.time_std * torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4)))
    noise = torch.randn(latents.shape, generator=generator)
    t = times[:, None, None, None]
    velocity, seen = student((1 - t) * latents + t * noise, times, tokens)
    return (velocity.float() - (noise - latents)).square().mean(), (seen.float() - layouts).square().mean()


def optimisers(student: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the transformer's hidden matrices, AdamW for embeddings, biases, modulation of the output and text."""
    hidden, rest = [], []
    for name, weight in student.named_parameters():
        inner = name.startswith("transformer.") and "_blocks." in name and weight.ndim == 2
        (hidden if inner else rest).append(weight)
    muon = torch.optim.Muon(hidden, lr=recipe.muon_rate, weight_decay=0.01, momentum=0.95, ns_steps=4)
    return [muon, torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)]


def rate(step: int, recipe: Recipe) -> float:
    """Warm up, stay, fall linearly to zero: the flat part can be prolonged without having known how long."""
    fall = min(1.0, (recipe.steps - step) / recipe.cooldown)
    return min(1.0, (step + 1) / recipe.warmup) * fall


def train(
    student: FluxStudent,
    batches: Batches,
    recipe: Recipe,
    folder: Path,
    resume: bool = False,
    until: int | None = None,  # stop early at this step, as if interrupted just after a checkpoint
) -> None:
    """Run to `recipe.steps`; checkpoints and `log.txt` go to `folder`, the newest state is `state.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    student.share_memory()  # rank 0 starts from these weights, the others copy them
    size = sum(weight.numel() for weight in student.parameters())
    shared = torch.zeros(recipe.ranks, size).share_memory_()
    barrier = mp.get_context("spawn").Barrier(recipe.ranks)
    last = min(until or recipe.steps, recipe.steps)
    arguments = (student, batches, recipe, folder, resume, last, shared, barrier)
    if recipe.ranks == 1:
        _learn(0, *arguments)
    else:
        mp.start_processes(_rank, args=arguments, nprocs=recipe.ranks, start_method="spawn")


def _rank(rank: int, *arguments: Any) -> None:
    """One process among several uses one core."""
    torch.set_num_threads(1)
    _learn(rank, *arguments)


def _learn(
    rank: int,
    source: FluxStudent,
    batches: Batches,
    recipe: Recipe,
    folder: Path,
    resume: bool,
    last: int,
    shared: Tensor,  # [ranks, parameters], where gradients meet
    barrier: Barrier,
) -> None:
    """One rank: its share of every batch, the mean gradient, the same step as everybody."""
    student = _copy(source).train()
    weights = list(student.parameters())
    optimiser, average = optimisers(student, recipe), [weight.detach().clone() for weight in weights]
    base = [group["lr"] for part in optimiser for group in part.param_groups]
    step = _restore(folder, student, average, optimiser) if resume else 0
    begun, saved, trace = time.monotonic(), time.monotonic(), []
    while step < last:
        generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) * 64 + rank)
        latents, tokens, layouts = batches.draw(recipe.batch // recipe.ranks, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            value, misread = flow_loss(student, latents, tokens, layouts, recipe, generator)
        (value + recipe.reading * misread).backward()
        trace.append(torch.stack([value.detach(), misread.detach()]))
        _mean_gradient(weights, shared, rank, barrier)
        for group, start in zip((g for part in optimiser for g in part.param_groups), base, strict=True):
            group["lr"] = start * rate(step, recipe)
        for part in optimiser:
            part.step()
            part.zero_grad(set_to_none=True)
        step += 1
        torch._foreach_lerp_(average, weights, 1 - min(recipe.ema, (1 + step) / (10 + step)))
        due = time.monotonic() - saved > recipe.save_seconds or step == last
        if rank == 0 and due:
            _save(folder, student, average, optimiser, step)
            loss, wrong = torch.stack(trace).mean(0).tolist()
            line = f"step {step} loss {loss:.5f} layout {wrong:.4f} rate {rate(step, recipe):.3f}"
            with (folder / "log.txt").open("a") as log:
                log.write(f"{line} samples {step * recipe.batch} seconds {time.monotonic() - begun:.0f}\n")
            saved, trace = time.monotonic(), []


def _copy(student: FluxStudent) -> FluxStudent:
    """A private copy: parameters that arrive in shared memory must not be trained by two processes."""
    return copy.deepcopy(student)


@torch.no_grad()
def _mean_gradient(weights: list[nn.Parameter], shared: Tensor, rank: int, barrier: Barrier) -> None:
    """Average gradients over ranks through shared memory [ranks, size], then clip their norm to 1."""
    torch.cat([_gradient(weight).flatten() for weight in weights], out=shared[rank])
    barrier.wait()
    flat = shared.mean(0)
    barrier.wait()  # nobody may write the next gradient before everybody has read this one
    flat *= min(1.0, 1.0 / (flat.norm().item() + 1e-6))
    start = 0
    for weight in weights:
        weight.grad = flat[start : start + weight.numel()].view_as(weight)
        start += weight.numel()


def _gradient(weight: nn.Parameter) -> Tensor:
    return weight.grad if weight.grad is not None else torch.zeros_like(weight)


def _save(folder: Path, student: nn.Module, average: list[Tensor], optimiser: list, step: int) -> None:
    """Everything a resumed run needs; written beside and renamed, so that a crash leaves the old one."""
    state = {
        "step": step,
        "weights": student.state_dict(),
        "average": average,
        "optimisers": [part.state_dict() for part in optimiser],
    }
    torch.save(state, folder / "state.tmp")
    (folder / "state.tmp").replace(folder / "state.pt")


def _restore(folder: Path, student: nn.Module, average: list[Tensor], optimiser: list) -> int:
    state = torch.load(folder / "state.pt", weights_only=True)
    student.load_state_dict(state["weights"])
    for mine, stored in zip(average, state["average"], strict=True):
        mine.copy_(stored)
    for part, stored in zip(optimiser, state["optimisers"], strict=True):
        part.load_state_dict(stored)
    return state["step"]


def load_average(folder: Path, student: FluxStudent) -> int:
    """Put the averaged weights of the newest checkpoint into `student`; returns the step."""
    state = torch.load(folder / "state.pt", weights_only=True)
    with torch.no_grad():
        for weight, mean in zip(student.parameters(), state["average"], strict=True):
            weight.copy_(mean)
    return state["step"]
