"""Recorded networks say and learn what plain ones do; the recording, which needs a GPU, is played by a rerun."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import recorded
from benchmarks.prolificdreamer_effect import PROMPTS, pairs_of
from benchmarks.recorded import Recorded, recorded_networks
from engines.prolificdreamer.distillation import Distiller, Guidance, Learning
from engines.prolificdreamer.estimator import copy_estimator
from engines.prolificdreamer.teacher import Teacher, frozen
from engines.prolificdreamer.viewpoints import turntable
from tests.engines.prolificdreamer import tiny


class Rerun:
    """A graph that calls the function again, into the memory of its first call."""

    def __init__(self, known: Recorded, held: list[Tensor]) -> None:
        self.known, self.held, self.grad = known, held, torch.is_grad_enabled()
        self.made = known.function(*held)
        self.gradients = [parameter.grad for parameter in known.parameters]

    @torch.no_grad()
    def replay(self) -> None:
        self.known._forget()
        with torch.set_grad_enabled(self.grad):
            again = self.known.function(*self.held)
        pairs = zip(self.made, again, strict=True) if isinstance(again, list) else [(self.made, again)]
        for old, new in pairs:
            old.copy_(new)
        for old, parameter in zip(self.gradients, self.known.parameters, strict=True):
            if old is not None:
                old.copy_(parameter.grad)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    def captured(self: Recorded, held: list[Tensor]) -> tuple[Rerun, Any]:
        graph = Rerun(self, held)
        return graph, graph.made

    monkeypatch.setattr(Recorded, "_captured", captured)


def steps(count: int) -> list[Tensor]:
    """What some steps of look and learn give, with pictures of two sizes."""
    unet, vae = tiny.unet(), tiny.vae()
    texts = {text: torch.full((4, 16), 0.1 * i) for i, text in enumerate(tiny.WORDING.all)}
    found = []
    with frozen(unet, vae), copy_estimator(unet, "epsilon", tiny.generator(0)) as phi:
        teacher = Teacher(unet, vae, {**tiny.BETAS, "num_train_timesteps": 1000}, texts)
        distiller = Distiller(teacher, phi, tiny.WORDING, Guidance(), Learning(rate=1e-2, warmup=0))
        views = turntable(2, radius=2.0, theta_deg=70, fovy=45)
        for index in range(count):
            side = 8 if index < count // 2 else 16
            image = torch.rand(2, 3, side, side, generator=tiny.generator(index))
            gradient, latents, push = distiller.look(image, views, index, tiny.streams())
            loss = distiller.learn(latents, views, index, tiny.streams())
            found += [gradient, latents, push.gradient, torch.tensor(loss)]
    return found


@pytest.mark.usefixtures("played")
def test_recorded_networks_say_and_learn_the_same():
    plain = steps(6)
    with recorded_networks():
        replayed = steps(6)
    for one, other in zip(plain, replayed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not torch.equal(plain[2], plain[-2])


def test_what_cannot_be_recorded_is_done_plainly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def fails(self: Recorded, held: list[Tensor]) -> Any:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(Recorded, "_captured", fails)
    monkeypatch.setattr(recorded.torch.cuda, "synchronize", lambda: None)
    double = Recorded(lambda x: 2 * x)
    assert double(torch.ones(2)).tolist() == [2, 2]
    assert double(torch.zeros(2)).tolist() == [0, 0]
    assert capsys.readouterr().out.count("operation not permitted") == 1


@pytest.mark.parametrize("in_turn", [False, True])
def test_parts_are_the_whole_and_balanced(in_turn: bool):
    whole = pairs_of(range(4), PROMPTS, in_turn=in_turn)
    assert len(whole) == (4 if in_turn else 32)
    parts = [pairs_of(range(4), PROMPTS, in_turn=in_turn, part=(i, 8)) for i in range(8)]
    assert sorted(pair for part in parts for pair in part) == sorted(whole)
    if not in_turn:
        assert all([seed for seed, _ in part] == [0, 1, 2, 3] for part in parts)
