"""Renders: the same however rays are divided, gradients that do not depend on it, and a grid that changes little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engines.prolificdreamer.field import Field, FieldConfig
from engines.prolificdreamer.occupancy import OccupancyGrid
from engines.prolificdreamer.renderer import Regularisers, RenderConfig, Renderer, table_variation
from engines.prolificdreamer.viewpoints import CameraRange, draw_views, random_backdrop, turntable
from tests.engines.prolificdreamer import tiny

CONFIG = FieldConfig(levels=2, base=4, finest=8, log2_table=12, features=2)
RENDER = RenderConfig(samples=12, importance=6, chunk=100_000)
VIEWS = turntable(2, radius=2.2, theta_deg=70, fovy=45)
FOG = Regularisers(entropy=3.0, opacity=0.1, sparsity=0.2, opaque=0.3, z_variance=0.5, smoothness=0.1)


def field(**changes: object) -> Field:
    made = Field(replace(CONFIG, **changes), tiny.generator(0))
    with torch.no_grad():
        made.table.normal_(0, 0.3, generator=tiny.generator(1))
    return made


def gradients(chunk: int, *, occupancy: OccupancyGrid | None = None) -> tuple[Tensor, list[Tensor]]:
    particle = field()
    wanted = torch.randn(2, 3, 10, 10, generator=tiny.generator(2))
    image, weighed = Renderer(replace(RENDER, chunk=chunk)).backward(
        particle, VIEWS, 10, lambda image: wanted, FOG, streams=tiny.streams(), occupancy=occupancy
    )
    return (image, weighed), [w.grad for w in particle.parameters() if w.grad is not None]


@pytest.mark.parametrize("chunk", [37, 64, 128])
def test_chunks_change_neither_picture_nor_gradients(chunk: int):
    whole, direct = gradients(10_000)
    parts, deferred = gradients(chunk)
    torch.testing.assert_close(parts, whole)
    assert len(direct) == len(deferred) > 2
    for one, other in zip(deferred, direct, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_the_gradient_is_that_of_the_loss():
    """Against autograd through a single render, without the machinery."""
    particle = field()
    wanted = torch.randn(2, 3, 6, 6, generator=tiny.generator(2))
    plain = Regularisers(entropy=0.0)
    renderer = Renderer(RENDER)
    renderer.backward(particle, VIEWS, 6, lambda image: wanted, plain, streams=tiny.streams())
    render, count = renderer.chunks(particle, VIEWS, 6, streams=tiny.streams())
    image = render(0, count).image.view(2, 6, 6, 3).permute(0, 3, 1, 2)
    (direct,) = torch.autograd.grad((image * wanted).sum(), particle.table)
    torch.testing.assert_close(particle.table.grad, direct, atol=1e-6, rtol=1e-4)


def test_what_the_regularisers_weigh_is_told():
    off, one, both = (
        Renderer(replace(RENDER, chunk=50)).backward(
            field(), VIEWS, 6, torch.zeros_like, weights, streams=tiny.streams()
        )[1]
        for weights in (
            Regularisers(entropy=0.0),
            Regularisers(entropy=2.0),
            Regularisers(entropy=2.0, smoothness=3.0),
        )
    )
    assert off == 0 < one
    torch.testing.assert_close(both - one, 3 * table_variation(field()).detach())


def test_where_nothing_is_nothing_is_evaluated():
    particle = field(blob_scale=40.0, blob_radius=0.3)
    grid = OccupancyGrid(16, 1.0, 0.1)
    assert grid.share() == 1
    for seed in range(3):
        grid.update(particle, tiny.generator(seed))
    assert 0.005 < grid.share() < 0.5
    renderer = Renderer(RENDER)
    with_grid, _, _ = renderer.look(particle, VIEWS, 12, occupancy=grid)
    without, _, _ = renderer.look(particle, VIEWS, 12)
    assert (with_grid - without).abs().max() < 0.08
    assert (with_grid - without).abs().mean() < 0.005
    seen = []
    particle.register_forward_hook(lambda _m, given, _out: seen.append(len(given[0])))
    renderer.look(particle, VIEWS, 12, occupancy=grid)
    assert sum(seen) < 0.6 * 2 * 12 * 12 * 18


def test_the_grid_of_a_settled_field_misses_nothing():
    particle = field(blob_scale=40.0, blob_radius=0.3)
    grid = OccupancyGrid.of(particle, 16, 1.0, 0.1, tiny.generator(0))
    points = 2 * torch.rand(50_000, 3, generator=tiny.generator(1)) - 1
    opaque = 1 - torch.exp(-particle.density(points) * 0.1) > 0.01
    assert opaque.any()
    assert grid.mask(points[opaque]).all()
    assert grid.share() < 0.5


def test_an_empty_grid_still_renders_the_background():
    grid = OccupancyGrid(8, 1.0, 0.1)
    grid.densest.zero_()
    image, opacity, _ = Renderer(RENDER).look(field(background="white"), VIEWS, 6, occupancy=grid)
    assert (image == 1).all()
    assert (opacity == 0).all()


@pytest.mark.parametrize("kind", ["none", "black", "white", "learned", "floor"])
def test_every_background(kind: str):
    particle = field(background=kind, backdrop=(0.2, 0.5, 0.9))
    o, d = VIEWS.rays(8)
    seen = particle.background(o, d)
    assert seen.shape == (128, 3)
    assert ((seen >= 0) & (seen <= 1)).all()
    start = {"black": (0, 0, 0), "white": (1, 1, 1)}.get(kind, (0.2, 0.5, 0.9))
    if kind != "learned":
        torch.testing.assert_close(seen, torch.tensor(start).expand_as(seen).float(), atol=1e-5, rtol=0)
    backdrop = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    image, opacity, _ = Renderer(RENDER).look(particle, VIEWS, 8, backdrop=backdrop)
    empty = opacity[0] < 1e-4
    assert empty.any()
    torch.testing.assert_close(
        image[0].permute(1, 2, 0)[empty], backdrop[0].expand(int(empty.sum()), 3), atol=2e-4, rtol=0
    )


def test_a_shadow_can_be_painted_on_the_floor():
    """A dark place on the ground, seen from two sides, is learned by the floor alone."""
    particle = field(background="floor", backdrop=(0.6, 0.6, 0.6))
    o, d = VIEWS.rays(16)
    t = (-0.8 - o[:, 1]) / d[:, 1]
    spot = (o + t[:, None] * d)[:, [0, 2]]
    dark = (d[:, 1] < 0) & (spot.norm(dim=1) < 0.6)
    truth = torch.where(dark[:, None], torch.tensor(0.3), torch.tensor(0.6)).expand(-1, 3)
    optimiser = torch.optim.Adam(particle.behind.parameters(), lr=0.1)
    for _ in range(60):
        loss = (particle.background(o, d) - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.002


def test_noise_is_added_in_training_only():
    renderer = Renderer(replace(RENDER, density_noise=True))
    particle = field()
    render, count = renderer.chunks(particle, VIEWS, 6, streams=tiny.streams())
    assert torch.equal(render(0, count).image, render(0, count).image)
    quiet, _ = Renderer(replace(RENDER, density_noise=False)).chunks(particle, VIEWS, 6, streams=tiny.streams())
    assert not torch.allclose(render(0, count).image, quiet(0, count).image)
    one, other = (renderer.look(particle, VIEWS, 6)[0] for _ in range(2))
    assert torch.equal(one, other)


def test_a_smooth_table_varies_little():
    rough, smooth = field(), field()
    with torch.no_grad():
        smooth.table.fill_(0.4)
    assert table_variation(smooth) == 0
    assert table_variation(rough) > 0.1


def test_starts():
    centre, border = torch.zeros(1, 3), torch.tensor([[0.95, 0.0, 0.0]])
    ball, room, both = (
        Field(replace(CONFIG, start=start), tiny.generator(0)) for start in ("object", "scene", "centred")
    )
    assert ball.density(centre) > 5 > 0.1 > ball.density(border)
    assert room.density(centre) < 0.1 < 5 < room.density(border)
    assert both.density(centre) > 5
    assert both.density(border) > 5


def test_normals_look_outwards():
    ball = Field(CONFIG, tiny.generator(0))
    points = torch.nn.functional.normalize(torch.randn(20, 3, generator=tiny.generator(1)), dim=1) * 0.5
    agree = (ball.normals(points) * torch.nn.functional.normalize(points, dim=1)).sum(dim=1)
    assert (agree > 0.99).all()


def test_cameras_stand_where_they_are_asked_to():
    within = CameraRange((3.0, 3.4), (42.0, 42.0), (58.0, 88.0), (0.0, 360.0), 0.0, 0.25)
    views = draw_views(within, 400, tiny.generator(0))
    radius, theta = views.c2w[:, :3, 3].norm(dim=1), torch.rad2deg(views.theta)
    assert ((radius >= 3) & (radius <= 3.4)).all()
    steep = theta < 30
    assert 0.18 < steep.float().mean() < 0.32
    assert ((theta[~steep] >= 58) & (theta[~steep] <= 88)).all()
    assert (torch.linalg.det(views.c2w[:, :3, :3]) > 0.999).all()
    round_about = draw_views(replace(within, overhead_share=0.0), 4, tiny.generator(1), spread=True)
    gaps = torch.rad2deg(round_about.phi).sort().values.diff()
    torch.testing.assert_close(gaps, torch.full((3,), 90.0), atol=1e-3, rtol=0)
    assert views.sides.count(4) == int(steep.sum())


def test_random_backdrops_come_in_their_share():
    found = [random_backdrop(step, 10, 0.5, 3, tiny.streams(), "cpu") for step in range(200)]
    assert all(each is None for each in found[:10])
    share = sum(each is not None for each in found[10:]) / 190
    assert 0.35 < share < 0.65
    assert random_backdrop(50, -1, 1.0, 3, tiny.streams(), "cpu") is None
