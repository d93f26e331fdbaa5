"""Volume rendering: weights that add up, gradients that agree, and a field that learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.prolificdreamer.cameras import camera_rays, focal_length, orbit_c2w
from engines.prolificdreamer.hashgrid import hash_grid_encode, hash_grid_layout
from engines.prolificdreamer.volume import (
    Rendering,
    activated_density,
    alpha_entropy,
    composite,
    deferred_backward,
    density_blob,
    render_rays,
    sample_pdf,
    sample_weights,
    z_variance_loss,
)

SETTINGS = {"bound": 1.0, "min_near": 0.1, "num_steps": 24, "upsample_steps": 12, "bg": torch.ones(3)}


def test_weights_and_the_light_that_is_left_add_up_to_one():
    generator = torch.Generator().manual_seed(0)
    sigma = 5 * torch.rand(20, 16, generator=generator, dtype=torch.float64)
    sigma[0, 0] = 1e6
    z = torch.rand(20, 16, generator=generator, dtype=torch.float64).cumsum(dim=1)
    weights = sample_weights(sigma, z, torch.full((20, 1), 0.3, dtype=torch.float64))
    delta = torch.cat([z.diff(dim=1), torch.full((20, 1), 0.3, dtype=torch.float64)], dim=1)
    left = torch.exp(-(sigma * delta).sum(dim=1))
    torch.testing.assert_close(weights.sum(dim=1) + left, torch.ones(20, dtype=torch.float64))
    assert (weights >= 0).all()
    assert weights[0, 0] == 1


def test_gradients_of_compositing_and_of_sampling_are_exact():
    generator = torch.Generator().manual_seed(0)
    sigma, rgb = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (3, 6, 3)))
    z = torch.rand(3, 6, generator=generator, dtype=torch.float64).cumsum(dim=1)
    last, bg = torch.full((3, 1), 0.2, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    given = tuple(x.requires_grad_() for x in (sigma, z, last, rgb, bg))
    assert torch.autograd.gradcheck(composite, given)
    bins, weights = z.detach().requires_grad_(), torch.rand(3, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda b, w: sample_pdf(b, w, 4), (bins, weights.requires_grad_()))


def ball(points: Tensor) -> tuple[Tensor, Tensor]:
    inside = torch.sigmoid(60 * (0.5 - points.norm(dim=-1)))
    return 40 * inside, 0.5 + 0.4 * points


def rays(side: int, theta: float = 1.2, phi: float = 0.4) -> tuple[Tensor, Tensor]:
    pose = orbit_c2w(torch.tensor([1.8]), torch.tensor([theta]), torch.tensor([phi]))
    origins, directions = camera_rays(pose, focal_length(50, side), side / 2, side / 2, side, side)
    return origins[0], directions[0]


def test_the_field_is_evaluated_once_a_sample():
    seen = []

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(points))
        return ball(points)

    found = render_rays(field, *rays(8), **SETTINGS)
    assert sum(seen) == 64 * 36
    assert (found.z.diff(dim=1) >= 0).all()
    assert found.opacity.view(8, 8)[4, 4] > 0.99
    assert found.opacity.view(8, 8)[0, 0] < 0.01
    assert abs(found.depth.view(8, 8)[4, 4] - 1.3) < 0.05


class TinyField(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets, self.growth = hash_grid_layout(4, 8, 32, 12)
        torch.manual_seed(0)
        self.table = nn.Parameter(1e-4 * (2 * torch.rand(int(self.offsets[-1]), 2) - 1))
        self.head = nn.Linear(8, 4)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.head(hash_grid_encode((points + 1) / 2, self.table, self.offsets, self.growth, 8))
        return activated_density(raw[:, 0], density_blob(points, 5.0, 0.5)), torch.sigmoid(raw[:, 1:])


@pytest.mark.parametrize("chunk", [50, 1000])
def test_deferred_gradients_are_the_direct_ones(chunk: int):
    field, (o, d) = TinyField(), rays(12)
    jitter = torch.rand(len(o), 24, generator=torch.Generator().manual_seed(1))
    target = torch.rand(len(o), 3, generator=torch.Generator().manual_seed(2))

    def render(start: int, end: int) -> Rendering:
        part = slice(start, end)
        return render_rays(field, o[part], d[part], jitter=jitter[part], **SETTINGS)

    def fog(seen: Rendering) -> Tensor:
        return 3 * alpha_entropy(seen.weights) * len(seen.weights) / len(o)

    whole = render(0, len(o))
    loss = (whole.image - target).square().sum() + 3 * alpha_entropy(whole.weights)
    direct = torch.autograd.grad(loss, list(field.parameters()))
    image, opacity = deferred_backward(render, len(o), chunk, lambda image, _: 2 * (image - target), fog)
    assert not image.requires_grad
    torch.testing.assert_close(opacity, whole.opacity.detach())
    for weight, grad in zip(field.parameters(), direct, strict=True):
        torch.testing.assert_close(weight.grad, grad, atol=1e-5, rtol=1e-4)


def test_a_field_learns_a_coloured_ball():
    field = TinyField()
    optimiser = torch.optim.Adam(field.parameters(), lr=2e-2, betas=(0.9, 0.99))
    losses = []
    for step in range(40):
        o, d = rays(12, theta=0.6 + 0.03 * step, phi=0.9 * step)
        with torch.no_grad():
            wanted = render_rays(ball, o, d, **SETTINGS).image
        loss = F.mse_loss(render_rays(field, o, d, **SETTINGS).image, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])


def test_the_variance_of_depth_is_nothing_where_nothing_is_seen():
    weights = torch.full((4, 8), 0.01, requires_grad=True)
    loss = z_variance_loss(weights, torch.rand(4, 8), weights.sum(dim=1))
    assert loss == 0
    loss.backward()
