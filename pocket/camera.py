"""Cameras of the world of toys: right-handed, y up, looking along their own -z at what stands around the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """On an orbit around the origin: polar angle theta from +y, azimuth phi from +z towards +x, in radians."""

    radius: float = 3.1
    theta: float = 1.25
    phi: float = 0.0
    fovy: float = 42.0  # degrees, of a perspective camera
    extent: float | None = None  # half the height that an orthographic camera sees; None: perspective

    @cached_property
    def c2w(self) -> Tensor:  # float64 [4, 4]
        """Camera to world, columns right, up, backward, centre."""
        st, ct, sp, cp = math.sin(self.theta), math.cos(self.theta), math.sin(self.phi), math.cos(self.phi)
        backward = (st * sp, ct, st * cp)
        columns = ((cp, 0.0, -sp), (-ct * sp, st, -ct * cp), backward, tuple(self.radius * x for x in backward))
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3] = torch.tensor(columns, dtype=torch.float64).T
        return pose

    @property
    def view(self) -> str:
        """The word for the side it looks from."""
        if self.theta <= math.radians(30):
            return "overhead"
        away = abs((math.degrees(self.phi) + 180) % 360 - 180)
        return "front" if away < 30 else "back" if away >= 150 else "side"

    def rays(self, side: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:  # [side^2, 3] twice
        """Origins and unit directions through pixel centres, row-major."""
        step = (torch.arange(side, dtype=torch.float64) + 0.5) * (2 / side) - 1
        y, x = torch.meshgrid(-step, step, indexing="ij")
        turn, centre = self.c2w[:3, :3], self.c2w[:3, 3]
        if self.extent is None:
            slope = math.tan(math.radians(self.fovy) / 2)
            local = torch.stack([x * slope, y * slope, -torch.ones_like(x)], dim=-1).flatten(0, 1)
            directions = torch.nn.functional.normalize(local @ turn.T, dim=-1)
            return centre.expand_as(directions).to(dtype), directions.to(dtype)
        flat = torch.stack([x * self.extent, y * self.extent, torch.zeros_like(x)], dim=-1).flatten(0, 1)
        return (flat @ turn.T + centre).to(dtype), (-turn[:, 2]).expand_as(flat).to(dtype)

    def project(self, points: Tensor, side: int) -> Tensor:  # [..., 3] world -> [..., 2] column, row in pixels
        """Where points of the world appear."""
        local = (points - self.c2w[:3, 3].to(points)) @ self.c2w[:3, :3].to(points)
        if self.extent is None:
            local = local / (-local[..., 2:] * math.tan(math.radians(self.fovy) / 2))
        else:
            local = local / self.extent
        return (torch.stack([local[..., 0], -local[..., 1]], dim=-1) + 1) * (side / 2)

    def depth(self, points: Tensor) -> Tensor:  # [..., 3] world -> [...]
        """Distance along the view."""
        return -((points - self.c2w[:3, 3].to(points)) @ self.c2w[:3, 2].to(points))

    def footprint(self, side: int) -> tuple[float, float]:
        """Size of a pixel: fixed part, and part that grows with the distance along a ray."""
        if self.extent is None:
            return 0.0, 2 * math.tan(math.radians(self.fovy) / 2) / side
        return 2 * self.extent / side, 0.0
