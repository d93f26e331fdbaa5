"""The training loop: rates, orthogonal steps, several processes, checkpoints that repeat an undisturbed run."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engines.shared.training import Muon, Recipe, load_average, optimisers, rate, train

RECIPE = Recipe(steps=6, batch=8, warmup=2, cooldown=3, ema=0.5, save_seconds=0.0)


def fit_a_line(student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A task: two outputs from four inputs."""
    x = torch.randn(count, 4, generator=generator)
    wanted = torch.stack([x[:, 0] - x[:, 1], x[:, 2]], dim=1)
    return {"error": (student(x) - wanted).square().mean(), "size": 1e-3 * student[0].weight.square().mean()}


def inner(name: str, weight: Tensor) -> bool:
    return name == "0.weight"


def student(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def test_the_rate_warms_up_and_falls_to_zero():
    recipe = Recipe(steps=100, warmup=10, cooldown=40)
    rates = [rate(step, recipe) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[10:60] == [1.0] * 50
    assert rates[80] == 0.5
    assert rates[100] == 0.0


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 4, 3, 3)])
def test_muon_steps_are_nearly_orthogonal(shape: tuple[int, ...]):
    torch.manual_seed(1)
    found = Muon.orthogonal(torch.randn(shape).flatten(1))
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_matrices_of_a_shape_are_made_orthogonal_together(shape: tuple[int, ...]):
    torch.manual_seed(3)
    matrices = torch.randn(3, *shape)
    together = Muon.orthogonal_all(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        torch.testing.assert_close(found, Muon.orthogonal(matrix))


def test_muon_agrees_with_the_library_but_for_its_half_precision():
    torch.manual_seed(2)
    start, gradients = torch.randn(6, 10), torch.randn(3, 6, 10)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    pair = [
        (mine, Muon([mine], 0.02, momentum=0.9, decay=0.1)),
        (theirs, torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1, ns_steps=4)),
    ]
    for gradient in gradients:
        for weight, optimiser in pair:
            weight.grad = gradient.clone()
            optimiser.step()
    torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0)


def test_every_weight_has_one_optimiser():
    parts = optimisers(student(), RECIPE, inner)
    assert [len(part.param_groups[0]["params"]) for part in parts] == [1, 3]
    assert len(optimisers(student(), RECIPE, lambda _name, _weight: False)) == 1


def test_two_processes_learn(tmp_path: Path):
    train(student(), fit_a_line, replace(RECIPE, steps=60, warmup=5, cooldown=20), tmp_path, inner)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    losses = [float(line.split()[3]) for line in lines]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert lines[-1].startswith("step 60 error ")


def test_a_resumed_run_repeats_an_undisturbed_one(tmp_path: Path):
    alone = replace(RECIPE, ranks=1)
    train(student(), fit_a_line, alone, tmp_path / "whole", inner)
    train(student(), fit_a_line, alone, tmp_path / "parts", inner, until=3)
    train(
        student(1), fit_a_line, alone, tmp_path / "parts", inner, resume=True
    )  # the checkpoint decides, not the seed
    results = []
    for name in ("whole", "parts"):
        learned = student()
        assert load_average(tmp_path / name, learned) == RECIPE.steps
        results.append(torch.cat([weight.flatten() for weight in learned.parameters()]))
    assert torch.equal(*results)


def test_a_bar_is_drawn_at_a_terminal_and_nothing_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    watched = io.StringIO()
    monkeypatch.setattr(sys, "stderr", watched)
    train(student(), fit_a_line, replace(RECIPE, ranks=1), tmp_path / "log", inner)
    assert watched.getvalue() == ""
    monkeypatch.setattr(watched, "isatty", lambda: True, raising=False)
    train(student(), fit_a_line, replace(RECIPE, ranks=1), tmp_path / "line", inner)
    assert "6/6" in watched.getvalue()
