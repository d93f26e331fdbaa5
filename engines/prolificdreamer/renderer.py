"""Renders of a field that a gradient can be sent back through, in memory that does not depend on their size.

Every ray draws the same random offsets whenever and with whatever others it is rendered, so that a chunk that is
rendered a second time sees the same samples. Knows fields, cameras and regularisers; knows no diffusion model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.prolificdreamer.field import Field
from engines.prolificdreamer.occupancy import OccupancyGrid
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.viewpoints import Views
from engines.prolificdreamer.volume import (
    Rendering,
    alpha_entropy,
    deferred_backward,
    opacity_l2,
    opaque_loss,
    ray_bounds,
    render_rays,
    sparsity_loss,
    z_variance_loss,
)

Shader = Callable[[Tensor], tuple[Tensor, Tensor]]  # points [M, 3] -> density [M], albedo [M, 3]
BLOCK = 1024  # rays that draw their random numbers together


@dataclass(frozen=True)
class RenderConfig:
    """How rays are sampled; the defaults are the released ones."""

    samples: int = 64
    importance: int = 32
    min_near: float = 0.1
    chunk: int = 4096  # rays whose graph is held at a time
    density_noise: bool = True  # N(0, 1) before the activation, in training only


@dataclass(frozen=True)
class Regularisers:
    """Weights of what keeps a field plausible, at one step. All losses are means, see `volume`."""

    entropy: float = 10.0
    opacity: float = 0.0
    sparsity: float = 0.0
    opaque: float = 0.0
    z_variance: float = 0.0
    smoothness: float = 0.0  # total variation of the dense levels of the table

    def of_chunk(self, seen: Rendering, rays: int, seen_rays: int) -> Tensor:
        """The share of a chunk in the losses of `rays` rays, `seen_rays` of which see something."""
        share = len(seen.opacity) / rays
        means = (
            (self.entropy, lambda: alpha_entropy(seen.weights)),
            (self.opacity, lambda: opacity_l2(seen.opacity)),
            (self.sparsity, lambda: sparsity_loss(seen.opacity)),
            (self.opaque, lambda: opaque_loss(seen.opacity)),
        )
        loss = seen.opacity.new_zeros(())
        for weight, value in means:
            if weight:
                loss = loss + weight * share * value()
        if self.z_variance and seen_rays:
            here = int((seen.opacity > 0.5).sum())
            loss = loss + self.z_variance * (here / seen_rays) * z_variance_loss(seen.weights, seen.z, seen.opacity)
        return loss


class RayDraws:
    """Random numbers of some of the rays [start, end), the same however rays are divided into chunks."""

    def __init__(self, streams: Streams, start: int, end: int, which: Tensor) -> None:
        """`which` are indices within [start, end)."""
        self._streams, self._start, self._end, self._which = streams, start, end, which
        self.count = len(which)

    def uniform(self, name: str, width: int) -> Tensor:  # [count, width] in [0, 1)
        """Of one purpose."""
        return self._blocks(torch.rand, name, width)

    def normal(self, name: str, width: int) -> Tensor:  # [count, width]
        """Of one purpose."""
        return self._blocks(torch.randn, name, width)

    def _blocks(self, draw: Callable[..., Tensor], name: str, width: int) -> Tensor:
        first, last = self._start // BLOCK, (self._end - 1) // BLOCK
        whole = [draw(BLOCK, width, generator=self._streams.at(name, block)) for block in range(first, last + 1)]
        offset = self._start - first * BLOCK
        return torch.cat(whole).to(self._which.device)[offset + self._which]


@dataclass
class Renderer:
    """Looks at a field from views."""

    config: RenderConfig = field(default_factory=RenderConfig)

    def chunks(
        self,
        particle: Field,
        views: Views,
        side: int,
        *,
        occupancy: OccupancyGrid | None = None,
        streams: Streams | None = None,  # None: no jitter, no noise
        backdrop: Tensor | None = None,  # [B, 3] instead of the field's own background
    ) -> tuple[Callable[[int, int], Rendering], int]:
        """A function that renders rays [start, end), and their number."""
        o, d = views.rays(side)
        c, box = self.config, None if occupancy is None else occupancy.box()

        def render(start: int, end: int) -> Rendering:
            rays_o, rays_d = o[start:end], d[start:end]
            behind = particle.background(rays_o, rays_d)
            if backdrop is not None:
                behind = backdrop.repeat_interleave(side * side, dim=0)[start:end]
            near, far = ray_bounds(rays_o, rays_d, particle.config.bound, c.min_near, box)
            hit = (near < far)[:, 0].nonzero()[:, 0]
            draws = None if streams is None else RayDraws(streams, start, end, hit)
            seen = render_rays(
                self._shader(particle, occupancy, draws),
                rays_o[hit],
                rays_d[hit],
                bound=particle.config.bound,
                min_near=c.min_near,
                num_steps=c.samples,
                upsample_steps=c.importance,
                bg=behind[hit],
                jitter=None if draws is None else draws.uniform("jitter", c.samples),
                u=None if draws is None else draws.uniform("u", c.importance),
                box=box,
            )
            return _whole(seen, hit, behind)

        return render, len(o)

    def _shader(self, particle: Field, occupancy: OccupancyGrid | None, draws: RayDraws | None) -> Shader:
        """The field with its training noise, evaluated only where something can be."""
        turn = itertools.count()  # uniform samples first, importance samples after them

        def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
            noise = None
            if draws is not None and self.config.density_noise:
                noise = draws.normal(f"noise {next(turn)}", len(points) // max(1, draws.count)).flatten()
            if occupancy is None:
                return particle(points, noise)
            index = occupancy.mask(points).nonzero()[:, 0]
            sigma, rgb = particle(points[index], None if noise is None else noise[index])
            empty = points.new_zeros(len(points))
            return empty.index_copy(0, index, sigma), torch.zeros_like(points).index_copy(0, index, rgb)

        return evaluate

    @torch.no_grad()
    def look(
        self,
        particle: Field,
        views: Views,
        side: int,
        *,
        occupancy: OccupancyGrid | None = None,
        backdrop: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # image [B, 3, S, S] in [0, 1], opacity and depth [B, S, S]
        """Without randomness and without a graph."""
        render, count = self.chunks(particle, views, side, occupancy=occupancy, backdrop=backdrop)
        parts = [render(start, min(start + self.config.chunk, count)) for start in range(0, count, self.config.chunk)]
        image = torch.cat([part.image for part in parts]).view(len(views), side, side, 3).permute(0, 3, 1, 2)
        flat = (torch.cat([getattr(part, name) for part in parts]) for name in ("opacity", "depth"))
        opacity, depth = (values.view(len(views), side, side) for values in flat)
        return image.clamp(0, 1), opacity, depth

    def backward(
        self,
        particle: Field,
        views: Views,
        side: int,
        image_gradient: Callable[[Tensor], Tensor],  # [B, 3, S, S] -> its gradient
        regularisers: Regularisers,
        **how: object,
    ) -> tuple[Tensor, Tensor]:  # the image [B, 3, S, S], and what the regularisers weigh together, []
        """Render, ask what should change in the picture, and add the gradients of the field to its parameters."""
        render, count = self.chunks(particle, views, side, **how)  # type: ignore[arg-type]
        shape = (len(views), side, side, 3)
        seen_rays, weighed = 0, torch.zeros((), device=views.c2w.device)

        def regulariser(seen: Rendering) -> Tensor:
            nonlocal weighed
            share = regularisers.of_chunk(seen, count, seen_rays)
            weighed = weighed + share.detach()
            return share

        def gradient(flat: Tensor, opacity: Tensor) -> Tensor:
            nonlocal seen_rays
            if regularisers.z_variance:  # else nobody asks, and a device need not be waited for
                seen_rays = int((opacity > 0.5).sum())
            wanted = image_gradient(flat.view(shape).permute(0, 3, 1, 2))
            return wanted.permute(0, 2, 3, 1).reshape(-1, 3)

        image, _ = deferred_backward(render, count, self.config.chunk, gradient, regulariser)
        if regularisers.smoothness:
            variation = regularisers.smoothness * table_variation(particle)
            variation.backward()
            weighed = weighed + variation.detach()
        return image.view(shape).permute(0, 3, 1, 2), weighed


def _whole(seen: Rendering, hit: Tensor, behind: Tensor) -> Rendering:
    """What the rays `hit` see, among all rays of a chunk: the others see the background [R, 3]."""
    if len(hit) == len(behind):
        return seen

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(len(behind), *values.shape[1:]).index_copy(0, hit, values)

    return Rendering(
        behind.index_copy(0, hit, seen.image),
        spread(seen.depth),
        spread(seen.opacity),
        spread(seen.weights),
        spread(seen.z),
    )


def table_variation(particle: Field) -> Tensor:  # []
    """Mean absolute difference of neighbouring entries, over the levels of the hash grid that are dense."""
    total = particle.table.new_zeros(())
    for volume in particle.dense_volumes():
        for axis in (1, 2, 3):
            total = total + volume.diff(dim=axis).abs().mean()
    return total


def resized(image: Tensor, side: int) -> Tensor:  # [B, 3, S, S] -> [B, 3, side, side]
    """Bilinear, as the published code feeds the autoencoder."""
    return image if image.shape[-1] == side else F.interpolate(image, (side, side), mode="bilinear")
