"""The world of toys: the same for the same seed, and true to its own geometry in every layer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import trimesh

from engines.prolificdreamer.cameras import camera_rays, focal_length, orbit_c2w, view_direction_index
from pocket.camera import Camera
from pocket.toys import DARK, FLOOR, KINDS, REACH, distance
from pocket.wording import ToySpec, parse, write
from pocket.world import Scene, flow, mesh, render, sample_scene
from pocket.world import distance as scene_distance

SEEDS = range(20)


def test_the_same_seed_gives_the_same_picture():
    one, again = (render([sample_scene(seed) for seed in SEEDS]) for _ in range(2))
    assert torch.equal(one.rgb, again.rgb)
    alone = render([sample_scene(7)])
    torch.testing.assert_close(alone.rgb[0], one.rgb[7], atol=1e-3, rtol=0)


def test_threads_and_precision_hardly_matter():
    scenes, threads = [sample_scene(seed) for seed in range(6)], torch.get_num_threads()
    plain = render(scenes).rgb
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        other = render(scenes).rgb
    finally:
        torch.set_num_threads(threads)
    precise = render(scenes, dtype=torch.float64).rgb.float()
    for found in (other, precise):
        assert ((found - plain).abs().amax(dim=1) < 1e-3).double().mean() > 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stands_on_the_floor_within_its_reach(kind: str):
    axis = torch.linspace(-1.3, 1.3, 66)
    points = torch.cartesian_prod(axis, axis, axis).T
    inside = points[:, distance(kind, tuple(points)) < 0]
    assert inside.norm(dim=0).max() < REACH
    assert FLOOR - 0.06 < inside[1].min() < FLOOR + 0.1
    assert inside[1].max() > 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_seen_from_every_side(kind: str):
    cameras = [Camera(phi=phi, theta=theta) for phi in (0.0, 1.6, 3.1, 4.7) for theta in (0.3, 1.3)]
    view = render([Scene(kind, "red", camera=camera) for camera in cameras])
    covered = view.alpha.mean(dim=(1, 2))
    assert (covered > 0.04).all()
    assert (covered < 0.6).all()
    assert not view.rgb.isnan().any()
    assert ((view.alpha > 0) & (view.alpha < 1)).any(), "outlines are smooth"


def test_a_spec_is_fulfilled_and_the_truth_can_be_said():
    for seed in range(200):
        scene = sample_scene(seed)
        assert parse(write(scene.truth)) == scene.truth
    for view in ("front", "side", "back", "overhead"):
        spec = ToySpec("duck", "teal", "glossy", 2, view, ground="snow", sky="blue")
        assert all(sample_scene(seed, spec).truth == spec for seed in range(30))
    said = ToySpec("mug", view="side")
    truths = [sample_scene(seed, said).truth for seed in range(30)]
    assert {truth.view for truth in truths} == {"side"}
    assert len({truth.colour for truth in truths}) > 4


def test_normals_are_the_slope_of_the_distance():
    scene = Scene("duck", "yellow", yaw=0.8, shift=(0.2, -0.1), camera=Camera(phi=0.5))
    view = render([scene], dtype=torch.float64)
    on = view.paint[0] >= 0
    normal = view.normal[0][:, on]
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(int(on.sum()), dtype=torch.float64))
    point = surface(scene, view)[on]
    step = 1e-5
    slope = torch.stack(
        [
            scene_distance(scene, point + step * axis) - scene_distance(scene, point - step * axis)
            for axis in torch.eye(3, dtype=torch.float64)
        ]
    ) / (2 * step)
    agree = (slope * normal).sum(dim=0) / slope.norm(dim=0)
    assert agree.quantile(0.03) > 0.99


def surface(scene: Scene, view) -> torch.Tensor:  # [S, S, 3], world
    local = (view.canonical[0].permute(1, 2, 0) - 0.5) * 2
    c, s = math.cos(scene.yaw), math.sin(scene.yaw)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=local.dtype)
    return local @ turn.T + torch.tensor([scene.shift[0], 0, scene.shift[1]], dtype=local.dtype)


def first_hits(o: torch.Tensor, d: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:  # [R], infinite: none
    """Where rays first meet any of the triangles [F, 3, 3] (Moeller and Trumbore 1997)."""
    a, b, c = triangles.unbind(1)
    one, two = b - a, c - a
    nearest = []
    for origin, direction in zip(o, d, strict=True):
        side = torch.linalg.cross(direction.expand_as(two), two)
        scale = 1 / (one * side).sum(-1)
        away = origin - a
        u = (away * side).sum(-1) * scale
        turned = torch.linalg.cross(away, one)
        v, t = turned @ direction * scale, (two * turned).sum(-1) * scale
        inside = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        nearest.append(torch.where(inside, t, torch.inf).amin())
    return torch.stack(nearest)


@pytest.mark.parametrize("camera", [Camera(phi=0.6), Camera(phi=2.0, theta=0.9, extent=1.1)])
def test_depth_and_canonical_coordinates_agree_with_the_mesh(camera: Camera):
    scene = Scene("mushroom", "red", camera=camera, yaw=0.3)
    view = render([scene], side=20, dtype=torch.float64)
    verts, faces = mesh(scene, 40)
    assert trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False).is_watertight
    origins, directions = camera.rays(20, torch.float64)
    t = first_hits(origins, directions, verts.double()[faces])
    depth = torch.where(t.isfinite(), camera.depth(origins + t.nan_to_num(posinf=0)[:, None] * directions), 0.0)
    both = (depth > 0) & (view.depth[0].flatten() > 0)
    assert both.sum() > 0.9 * (depth > 0).sum()
    assert ((depth - view.depth[0].flatten())[both].abs() < 0.03).double().mean() > 0.97
    assert (camera.depth(surface(scene, view)).flatten() - view.depth[0].flatten())[both].abs().max() < 1e-6


def test_flow_leads_to_where_things_are():
    before = Scene("car", "blue", camera=Camera(phi=0.4))
    after = replace(before, yaw=0.15, shift=(0.1, 0.05), camera=Camera(phi=0.5))
    moved, known = flow(before, after)
    target = render([after], dtype=torch.float64)
    here = render([before], dtype=torch.float64)
    row, column = known.nonzero().T
    to = moved[row, column] + torch.stack([column, row], dim=-1) + 0.5
    near = to.floor().long().clamp(0, 63)
    found = target.canonical[0][:, near[:, 1], near[:, 0]]
    wanted = here.canonical[0][:, row, column]
    visible = target.paint[0][near[:, 1], near[:, 0]] >= 0
    close = ((found - wanted).norm(dim=0) < 0.06)[visible]
    assert close.double().mean() > 0.8
    assert moved[known].norm(dim=-1).max() > 1


def test_two_toys_are_two():
    view = render([Scene("lamp", "red", number=2, camera=Camera(phi=0.0))])
    columns = (view.alpha[0] > 0.5).any(dim=0).int()
    assert (columns.diff() == 1).sum() == 2


def test_paints_tell_the_parts():
    view = render([Scene("car", "pink", camera=Camera(phi=1.2))])
    assert {0, DARK} <= set(view.paint.unique().tolist())
    assert view.paint.min() == -1


def test_cameras_are_those_of_text_to_3d():
    camera = Camera(radius=1.7, theta=1.1, phi=2.3, fovy=50)
    one = [torch.tensor([value], dtype=torch.float64) for value in (1.7, 1.1, 2.3)]
    torch.testing.assert_close(camera.c2w, orbit_c2w(*one)[0])
    origins, directions = camera_rays(camera.c2w[None], focal_length(50, 8), 4, 4, 8, 8, normalize=True)
    mine = camera.rays(8, torch.float64)
    torch.testing.assert_close(mine[0], origins[0])
    torch.testing.assert_close(mine[1], directions[0])
    words = ("front", "side", "back", "side", "overhead")
    for theta, phi in ((1.2, 0.1), (1.2, 1.0), (1.2, 3.0), (1.2, 5.0), (0.4, 1.0)):
        index = view_direction_index(torch.tensor([theta]), torch.tensor([phi]))
        assert Camera(theta=theta, phi=phi).view == words[int(index)]


def test_a_point_appears_where_its_ray_leaves():
    for camera in (Camera(phi=1.0), Camera(phi=1.0, extent=1.2)):
        o, d = camera.rays(16, torch.float64)
        pixel = camera.project(o + 2.5 * d, 16)
        index = torch.arange(256)
        expected = torch.stack([index % 16 + 0.5, index // 16 + 0.5], dim=-1).double()
        torch.testing.assert_close(pixel, expected)
