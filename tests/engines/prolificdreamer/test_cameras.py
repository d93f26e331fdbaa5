"""Cameras: right-handed, looking at the origin, with rays that pass where points are projected."""

from __future__ import annotations

import math

import torch

from engines.prolificdreamer.cameras import (
    BACK,
    BOTTOM,
    FRONT,
    OVERHEAD,
    camera_rays,
    focal_length,
    orbit_c2w,
    orbit_from_uniforms,
    ray_box_bounds,
    view_direction_index,
)


def orbit(count: int = 64, **kwargs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    u = torch.rand(count, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return orbit_from_uniforms(u, **{"uniform_sphere": False, **kwargs})


def test_poses_are_rotations_and_the_mirrored_ones_are_not():
    for straight in (True, False):
        pose = orbit_c2w(*orbit(), right_handed=straight)[:, :3, :3]
        torch.testing.assert_close(pose @ pose.transpose(1, 2), torch.eye(3, dtype=pose.dtype).expand_as(pose))
        torch.testing.assert_close(pose.det(), torch.full((64,), 1.0 if straight else -1.0, dtype=pose.dtype))


def test_the_middle_ray_goes_through_the_origin():
    pose = orbit_c2w(*orbit(uniform_sphere=True))
    origins, directions = camera_rays(pose, 10.0, 2.5, 2.5, 5, 5, normalize=True)
    at, towards = origins[:, 12], directions[:, 12]
    torch.testing.assert_close(at + towards * at.norm(dim=1, keepdim=True), torch.zeros_like(at), atol=1e-9, rtol=0)


def test_a_projected_point_agrees_with_its_pixels_ray():
    height, width, focal = 40, 60, focal_length(50, 40)
    pose = orbit_c2w(*orbit(8))
    origins, directions = camera_rays(pose, focal, width / 2, height / 2, height, width)
    for index, pixel in ((0, 0), (3, 777), (7, height * width - 1)):
        point = torch.cat([origins[index, pixel] + 1.7 * directions[index, pixel], torch.ones(1).double()])
        x, y, z, _ = torch.linalg.inv(pose[index]) @ point
        column, row = width / 2 - focal * x / z, height / 2 + focal * y / z
        assert math.isclose(column, pixel % width + 0.5, abs_tol=1e-6)
        assert math.isclose(row, pixel // width + 0.5, abs_tol=1e-6)
        assert math.isclose(-z, 1.7, abs_tol=1e-9), "distances along these rays are depths"


def test_straight_above_is_guarded():
    zero = torch.zeros(1, dtype=torch.float64)
    pose = orbit_c2w(zero + 2, zero, zero + 0.3)
    near = orbit_c2w(zero + 2, zero + 1e-9, zero + 0.3)
    torch.testing.assert_close(pose, near)


def test_words_for_the_sides():
    theta = torch.tensor([1.5, 1.5, 1.5, 0.1, 3.1])
    phi = torch.tensor([0.0, 6.2, 3.1, 1.0, 1.0])
    assert view_direction_index(theta, phi).tolist() == [FRONT, FRONT, BACK, OVERHEAD, BOTTOM]


def test_rays_that_miss_have_no_length():
    o = torch.tensor([[0.0, 0, 3], [0, 0, 3], [0, 0, 0.5]])
    d = torch.tensor([[0.0, 0, -1], [0, 1, 0], [0, 0, -1]])
    near, far = ray_box_bounds(o, d, 1.0)
    torch.testing.assert_close(near[:, 0], torch.tensor([2.0, 1e9, 0.05]))
    torch.testing.assert_close(far[:, 0], torch.tensor([4.0, 1e9, 1.5]))
