"""From where the object is looked at: random cameras for training, fixed ones for what is shown and measured.

A `Views` is a batch of cameras with the side they look from. Randomness comes in as a generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.prolificdreamer.cameras import (
    camera_rays,
    focal_length,
    orbit_c2w,
    orbit_from_uniforms,
    view_direction_index,
)
from engines.prolificdreamer.streams import Streams


@dataclass(frozen=True)
class CameraRange:
    """Where training cameras stand; the defaults are the released ones (ProlificDreamer, appendix C)."""

    radius: tuple[float, float] = (1.0, 1.5)
    fovy: tuple[float, float] = (40.0, 70.0)  # degrees
    theta: tuple[float, float] = (0.0, 120.0)  # degrees from straight above
    phi: tuple[float, float] = (0.0, 360.0)
    sphere_share: float = 0.5  # of the cameras drawn from the upper hemisphere instead
    overhead_share: float = 0.0  # of the cameras that look down from `overhead` instead
    overhead: tuple[float, float] = (8.0, 29.0)  # degrees
    right_handed: bool = True  # the published code mirrors


@dataclass(frozen=True)
class Views:
    """A batch of cameras."""

    c2w: Tensor  # [B, 4, 4]
    fovy: tuple[float, ...]  # degrees
    theta: Tensor  # [B], radians
    phi: Tensor  # [B], radians

    def __len__(self) -> int:
        return len(self.c2w)

    @property
    def sides(self) -> list[int]:
        """Index of `cameras.VIEW_WORDS` of each."""
        return view_direction_index(self.theta, self.phi % (2 * math.pi)).tolist()

    def rays(self, side: int) -> tuple[Tensor, Tensor]:  # [B side^2, 3] twice
        """Origins and directions through all pixels, camera by camera, row-major; directions not normalised."""
        parts = [
            camera_rays(pose[None], focal_length(fovy, side), side / 2, side / 2, side, side)
            for pose, fovy in zip(self.c2w, self.fovy, strict=True)
        ]
        return torch.cat([o[0] for o, _ in parts]), torch.cat([d[0] for _, d in parts])

    def to(self, device: str) -> Views:
        """The same with poses on a device; angles only choose words, so they stay where they are."""
        return Views(self.c2w.to(device), self.fovy, self.theta, self.phi)


def draw_views(within: CameraRange, count: int, generator: torch.Generator, *, spread: bool = False) -> Views:
    """Random cameras. `spread` divides the circle evenly among them and turns them together at random."""
    u = torch.rand(count, 4, generator=generator)
    which = torch.rand(count, 2, generator=generator)
    if spread and count > 1:
        u[:, 2] = (torch.arange(count) + u[0, 2]) / count
    kind = {"radius_range": within.radius, "phi_range": within.phi}
    plain = orbit_from_uniforms(u, uniform_sphere=False, theta_range=within.theta, **kind)
    sphere = orbit_from_uniforms(u, uniform_sphere=True, theta_range=within.theta, **kind)
    above = orbit_from_uniforms(u, uniform_sphere=False, theta_range=within.overhead, **kind)
    on_sphere, overhead = which[:, 0] < within.sphere_share, which[:, 0] >= 1 - within.overhead_share
    radius, theta, phi = (
        torch.where(overhead, c, torch.where(on_sphere, b, a)) for a, b, c in zip(plain, sphere, above, strict=True)
    )
    fovy = within.fovy[0] + (within.fovy[1] - within.fovy[0]) * which[:, 1]
    return Views(orbit_c2w(radius, theta, phi, within.right_handed), tuple(fovy.tolist()), theta, phi)


def turntable(count: int, *, radius: float, theta_deg: float, fovy: float, start_deg: float = 0.0) -> Views:
    """Cameras evenly around the object, the last one step before the first; towards +x from +z."""
    phi = math.radians(start_deg) + torch.arange(count) * (2 * math.pi / count)
    theta = torch.full((count,), math.radians(theta_deg))
    c2w = orbit_c2w(torch.full((count,), radius), theta, phi)
    return Views(c2w, (fovy,) * count, theta, phi)


def random_backdrop(
    step: int, first: int, share: float, count: int, streams: Streams, device: str
) -> Tensor | None:  # [count, 3]
    """A random colour behind every picture in this share of the steps from `first` on (negative: never), else None.

    What is one colour with the background would otherwise be indistinguishable from nothing.
    """
    if first < 0 or step < first:
        return None
    generator = streams.at("backdrop", step)
    if float(torch.rand(1, generator=generator)) >= share:
        return None
    return torch.rand(count, 3, generator=generator).to(device)
