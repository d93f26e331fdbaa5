"""A push: its identities with an exact teacher, what is said to whom, and Perp-Neg."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engines.prolificdreamer.distillation import Distiller, Guidance
from engines.prolificdreamer.prompts import Wording, perp_neg_epsilon, perp_neg_mix, perpendicular
from engines.prolificdreamer.schedules import TimeRange
from engines.prolificdreamer.viewpoints import turntable
from tests.engines.prolificdreamer import tiny

WORDING = Wording("a red car")
VIEWS = turntable(4, radius=2.0, theta_deg=70, fovy=40)


def pictures(seed: int = 0) -> dict[str, Tensor]:
    draw = tiny.generator(seed)
    return {text: torch.rand(3, 3, 8, 8, generator=draw) for text in WORDING.all if text}


def test_the_largest_time_is_the_last_of_the_schedule():
    teacher, x0 = tiny.ExactTeacher(pictures()), torch.zeros(64, 3, 8, 8)
    times = TimeRange(t_max=1.0, t_max_late=1.0, anneal_step=10)
    push = Distiller(teacher, None, WORDING, Guidance("sds", times=times)).push(x0, None, 0, tiny.streams())
    assert push.times == (20, 999)


def test_a_teacher_without_numbers_is_told(monkeypatch: pytest.MonkeyPatch):
    distiller = Distiller(tiny.ExactTeacher(pictures()), None, WORDING, Guidance("sds"))
    nothing = torch.full((1, 3, 8, 8), math.nan)
    monkeypatch.setattr(distiller, "_teach", lambda *_given: (nothing, nothing))
    push = distiller.push(torch.zeros(1, 3, 8, 8), None, 0, tiny.streams())
    assert math.isnan(push.norm)
    assert distiller.healthy()


def test_at_the_truth_there_is_no_push():
    """One particle on the only picture there is: teacher and phi agree, and the noise agrees with both."""
    only = torch.rand(1, 3, 8, 8, generator=tiny.generator(1))
    teacher = tiny.ExactTeacher({text: only for text in WORDING.all if text} | {"": only})
    x0 = (2 * only - 1).expand(4, -1, -1, -1)
    for algorithm, phi in (("vsd", tiny.ExactEstimator(2 * only - 1)), ("sds", None)):
        guidance = Guidance(algorithm, scale=1.0)
        push = Distiller(teacher, phi, WORDING, guidance).push(x0, VIEWS, 0, tiny.streams())
        assert push.gradient.abs().max() < 1e-3


def test_vsd_of_one_particle_is_sds():
    teacher = tiny.ExactTeacher(pictures())
    x0 = torch.randn(1, 3, 8, 8, generator=tiny.generator(2))
    view = turntable(1, radius=2.0, theta_deg=70, fovy=40)
    pushes = [
        Distiller(teacher, phi, WORDING, Guidance(algorithm)).push(x0, view, 5, tiny.streams()).gradient
        for algorithm, phi in (("vsd", tiny.ExactEstimator(x0)), ("sds", None))
    ]
    torch.testing.assert_close(*pushes, atol=1e-4, rtol=1e-3)


def test_times_come_from_the_range_of_the_step():
    teacher = tiny.ExactTeacher(pictures())
    guidance = Guidance("sds", times=TimeRange(anneal_step=10))
    distiller = Distiller(teacher, None, WORDING, guidance)
    x0 = torch.randn(2, 3, 8, 8)
    assert distiller.push(x0, None, 9, tiny.streams()).times == (20, 980)
    assert distiller.push(x0, None, 10, tiny.streams()).times == (20, 500)


def test_at_guidance_one_the_teacher_is_asked_once_and_says_the_same():
    x0 = torch.randn(4, 3, 8, 8, generator=tiny.generator(5))
    asked: list[int] = []

    class Counting(tiny.ExactTeacher):
        def epsilon(self, x_t: Tensor, t: Tensor, texts: Sequence[Tensor]) -> list[Tensor]:
            asked.append(len(texts))
            return super().epsilon(x_t, t, texts)

    teacher = Counting(pictures())
    plain, nearly = (
        Distiller(teacher, None, WORDING, Guidance("sds", scale=scale)).push(x0, VIEWS, 0, tiny.streams()).gradient
        for scale in (1.0, 1.0 + 1e-9)
    )
    assert asked == [1, 2]
    torch.testing.assert_close(plain, nearly, atol=1e-5, rtol=1e-5)


def test_a_look_is_the_gradient_of_the_picture():
    teacher = tiny.ExactTeacher(pictures())
    distiller = Distiller(teacher, None, WORDING, Guidance("sds"))
    image = torch.rand(4, 3, 8, 8, generator=tiny.generator(3))
    gradient, latents, push = distiller.look(image, VIEWS, 0, tiny.streams())
    torch.testing.assert_close(latents, 2 * image - 1)
    torch.testing.assert_close(gradient, 2 * push.gradient / 4)


def test_the_side_is_told_to_the_teacher_only():
    wording = Wording("a red car", negative="blurry", scene=", on a plain grey background", suppress_face=True)
    assert wording.positive(0) == "a red car, front view, on a plain grey background"
    assert wording.plain == "a red car, on a plain grey background"
    assert wording.unwanted(0) == "blurry"
    assert wording.unwanted(2) == "blurry, face"
    assert replace(wording, sides=False).positive(2) == wording.plain
    assert len(wording.all) == len(set(wording.all))
    assert {wording.positive(side) for side in VIEWS.sides} <= set(wording.all)


@pytest.mark.parametrize(
    ("phi", "names"), [(0.0, {"front", "side"}), (2.0, {"side", "back"}), (-2.0, {"side", "back"})]
)
def test_perp_neg_blends_what_is_near(phi: float, names: set[str]):
    shares, negatives = perp_neg_mix(phi)
    assert set(shares) == names
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares.values())
    assert len(negatives) == 2


def test_perp_neg_at_the_front_and_above():
    shares, negatives = perp_neg_mix(0.0)
    assert shares["front"] == 1
    weights = dict(negatives)
    assert weights["front"] == pytest.approx(-(4 * math.exp(-0.5) - 2.426))
    assert weights["side"] == pytest.approx(-(4 - 2.426))
    for pole in ("overhead", "bottom"):
        assert perp_neg_mix(1.0, pole) == ({pole: 1.0}, [])


def test_what_is_perpendicular_is():
    a, b = (torch.randn(3, 4, 5, 5, generator=tiny.generator(seed), dtype=torch.float64) for seed in (0, 1))
    rest = perpendicular(a, b)
    assert (rest * b).sum(dim=(1, 2, 3)).abs().max() < 1e-9
    torch.testing.assert_close(perpendicular(b, b), torch.zeros_like(b), atol=1e-12, rtol=0)
    found = perp_neg_epsilon(a, b, [b, a], torch.ones(3, 2, dtype=torch.float64), 7.0)
    torch.testing.assert_close(found, a + 7.0 * (b - a))  # both negatives have no perpendicular part


@pytest.mark.parametrize("theta", [10, 170])
def test_perp_neg_without_negatives_is_plain_guidance(theta: float):
    """Seen from above or from below nothing is pushed away, so the push is that of the text of that side."""
    teacher = tiny.ExactTeacher(pictures())
    above = turntable(2, radius=2.0, theta_deg=theta, fovy=40)
    x0 = torch.randn(2, 3, 8, 8, generator=tiny.generator(4))
    pushes = [
        Distiller(teacher, None, WORDING, Guidance("sds", perp_neg=flag)).push(x0, above, 0, tiny.streams()).gradient
        for flag in (True, False)
    ]
    torch.testing.assert_close(*pushes, atol=1e-4, rtol=1e-4)
