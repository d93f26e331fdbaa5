"""Cameras on orbits: poses, rays, where rays enter the volume, and from which side they look.

World y up, front +z, polar angle theta from +y, azimuth phi from +z towards +x, both in radians. A pose is camera to
world [4, 4] with columns right, up, backward, centre; the camera looks along its -z. Our poses are right-handed, as
glTF is; the mirrored basis of the reference implementation is there for comparison only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MISSED = 1e9  # near and far of a ray that misses the volume
FRONT, SIDE, BACK, OTHER_SIDE, OVERHEAD, BOTTOM = range(6)
VIEW_WORDS = ("front", "side", "back", "side", "overhead", "bottom")


def orbit_from_uniforms(
    u: Tensor,  # [B, 4] in [0, 1)
    *,
    uniform_sphere: bool,
    radius_range: tuple[float, float] = (1.0, 1.5),
    theta_range: tuple[float, float] = (0.0, 120.0),  # degrees
    phi_range: tuple[float, float] = (0.0, 360.0),  # degrees
) -> tuple[Tensor, Tensor, Tensor]:  # radius, theta, phi, [B] each
    """Where a camera stands, from four uniform numbers.

    On the sphere: a normalised point of the box above the ground, only roughly uniform, as published. Else linearly
    within the ranges; phi is not wrapped then.
    """
    radius = u[:, 0] * (radius_range[1] - radius_range[0]) + radius_range[0]
    if uniform_sphere:
        point = torch.stack([2 * u[:, 1] - 1, u[:, 2], 2 * u[:, 3] - 1], dim=1)
        x, y, z = torch.nn.functional.normalize(point, dim=1).unbind(1)
        return radius, torch.acos(y.clamp(-1, 1)), torch.atan2(x, z) % (2 * math.pi)
    theta, phi = (
        torch.deg2rad(u[:, column] * (high - low) + low) for column, (low, high) in ((1, theta_range), (2, phi_range))
    )
    return radius, theta, phi


def orbit_c2w(radius: Tensor, theta: Tensor, phi: Tensor, right_handed: bool = True) -> Tensor:  # [B] -> [B, 4, 4]
    """The pose that looks at the origin. From straight above, the limit of coming there along its azimuth."""
    backward = torch.stack([theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=1)
    side = torch.where(theta.sin() < 0, -1.0, 1.0).to(phi.dtype)  # beyond the poles the camera is upside down
    mirrored = torch.stack([-side * phi.cos(), torch.zeros_like(phi), side * phi.sin()], dim=1)
    up = torch.linalg.cross(mirrored, backward)
    pose = torch.eye(4, dtype=radius.dtype, device=radius.device).repeat(len(radius), 1, 1)
    right = -mirrored if right_handed else mirrored
    pose[:, :3] = torch.stack([right, up, backward, radius[:, None] * backward], dim=2)
    return pose


def view_direction_index(
    theta: Tensor, phi: Tensor, overhead_deg: float = 30, front_deg: float = 60
) -> Tensor:  # int64 [B]
    """0 front, 1 side, 2 back, 3 the other side, 4 overhead, 5 from below: which word the prompt gets."""
    half, above = math.radians(front_deg) / 2, math.radians(overhead_deg)
    view = torch.full_like(phi, OTHER_SIDE, dtype=torch.int64)
    view[(phi < half) | (phi >= 2 * math.pi - half)] = FRONT
    view[(phi >= half) & (phi < math.pi - half)] = SIDE
    view[(phi >= math.pi - half) & (phi < math.pi + half)] = BACK
    view[theta <= above] = OVERHEAD
    view[theta >= math.pi - above] = BOTTOM
    return view


def focal_length(fovy_deg: float, height: int) -> float:
    """Pixels, from the vertical field of view."""
    return height / (2 * math.tan(math.radians(fovy_deg) / 2))


def camera_rays(
    c2w: Tensor,  # [B, 4, 4]
    focal: float,  # pixels
    cx: float,
    cy: float,
    H: int,  # noqa: N803, the field's names
    W: int,  # noqa: N803
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:  # origins, directions, [B, H W, 3] each, row-major
    """Through pixel centres. Without `normalize` a distance along a ray is a depth along the view."""
    kind = {"dtype": c2w.dtype, "device": c2w.device}
    row, column = torch.meshgrid(torch.arange(H, **kind) + 0.5, torch.arange(W, **kind) + 0.5, indexing="ij")
    local = torch.stack([(column - cx) / focal, -(row - cy) / focal, -torch.ones_like(row)], dim=-1).flatten(0, 1)
    directions = local @ c2w[:, :3, :3].transpose(1, 2)
    if normalize:
        directions = torch.nn.functional.normalize(directions, dim=-1)
    return c2w[:, None, :3, 3].expand_as(directions), directions


def ray_box_bounds(
    o: Tensor,  # [..., 3]
    d: Tensor,  # [..., 3]
    bound: float,
    kind: str = "cube",
    min_near: float = 0.05,
) -> tuple[Tensor, Tensor]:  # near, far, [..., 1] each
    """Where rays enter and leave the cube [-bound, bound]^3; near is at least `min_near`, a miss is 1e9 for both.

    For kind "sphere" the distance of the origin minus and plus the bound, as published, with nothing clamped.
    """
    if kind == "sphere":
        distance = o.norm(dim=-1, keepdim=True)
        return distance - bound, distance + bound
    low, high = (-bound - o) / (d + 1e-15), (bound - o) / (d + 1e-15)
    near = torch.minimum(low, high).amax(dim=-1, keepdim=True)
    far = torch.maximum(low, high).amin(dim=-1, keepdim=True)
    missed = far < near
    near, far = near.masked_fill(missed, MISSED), far.masked_fill(missed, MISSED)
    return near.clamp(min=min_near), far
