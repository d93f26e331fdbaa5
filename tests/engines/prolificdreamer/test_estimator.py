"""phi: starts as its network, learns alone, and leaves a shared network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engines.prolificdreamer.distillation import Distiller, Guidance, Learning
from engines.prolificdreamer.estimator import copy_estimator, lora_estimator, small_estimator
from engines.prolificdreamer.teacher import Teacher, frozen, read_prompts
from engines.prolificdreamer.viewpoints import turntable
from tests.engines.prolificdreamer import tiny

SCHEDULER = {**tiny.BETAS, "num_train_timesteps": 1000, "prediction_type": "epsilon"}
VIEWS = turntable(2, radius=2.0, theta_deg=70, fovy=40)


@pytest.fixture
def teacher() -> Teacher:
    texts = read_prompts(tiny.text_encoder(), tiny.tokenizer(), tiny.WORDING.all, "cpu")
    return Teacher(tiny.unet(), tiny.vae(), SCHEDULER, texts)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=tiny.generator(seed))


def asked(teacher: Teacher) -> list[Tensor]:
    """What the teacher says, to be compared before and after."""
    text = teacher.text(["a red car, on a plain grey background"] * 2)
    return teacher.epsilon(latents(), torch.tensor([10, 900]), [text])


def called(estimator, teacher: Teacher) -> Tensor:
    text = teacher.text([tiny.WORDING.plain] * 2)
    return estimator(latents(), torch.tensor([10, 900]), text, VIEWS.c2w)


def test_a_copy_starts_as_the_teacher(teacher: Teacher):
    with frozen(teacher.unet, teacher.vae), copy_estimator(teacher.unet, "epsilon", tiny.generator(0)) as phi:
        torch.testing.assert_close(called(phi, teacher), asked(teacher)[0])
        assert all(parameter.requires_grad for parameter in phi.parameters)


def test_adapters_start_as_the_network_with_a_camera(teacher: Teacher):
    with frozen(teacher.unet), lora_estimator(teacher.unet, "epsilon", 4, tiny.generator(0)) as phi:
        with torch.no_grad():
            phi.camera.second.weight.zero_()
            phi.camera.second.bias.zero_()
        torch.testing.assert_close(called(phi, teacher).detach(), asked(teacher)[0])
        assert {parameter.dtype for parameter in phi.parameters} == {torch.float32}


@pytest.mark.parametrize("kind", ["lora", "copy", "small"])
def test_only_phi_learns_and_the_teacher_stays(teacher: Teacher, kind: str):
    before = asked(teacher)[0]
    flags = [parameter.requires_grad for parameter in teacher.unet.parameters()]
    names = [name for name, _ in teacher.unet.named_parameters()]
    with frozen(teacher.unet, teacher.vae):
        made = {
            "lora": lambda: lora_estimator(teacher.unet, "epsilon", 4, tiny.generator(0)),
            "copy": lambda: copy_estimator(teacher.unet, "epsilon", tiny.generator(0)),
            "small": lambda: small_estimator(4, 8, "cpu", tiny.generator(0)),
        }[kind]()
        with made as phi:
            learning = Learning(rate=1e-2, warmup=0)
            distiller = Distiller(teacher, phi, tiny.WORDING, Guidance(), learning)
            start = phi.state()
            fixed = latents(3)
            losses = [distiller.learn(fixed, VIEWS, step, tiny.streams()) for step in range(12)]
            assert all(loss is not None for loss in losses)
            moved = phi.state()
            assert any(not torch.equal(start[name], moved[name]) for name in start)
            torch.testing.assert_close(asked(teacher)[0], before)
            assert all(parameter.grad is None for parameter in phi.parameters)
            distiller.push(fixed, VIEWS, 0, tiny.streams())
            assert all(parameter.grad is None for parameter in phi.parameters)
            assert phi.network is not teacher.unet or teacher.unet.class_embedding is None
    assert all(parameter.grad is None for parameter in (*teacher.unet.parameters(), *teacher.vae.parameters()))
    torch.testing.assert_close(asked(teacher)[0], before)
    assert [name for name, _ in teacher.unet.named_parameters()] == names
    assert [parameter.requires_grad for parameter in teacher.unet.parameters()] == flags


def test_a_failure_takes_adapters_off(teacher: Teacher):
    before = asked(teacher)[0]

    def fail() -> None:
        with lora_estimator(teacher.unet, "epsilon", 2, tiny.generator(0)) as phi:
            called(phi, teacher)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    torch.testing.assert_close(asked(teacher)[0], before)
    assert not [name for name, _ in teacher.unet.named_parameters() if "lora" in name]
    assert teacher.unet.class_embedding is None


def test_phi_learns_a_fixed_render(teacher: Teacher):
    with frozen(teacher.unet), copy_estimator(teacher.unet, "epsilon", tiny.generator(0)) as phi:
        distiller = Distiller(teacher, phi, tiny.WORDING, Guidance(), Learning(rate=2e-3, warmup=0, target="epsilon"))
        fixed = latents(3)
        losses = [distiller.learn(fixed, VIEWS, step, tiny.streams()) for step in range(60)]
        assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_state_comes_back(teacher: Teacher):
    with frozen(teacher.unet), copy_estimator(teacher.unet, "epsilon", tiny.generator(0)) as phi:
        distiller = Distiller(teacher, phi, tiny.WORDING, Guidance(), Learning(rate=1e-3, warmup=0))
        for step in range(2):
            distiller.learn(latents(3), VIEWS, step, tiny.streams())
        kept = distiller.state()
        one = distiller.learn(latents(4), VIEWS, 2, tiny.streams()), phi.state()
        distiller.learn(latents(5), VIEWS, 3, tiny.streams())
        distiller.load(kept)
        again = distiller.learn(latents(4), VIEWS, 2, tiny.streams()), phi.state()
        assert one[0] == again[0]
        assert all(torch.equal(one[1][name], again[1][name]) for name in one[1])


def test_a_dropped_pose_is_no_pose(teacher: Teacher):
    with frozen(teacher.unet), lora_estimator(teacher.unet, "epsilon", 2, tiny.generator(0)) as phi:
        text = teacher.text([tiny.WORDING.plain] * 2)
        t = torch.tensor([10, 900])
        dropped = phi(latents(), t, text, VIEWS.c2w, torch.tensor([True, True]))
        nowhere = phi(latents(), t, text, torch.zeros(2, 4, 4))
        torch.testing.assert_close(dropped, nowhere)
        assert not torch.allclose(dropped, phi(latents(), t, text, VIEWS.c2w))


def test_phi_can_be_looked_at(teacher: Teacher):
    with frozen(teacher.unet), small_estimator(4, 8, "cpu", tiny.generator(0)) as phi:
        distiller = Distiller(teacher, phi, tiny.WORDING, Guidance(), Learning())
        seen = distiller.imagine(VIEWS, 2, tiny.streams(), steps=3)
        assert seen is not None
        assert seen.shape == (2, 4, 8, 8)
        assert torch.isfinite(seen).all()
    assert Distiller(teacher, None, tiny.WORDING, Guidance("sds")).imagine(VIEWS, 2, tiny.streams()) is None


def test_in_half_precision_small_gradients_are_not_lost(teacher: Teacher):
    """At the published size of latents a mean has derivatives of 1e-5, and half precision ends at 6e-8."""
    draw, found = tiny.generator(1), []
    x0, noise = (torch.randn(2, 4, 64, 64, generator=draw) for _ in range(2))
    t, hidden = torch.tensor([300, 900]), torch.zeros(2, dtype=torch.bool)
    for dtype in (torch.float32, torch.float16):
        unet = tiny.unet().to(dtype)
        with frozen(unet), lora_estimator(unet, "epsilon", 4, tiny.generator(0)) as phi:
            distiller = Distiller(teacher, phi, tiny.WORDING, Guidance())
            text = teacher.text([tiny.WORDING.plain] * 2)
            distiller.descend(x0, noise, t, text, VIEWS.c2w, hidden)
            found.append([parameter.grad for parameter in phi.parameters if parameter.grad is not None])
    for whole, half in zip(*found, strict=True):
        assert (half - whole).norm() <= 0.02 * whole.norm()
