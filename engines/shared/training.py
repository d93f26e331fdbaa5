"""Training a small model on any machine with a few cores: the loop, its optimisers, its checkpoints.

Data parallel without a network: every process holds the whole model, gradients meet in shared memory. Where there is
a GPU, one process trains on it. All randomness of step s on rank r comes from (seed, s, r) and is drawn on the
processor, so that a resumed run repeats an undisturbed one exactly and every machine sees the same examples. What is
learned comes in as a `Task`; this module knows no model, no data and no loss.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes, beside its task."""

    seed: int = 7
    steps: int = 6000
    batch: int = 32  # over all ranks
    ranks: int = 2
    muon_rate: float = 0.02  # hidden matrices
    adam_rate: float = 2e-3  # everything else
    warmup: int = 100
    cooldown: int = 1500  # the last steps, over which the rate falls linearly to zero
    ema: float = 0.9985
    save_seconds: float = 120.0


class Task(Protocol):
    """What is learned. Handed to other processes, so it should hold paths rather than tensors until it is used."""

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Named losses of `count` examples, weighted, on the student's device; their sum is minimised."""
        ...


Hidden = Callable[[str, Tensor], bool]  # (name, weight) -> whether the weight is a hidden matrix, for Muon


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan et al. 2024), over all dimensions but the first as one.

    As `torch.optim.Muon`, which takes matrices alone and iterates in bfloat16: on a processor without bfloat16
    units that costs twelve times as much as float32 does.
    """

    COEFFICIENTS = (3.4445, -4.7750, 2.0315)

    def __init__(self, weights: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            means = [self.state[weight].setdefault("momentum", torch.zeros_like(weight)) for weight in weights]
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov
            torch._foreach_mul_(weights, 1 - group["lr"] * group["decay"])
            for weight, turned in zip(weights, self._turned([part.flatten(1) for part in ahead]), strict=True):
                scale = max(1.0, turned.shape[0] / turned.shape[1]) ** 0.5
                weight.add_(turned.view_as(weight), alpha=-group["lr"] * scale)

    @classmethod
    def _turned(cls, matrices: list[Tensor]) -> list[Tensor]:  # [m, n], each its own
        """Each made orthogonal: one by one; on a GPU, where calls cost more than products, all of a shape at once."""
        if not matrices[0].is_cuda:
            return [cls.orthogonal(matrix) for matrix in matrices]
        alike: dict[torch.Size, list[int]] = defaultdict(list)
        for index, matrix in enumerate(matrices):
            alike[matrix.shape].append(index)
        found = list(matrices)
        for indices in alike.values():
            together = cls.orthogonal_all(torch.stack([matrices[index] for index in indices]))
            for index, matrix in zip(indices, together.unbind(), strict=True):
                found[index] = matrix
        return found

    @classmethod
    def orthogonal_all(cls, matrices: Tensor, iterations: int = 4) -> Tensor:  # [k, m, n]
        """`orthogonal` of each, in as many calls as one takes."""
        a, b, c = cls.COEFFICIENTS
        x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
        wide = x.mT if x.shape[1] > x.shape[2] else x
        for _ in range(iterations):
            gram = wide @ wide.mT
            wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        return wide.mT if x.shape[1] > x.shape[2] else wide

    @classmethod
    def orthogonal(cls, matrix: Tensor, iterations: int = 4) -> Tensor:  # [m, n]
        """The matrix with all singular values near 1, by Newton-Schulz iteration."""
        a, b, c = cls.COEFFICIENTS
        x = matrix / (matrix.norm() + 1e-7)
        wide = x.T if x.shape[0] > x.shape[1] else x
        for _ in range(iterations):
            gram = wide @ wide.T
            wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        return wide.T if x.shape[0] > x.shape[1] else wide


def optimisers(student: nn.Module, recipe: Recipe, hidden: Hidden) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices and kernels, AdamW for embeddings, biases, norms and outputs."""
    matrices, rest = [], []
    for name, weight in student.named_parameters():
        (matrices if hidden(name, weight) else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, recipe.muon_rate), adam] if matrices else [adam]


def best_device() -> torch.device:
    """Where models are trained, and used while others are trained: on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def beside(student: nn.Module, examples: Iterable[Tensor]) -> list[Tensor]:
    """Examples on the student's device."""
    device = next(student.parameters()).device
    return [tensor.to(device) for tensor in examples]


def rate(step: int, recipe: Recipe) -> float:
    """Warm up, stay, fall linearly to zero: the flat part can be prolonged without having known how long."""
    fall = min(1.0, (recipe.steps - step) / recipe.cooldown)
    return min(1.0, (step + 1) / recipe.warmup) * fall


def train(
    student: nn.Module,
    task: Task,
    recipe: Recipe,
    folder: Path,
    hidden: Hidden,
    resume: bool = False,
    until: int | None = None,  # stop early at this step, as if interrupted just after a checkpoint
) -> None:
    """Run to `recipe.steps`; checkpoints and `log.txt` go to `folder`, the newest state is `state.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    device = best_device()
    if device.type == "cuda":
        recipe = replace(recipe, ranks=1)
    size = sum(weight.numel() for weight in student.parameters())
    shared = torch.zeros(recipe.ranks, size, device=device)
    if recipe.ranks > 1:
        shared.share_memory_()
        student.share_memory()  # rank 0 starts from these weights, the others copy them
    barrier = mp.get_context("spawn").Barrier(recipe.ranks)
    last = min(until or recipe.steps, recipe.steps)
    arguments = (student, task, recipe, folder, hidden, resume, last, shared, barrier)
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
    source: nn.Module,
    task: Task,
    recipe: Recipe,
    folder: Path,
    hidden: Hidden,
    resume: bool,
    last: int,
    shared: Tensor,  # [ranks, parameters], where gradients meet
    barrier: Barrier,
) -> None:
    """One rank: its share of every batch, the mean gradient, the same step as everybody."""
    # a copy: parameters in shared memory must not be trained by two processes
    student = copy.deepcopy(source).to(shared.device).train()
    weights = list(student.parameters())
    optimiser, average = optimisers(student, recipe, hidden), [weight.detach().clone() for weight in weights]
    base = [group["lr"] for part in optimiser for group in part.param_groups]
    first = _restore(folder, student, average, optimiser) if resume else 0
    begun, saved, trace = time.monotonic(), time.monotonic(), []
    # `disable=None`: a bar for who watches at a terminal, nothing in a log
    for step in tqdm(range(first, last), folder.name, last, initial=first, disable=None if rank == 0 else True):
        generator = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) * 64 + rank)
        losses = task(student, recipe.batch // recipe.ranks, generator)
        torch.stack(list(losses.values())).sum().backward()
        trace.append({name: value.detach() for name, value in losses.items()})
        _mean_gradient(weights, shared, rank, barrier)
        for group, start in zip((g for part in optimiser for g in part.param_groups), base, strict=True):
            group["lr"] = start * rate(step, recipe)
        for part in optimiser:
            part.step()
            part.zero_grad(set_to_none=True)
        done = step + 1
        torch._foreach_lerp_(average, weights, 1 - min(recipe.ema, (1 + done) / (10 + done)))
        due = time.monotonic() - saved > recipe.save_seconds or done == last
        if rank == 0 and due:
            _save(folder, student, average, optimiser, done)
            means = {name: torch.stack([entry[name] for entry in trace]).mean().item() for name in trace[0]}
            line = " ".join(f"{name} {value:.5f}" for name, value in means.items())
            spent = time.monotonic() - begun
            with (folder / "log.txt").open("a") as log:
                log.write(f"step {done} {line} rate {rate(done, recipe):.3f} ")
                log.write(f"samples {done * recipe.batch} seconds {spent:.0f}\n")
            saved, trace = time.monotonic(), []


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
    state = torch.load(folder / "state.pt", weights_only=True, map_location=average[0].device)
    student.load_state_dict(state["weights"])
    for mine, stored in zip(average, state["average"], strict=True):
        mine.copy_(stored)
    for part, stored in zip(optimiser, state["optimisers"], strict=True):
        part.load_state_dict(stored)
    return state["step"]


def load_average(folder: Path, student: nn.Module) -> int:
    """Put the averaged weights of the newest checkpoint into `student`; returns the step."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    with torch.no_grad():
        for weight, mean in zip(student.parameters(), state["average"], strict=True):
            weight.copy_(mean)
    return state["step"]
