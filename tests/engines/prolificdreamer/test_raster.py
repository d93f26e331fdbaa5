"""What a camera sees of a mesh: the right place, the right gradient, and the same from either library."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from engines.prolificdreamer.meshes import extract
from engines.prolificdreamer.raster import Nvdiffrast, RayCaster, clip_space, meet, rasteriser, vertex_normals
from engines.prolificdreamer.viewpoints import turntable
from studio.errors import InvalidInput

VIEWS = turntable(3, radius=2.5, theta_deg=65, fovy=40, start_deg=20)


@pytest.fixture(scope="module")
def ball() -> tuple[Tensor, Tensor]:
    surface = extract(lambda p: 20 * torch.sigmoid(40 * (0.5 - p.norm(dim=1))), 10.0, 14, 1.0, "cpu")
    return surface.verts, surface.faces


def test_every_pixel_sees_its_place(ball: tuple[Tensor, Tensor]):
    verts, faces = ball
    seen = RayCaster().fragments(verts, faces, VIEWS, 24)
    assert 0.1 < seen.seen.float().mean() < 0.5
    places = seen.interpolate(verts, faces)
    o, d = (part.view(3, 24, 24, 3) for part in VIEWS.rays(24))
    expected = o + seen.depth[..., None] * d
    torch.testing.assert_close(places[seen.seen], expected[seen.seen], atol=1e-4, rtol=0)
    centre = seen.depth[:, 12, 12]
    assert ((centre - 2.0).abs() < 0.03).all()
    assert (places[~seen.seen] == 0).all()
    torch.testing.assert_close(seen.bary[seen.seen].sum(dim=1), torch.ones(int(seen.seen.sum())), atol=1e-5, rtol=0)


def test_normals_look_at_the_camera(ball: tuple[Tensor, Tensor]):
    verts, faces = ball
    seen = RayCaster().fragments(verts, faces, VIEWS, 16)
    normal = seen.interpolate(vertex_normals(verts, faces), faces)
    towards = VIEWS.c2w[:, None, None, :3, 2].expand_as(normal)
    assert ((normal * towards).sum(dim=-1)[seen.seen] > -0.05).all()


def test_the_meeting_point_follows_the_vertices():
    verts = torch.tensor([[0.0, 0, 0], [1, 0, 0.2], [0, 1, -0.1]], dtype=torch.float64, requires_grad=True)
    faces = torch.tensor([[0, 1, 2]])
    o = torch.tensor([[0.2, 0.3, 2.0], [0.4, 0.1, 2.0], [5.0, 5.0, 2.0]], dtype=torch.float64)
    d = torch.tensor([[0.0, 0.05, -1.0]], dtype=torch.float64).expand(3, 3)
    face = torch.tensor([0, 0, -1])
    assert torch.autograd.gradcheck(lambda v: meet(v, faces, face, o, d), verts)
    shares, t = meet(verts, faces, face, o, d)
    torch.testing.assert_close((verts[faces[0]] * shares[0, :, None]).sum(dim=0), o[0] + t[0] * d[0])
    assert (shares[2] == 0).all()


def test_a_mesh_that_moves_is_prepared_anew(ball: tuple[Tensor, Tensor]):
    verts, faces = ball[0].clone(), ball[1]
    caster = RayCaster()
    before = caster.fragments(verts, faces, VIEWS, 16)
    scene = caster._scene
    assert torch.equal(caster.fragments(verts, faces, VIEWS, 16).face, before.face)
    assert caster._scene is scene
    with torch.no_grad():
        verts += torch.tensor([0.4, 0.0, 0.0])
    moved = caster.fragments(verts, faces, VIEWS, 16)
    assert caster._scene is not scene
    assert not torch.equal(moved.seen, before.seen)


def test_an_empty_mesh_is_seen_nowhere():
    seen = RayCaster().fragments(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), VIEWS, 8)
    assert not seen.seen.any()


def fake_nvdiffrast() -> ModuleType:
    """nvdiffrast's own conventions, worked out one pixel at a time: clip space, rows from below, face + 1."""

    def rasterize(context: object, clip: Tensor, tri: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, None]:
        height, width = resolution
        found = torch.zeros(len(clip), height, width, 4)
        ys, xs = torch.meshgrid(
            (torch.arange(height) + 0.5) / height * 2 - 1, (torch.arange(width) + 0.5) / width * 2 - 1, indexing="ij"
        )
        for b, corners in enumerate(clip):
            best = torch.full((height, width), torch.inf)
            for f, face in enumerate(tri.long()):
                p = corners[face]
                matrix = p[:, [0, 1, 3]].T
                if matrix.det().abs() < 1e-9:
                    continue
                # x = sum b_i p_i up to scale, in homogeneous coordinates: perspective-correct shares.
                ray = torch.stack([xs, ys, torch.ones_like(xs)], dim=-1)
                raw = ray @ matrix.inverse().T
                shares = raw / raw.sum(dim=-1, keepdim=True)
                w = shares @ p[:, 3]
                z = (shares @ p[:, 2]) / w
                inside = (raw > 0).all(dim=-1) & (z < best)
                best = torch.where(inside, z, best)
                values = torch.stack([shares[..., 0], shares[..., 1], z, torch.full_like(z, f + 1.0)], dim=-1)
                found[b] = torch.where(inside[..., None], values, found[b])
        return found, None

    library = ModuleType("nvdiffrast.torch")
    library.RasterizeCudaContext = lambda device: SimpleNamespace(device=device)
    library.rasterize = rasterize
    library.antialias = lambda picture, found, clip, tri: picture * (found[..., 3:] > 0)
    return library


def test_both_libraries_see_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", ModuleType("nvdiffrast"))
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", fake_nvdiffrast())
    verts = torch.tensor([[0.0, 0.5, 0], [-0.5, -0.4, 0.3], [0.5, -0.4, 0.3], [0, -0.4, -0.5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    one = RayCaster().fragments(verts, faces, VIEWS, 12)
    other = Nvdiffrast("cpu").fragments(verts, faces, VIEWS, 12)
    same = one.face == other.face
    assert same.float().mean() > 0.97  # a pixel on an edge may fall to either side
    torch.testing.assert_close(other.bary[same], one.bary[same], atol=1e-4, rtol=0)
    torch.testing.assert_close(other.depth[same], one.depth[same], atol=1e-4, rtol=0)
    white = torch.ones(3, 12, 12, 1)
    assert torch.equal(Nvdiffrast("cpu").smoothed(white, verts, faces, VIEWS)[..., 0] > 0, other.seen)


def test_clip_space_is_where_rays_say(ball: tuple[Tensor, Tensor]):
    verts, faces = ball
    seen = RayCaster().fragments(verts, faces, VIEWS, 16)
    places = seen.interpolate(verts, faces)
    for b in range(3):
        clip = clip_space(places[b].flatten(0, 1), VIEWS)[b].view(16, 16, 4)
        x, y = clip[..., 0] / clip[..., 3], clip[..., 1] / clip[..., 3]
        rows, columns = torch.nonzero(seen.seen[b], as_tuple=True)
        torch.testing.assert_close(x[rows, columns], (columns + 0.5) / 8 - 1, atol=1e-4, rtol=0)
        torch.testing.assert_close(y[rows, columns], 1 - (rows + 0.5) / 8, atol=1e-4, rtol=0)
        assert (clip[..., 2][seen.seen[b]].abs() < clip[..., 3][seen.seen[b]]).all()


def test_a_library_that_is_not_there_is_said():
    assert isinstance(rasteriser("auto", "cpu"), RayCaster)
    assert isinstance(rasteriser("open3d", "cpu"), RayCaster)
    with pytest.raises(InvalidInput) as caught:
        rasteriser("nvdiffrast", "cpu")
    assert caught.value.field == "rasteriser"
