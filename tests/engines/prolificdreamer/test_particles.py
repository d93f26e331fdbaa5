"""The first stage and the playground with an exact teacher: what moves is the algorithm, no network errs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engines.prolificdreamer.distillation import Distiller, Guidance
from engines.prolificdreamer.field import Field, FieldConfig
from engines.prolificdreamer.metrics import variety
from engines.prolificdreamer.particles import NerfConfig, NerfStage
from engines.prolificdreamer.playground import PlaygroundConfig, PlaygroundStage
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.renderer import RenderConfig, Renderer
from engines.prolificdreamer.schedules import TimeRange
from engines.prolificdreamer.viewpoints import CameraRange, turntable
from tests.engines.prolificdreamer import tiny

WORDING = Wording("a red car")
VOLUME = FieldConfig(levels=2, base=4, finest=8, features=2, log2_table=12, background="none", blob_scale=5.0)
CAMERAS = CameraRange((2.2, 2.2), (45.0, 45.0), (70.0, 70.0), (0.0, 360.0), 0.0)
CONFIG = NerfConfig(
    steps=40,
    views=2,
    side=12,
    side_early=8,
    grow_step=10,
    rate_grid=0.05,
    rate_decoder=0.01,
    entropy=0.0,
    random_backdrop_step=-1,
    volume=VOLUME,
    render=RenderConfig(samples=10, importance=5, density_noise=False),
    cameras=CAMERAS,
)


def teacher_of_a_ball(colour: tuple[float, float, float]) -> tiny.ExactTeacher:
    """Knows one picture: a ball of one colour over grey, the same from every side."""
    ball = Field(replace(VOLUME, blob_scale=30.0, blob_radius=0.5), tiny.generator(0))
    with torch.no_grad():
        ball.table.zero_()
        ball.decoder.weight.zero_()
        ball.decoder.bias.copy_(torch.tensor([0.0, *torch.logit(torch.tensor(colour)).tolist()]))
    view = turntable(1, radius=2.2, theta_deg=70, fovy=45)
    picture, _, _ = Renderer(CONFIG.render).look(ball, view, 12)
    return tiny.ExactTeacher({text: picture for text in WORDING.all if text} | {"": picture})


def stage(config: NerfConfig = CONFIG, algorithm: str = "sds") -> NerfStage:
    teacher = teacher_of_a_ball((0.9, 0.2, 0.2))
    guidance = Guidance(algorithm, scale=1.0, times=TimeRange(anneal_step=-1))
    return NerfStage(config, Distiller(teacher, None, WORDING, guidance), tiny.streams(), "cpu")


def test_a_field_becomes_what_the_teacher_knows():
    made = stage()
    wanted = made.distiller.teacher.pictures[""][0] / 2 + 0.5
    views = turntable(3, radius=2.2, theta_deg=70, fovy=45, start_deg=15)

    def off() -> float:
        image, _, _ = made.renderer.look(made.particles[0], views, 12)
        return float((image - wanted).square().mean().sqrt())

    before = off()
    for index in range(made.steps):
        told = made.step(index)
        assert told["gradient"] > 0
    assert off() < 0.5 * before
    assert made.healthy()


@pytest.mark.parametrize("changes", [{}, {"particles": 2, "replay": 4, "occupancy": 8, "decay_share": 0.5}])
def test_a_state_that_is_put_back_gives_the_same_steps(changes: dict):
    config = replace(CONFIG, **changes)
    one = stage(config)
    for index in range(3):
        one.step(index)
    kept = one.state()
    for index in range(3, 5):
        one.step(index)
    other = stage(config)
    other.load(kept)
    for index in range(3, 5):
        other.step(index)
    for a, b in zip(one.particles, other.particles, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    # What was kept is a copy: the stage that went on did not change it.
    again = stage(config)
    again.load(kept)
    assert torch.equal(again.particles[0].table, kept["particles"][0]["table"])


def test_sizes_and_rates_follow_the_step():
    made = stage(replace(CONFIG, decay_share=0.25))
    assert [made.config.side_at(step) for step in (0, 9, 10, 39)] == [8, 8, 12, 12]
    rates = []
    for index in (0, 29, 35, 39):
        made._pace(made.optimisers[0], index)
        rates.append(made.optimisers[0].param_groups[0]["lr"])
    assert rates[0] == rates[1] == 0.05
    assert rates[1] > rates[2] > rates[3] > 0.005
    made.pace = 0.5
    made._pace(made.optimisers[0], 0)
    assert made.optimisers[0].param_groups[0]["lr"] == 0.025


def test_numbers_that_are_none_are_noticed():
    made = stage()
    with torch.no_grad():
        made.particles[0].table[0, 0] = torch.nan
    assert not made.healthy()


def test_two_particles_stay_separate():
    made = stage(replace(CONFIG, particles=2))
    moved = {int(made.step(index)["particle"]) for index in range(8)}
    assert moved == {0, 1}
    assert not torch.equal(made.particles[0].table, made.particles[1].table)


class Following(tiny.ExactEstimator):
    """phi that always knows the particles of a playground exactly."""

    def __init__(self, playground: PlaygroundStage) -> None:
        super().__init__(playground.latents)
        self.playground = playground

    def __call__(self, x_t, t, text, c2w, drop=None):
        self.particles = self.playground.latents.detach()
        return super().__call__(x_t, t, text, c2w, drop)


def play(algorithm: str) -> torch.Tensor:
    """Eight particles, three true pictures that differ in their level."""
    levels = torch.tensor([0.2, 0.5, 0.8])[:, None, None, None].expand(3, 3, 4, 4)
    teacher = tiny.ExactTeacher({text: levels for text in WORDING.all if text} | {"": levels})
    guidance = Guidance(algorithm, scale=1.0, times=TimeRange(anneal_step=-1))
    config = PlaygroundConfig(steps=300, particles=8, rate=0.05)
    distiller = Distiller(teacher, None, WORDING, guidance)
    made = PlaygroundStage(config, distiller, tiny.streams(), "cpu")
    if algorithm == "vsd":
        distiller.estimator = Following(made)
        distiller.optimiser = None
    for index in range(made.steps):
        made.step(index)
    return made.pictures()


def test_vsd_keeps_variety_where_sds_collapses():
    sds, vsd = (variety(play(algorithm).numpy()) for algorithm in ("sds", "vsd"))
    assert sds[0] < 0.5 * vsd[0]
