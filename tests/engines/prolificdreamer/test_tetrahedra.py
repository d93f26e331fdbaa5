"""Marching tetrahedra: closed, outward surfaces of the right volume, differentiable in what they are made from."""

from __future__ import annotations

import math

import pytest
import torch
import trimesh

from engines.prolificdreamer.tetrahedra import (
    face_normals,
    laplacian_loss,
    marching_tetrahedra,
    normal_consistency,
    tetrahedral_grid,
)


def test_the_grid_fills_the_cube_and_is_turned_over():
    points, tets = tetrahedral_grid(4)
    assert (len(points), len(tets)) == (125, 384)
    a, b, c, d = points[tets].double().unbind(1)
    volume = ((b - a) * torch.linalg.cross(c - a, d - a)).sum(dim=-1) / 6
    torch.testing.assert_close(volume, torch.full((384,), -(0.5**3) / 6, dtype=torch.float64))


def sphere(n: int = 24, radius: float = 0.51) -> tuple[torch.Tensor, torch.Tensor]:
    points, tets = tetrahedral_grid(n)
    return marching_tetrahedra(points, radius - points.norm(dim=-1), tets)


def test_a_sphere_is_closed_outward_and_of_its_volume():
    verts, faces = sphere()
    mesh = trimesh.Trimesh(verts.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.51**3, rel=0.03)
    middle = verts[faces].mean(dim=1)
    assert ((face_normals(verts, faces) * middle).sum(dim=-1) > 0).all()


def test_nothing_crosses_nothing_comes():
    points, tets = tetrahedral_grid(3)
    verts, faces = marching_tetrahedra(points, -torch.ones(64), tets)
    assert (tuple(verts.shape), tuple(faces.shape)) == ((0, 3), (0, 3))


def test_gradients_are_exact():
    points, tets = tetrahedral_grid(2)
    points = points.double()
    sdf = (0.6 - points.norm(dim=-1) + 0.05 * torch.rand(27, generator=torch.Generator().manual_seed(0))).detach()
    surface = lambda p, s: marching_tetrahedra(p, s, tets)[0]  # noqa: E731
    assert torch.autograd.gradcheck(surface, (points.requires_grad_(), sdf.requires_grad_()))


def test_a_rough_surface_costs_more_than_a_smooth_one():
    verts, faces = sphere(10)
    rough = verts + 0.02 * torch.randn(verts.shape, generator=torch.Generator().manual_seed(0))
    assert normal_consistency(rough, faces) > 2 * normal_consistency(verts, faces)
    assert laplacian_loss(rough, faces) > laplacian_loss(verts, faces)


def test_a_flat_open_sheet_is_perfectly_consistent():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert normal_consistency(verts, torch.tensor([[0, 1, 2], [0, 2, 3]])) == pytest.approx(0, abs=1e-6)


def test_what_has_no_neighbours_costs_nothing():
    verts = torch.eye(3, requires_grad=True)
    alone, none = torch.tensor([[0, 1, 2]]), torch.zeros(0, 3, dtype=torch.int64)
    empty = torch.zeros(0, 3, requires_grad=True)
    for loss in (
        normal_consistency(verts, alone),
        normal_consistency(empty, none),
        laplacian_loss(empty, none),
    ):
        assert loss == 0
        loss.backward()
