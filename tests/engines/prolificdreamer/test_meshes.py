"""Surfaces out of fields: closed, outward, of the right size, with a texture that says what the field says."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from engines.prolificdreamer.exhibit import obj_files
from engines.prolificdreamer.geometry import shape_from
from engines.prolificdreamer.meshes import (
    Surface,
    baked,
    cleaned,
    coloured,
    decimated,
    extract,
    textured,
    unwrapped,
)
from studio.encoders import encode


def ball(points: Tensor) -> Tensor:
    return 20 * torch.sigmoid(40 * (0.5 - points.norm(dim=1)))


def colour(points: Tensor) -> Tensor:
    return (points + 1) / 2


@pytest.fixture(scope="module")
def sphere() -> Surface:
    return extract(ball, 10.0, 20, 1.0, "cpu")


def as_trimesh(surface: Surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.verts.numpy(), surface.faces.numpy(), process=False)


def test_a_ball_is_closed_outward_and_of_its_size(sphere: Surface):
    mesh = as_trimesh(sphere)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.03)
    assert sphere.note == ""


def test_the_cube_scales_with_its_bound():
    wide = extract(lambda p: ball(p / 2), 10.0, 20, 2.0, "cpu")
    assert as_trimesh(wide).volume == pytest.approx(8 * 4 / 3 * np.pi * 0.125, rel=0.03)


def test_a_threshold_that_finds_nothing_is_lowered_and_said():
    thin = extract(lambda p: ball(p) / 10, 10.0, 16, 1.0, "cpu")
    assert len(thin.faces) > 50
    assert thin.threshold < 2
    assert "Nothing is as dense as 10" in thin.note


@pytest.mark.parametrize("part", [extract, shape_from])
def test_what_lies_on_the_border_is_no_reason_to_keep_a_threshold(part: Callable[..., Any]):
    """There the surface is closed, whatever the field says."""

    def border(points: torch.Tensor) -> torch.Tensor:
        return torch.where((points.abs() > 0.99).any(dim=1), 50.0, ball(points) / 10)

    if part is extract:
        made = extract(border, 10.0, 16, 1.0, "cpu")
        used, faces = made.threshold, made.faces
    else:
        shape, used = shape_from(border, 10.0, 16, 1.0, "cpu")
        faces = shape.surface()[1]
    assert used < 2
    assert len(faces) > 50


def test_an_empty_field_is_said():
    empty = extract(lambda p: torch.zeros(len(p)), 10.0, 8, 1.0, "cpu")
    assert len(empty.faces) == 0
    assert "empty" in empty.note
    assert len(cleaned(empty).faces) == 0


def test_what_reaches_the_border_is_closed_there():
    full = extract(lambda p: torch.full((len(p),), 9.0), 5.0, 8, 1.0, "cpu")
    assert as_trimesh(full).is_watertight


def test_loose_bits_are_dropped(sphere: Surface):
    def with_a_crumb(points: Tensor) -> Tensor:
        crumb = 20 * torch.sigmoid(40 * (0.02 - (points - torch.tensor([0.85, 0.85, 0.85])).norm(dim=1)))
        return torch.maximum(ball(points), crumb)

    rough = extract(with_a_crumb, 10.0, 40, 1.0, "cpu")
    tidy = cleaned(rough)
    assert len(as_trimesh(rough).split(only_watertight=False)) == 2
    assert len(as_trimesh(tidy).split(only_watertight=False)) == 1
    assert as_trimesh(cleaned(sphere)).volume == pytest.approx(as_trimesh(sphere).volume, rel=1e-3)


def test_fewer_faces_are_still_the_ball(sphere: Surface):
    fewer = decimated(sphere, 400)
    assert len(fewer.faces) <= 400 < len(sphere.faces)
    assert as_trimesh(fewer).volume == pytest.approx(as_trimesh(sphere).volume, rel=0.06)
    assert decimated(fewer, 10_000) is fewer


@pytest.fixture(scope="module")
def painted(sphere: Surface) -> trimesh.Trimesh:
    flat = unwrapped(decimated(sphere, 300))
    return textured(flat, baked(flat, colour, 96), "ball")


def test_the_texture_says_what_the_field_says(painted: trimesh.Trimesh):
    """Through the file and back: points on the mesh have the colour of their place."""
    data, _ = encode("mesh", painted, "a.glb", {"engine": "e"}, {})
    loaded = trimesh.load(io.BytesIO(data), file_type="glb", force="mesh")
    material = loaded.visual.material
    assert material.metallicFactor == 0
    assert material.roughnessFactor == 1
    assert material.doubleSided
    picture = np.asarray(material.baseColorTexture.convert("RGB"), float) / 255
    points, faces = trimesh.sample.sample_surface(loaded, 300, seed=0)
    shares = trimesh.triangles.points_to_barycentric(loaded.triangles[faces], points)
    uv = (loaded.visual.uv[loaded.faces[faces]] * shares[:, :, None]).sum(axis=1)
    size = picture.shape[0]
    column, row = (uv[:, 0] * size).astype(int), ((1 - uv[:, 1]) * size).astype(int)
    seen = picture[row.clip(0, size - 1), column.clip(0, size - 1)]
    expected = (points + 1) / 2
    assert np.abs(seen - expected).mean() < 0.03
    assert np.percentile(np.abs(seen - expected).max(axis=1), 95) < 0.12


def test_no_texel_is_left_blank(sphere: Surface):
    flat = unwrapped(decimated(sphere, 100))
    picture = baked(flat, lambda points: torch.full_like(points, 0.6), 48)
    assert (picture == 153).all()


def test_the_obj_has_its_material_and_texture(painted: trimesh.Trimesh):
    data, _ = encode("archive", obj_files(painted, "ball"), "ball-obj.zip", {"engine": "e"}, {})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert {"ball.obj", "ball.mtl"} < set(names)
        assert sum(name.endswith(".png") for name in names) == 1
        text = archive.read("ball.obj").decode()
        assert "mtllib ball.mtl" in text
        assert text.count("\nf ") == 300
        picture = next(name for name in names if name.endswith(".png"))
        assert picture in archive.read("ball.mtl").decode()


def test_points_have_colours(sphere: Surface):
    mesh = coloured(sphere, colour)
    data, _ = encode("data", mesh, "a.ply", {"engine": "e"}, {})
    loaded = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
    expected = (loaded.vertices + 1) / 2 * 255
    assert np.abs(loaded.visual.vertex_colors[:, :3] - expected).max() <= 1
