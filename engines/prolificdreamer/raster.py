"""What a camera sees of a mesh, differentiable in its vertices: one interface, two ways to find the visible faces.

Visibility comes from a library; where a ray meets its face is computed again in PyTorch, so that normals, positions
and colours carry gradients. Outlines carry none in the plain form, which casts rays with open3d; nvdiffrast (CUDA,
NVIDIA's own licence, installed by the user) smooths them, and then they do.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.prolificdreamer.cameras import focal_length
from engines.prolificdreamer.viewpoints import Views
from studio.errors import InvalidInput

NEAR, FAR = 0.05, 100.0  # of the clip space that nvdiffrast wants
RasteriserName = Literal["auto", "open3d", "nvdiffrast"]


@dataclass(frozen=True)
class Fragments:
    """What every pixel of a batch of pictures sees."""

    face: Tensor  # int64 [B, S, S], -1 where nothing is
    bary: Tensor  # [B, S, S, 3], shares of the face's corners, 0 where nothing is
    depth: Tensor  # [B, S, S], along the view, 0 where nothing is

    @property
    def seen(self) -> Tensor:  # bool [B, S, S]
        """Where the mesh is."""
        return self.face >= 0

    def interpolate(self, values: Tensor, faces: Tensor) -> Tensor:  # [V, C], [F, 3] -> [B, S, S, C]
        """Values of the vertices at every pixel, 0 where nothing is."""
        return self.of_corners(values[faces])

    def of_corners(self, corners: Tensor) -> Tensor:  # [F, 3, C] -> [B, S, S, C]
        """Values of each face's own corners at every pixel, 0 where nothing is."""
        on = self.seen
        found = (corners[self.face[on]] * self.bary[on][:, :, None]).sum(dim=1)
        whole = found.new_zeros(*self.face.shape, corners.shape[-1])
        return whole.index_put((on,), found)


class Rasteriser(Protocol):
    """Finds what is visible and smooths outlines where it can."""

    def fragments(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Fragments:
        """verts [V, 3], faces int64 [F, 3] from all cameras."""
        ...

    def smoothed(self, picture: Tensor, verts: Tensor, faces: Tensor, views: Views) -> Tensor:  # [B, S, S, C]
        """The picture with outlines that follow the vertices, or as it is."""
        ...


def rasteriser(name: RasteriserName, device: str) -> Rasteriser:
    """The one that was asked for; "auto" takes nvdiffrast where it is installed and the device can. InvalidInput."""
    there = importlib.util.find_spec("nvdiffrast") is not None and device.startswith("cuda")
    if name == "nvdiffrast" and not there:
        raise InvalidInput(
            "nvdiffrast is not installed here, or the device is no CUDA device.",
            "Install it from NVIDIA (its licence forbids commercial use), or choose the plain rasteriser.",
            field="rasteriser",
        )
    return Nvdiffrast(device) if there and name != "open3d" else RayCaster()


class RayCaster:
    """Visibility by casting a ray through every pixel with open3d's Embree; a mesh that stays is prepared once."""

    def __init__(self) -> None:
        self._scene: Any = None
        self._of: tuple[Tensor, int] | None = None

    def fragments(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Fragments:
        """See `Rasteriser`."""
        o, d = views.rays(side)
        if self._of is None or self._of[0] is not verts or self._of[1] != verts._version:
            self._scene, self._of = ray_scene(verts, faces), (verts, verts._version)
        face = cast(self._scene, o, d)
        bary, t = meet(verts, faces, face, o, d)
        shape = (len(views), side, side)
        # Rays are not normalised: the distance along one is the depth along the view.
        return Fragments(face.view(shape), bary.view(*shape, 3), t.view(shape))

    def smoothed(self, picture: Tensor, verts: Tensor, faces: Tensor, views: Views) -> Tensor:
        """As it is: rays know no outlines."""
        return picture


def ray_scene(verts: Tensor, faces: Tensor) -> Any:
    """A mesh ready for rays; None if it is empty."""
    import open3d

    if not len(faces):
        return None
    scene = open3d.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
    scene.add_triangles(_array(verts, np.float32), _array(faces, np.uint32))
    return scene


def cast(scene: Any, o: Tensor, d: Tensor) -> Tensor:  # int64 [R]
    """The face of a `ray_scene` that each ray [R, 3] meets first, -1 for none."""
    import open3d

    if scene is None:
        return torch.full((len(o),), -1, dtype=torch.int64, device=o.device)
    rays = torch.cat([o, d], dim=1).detach().cpu().float().contiguous().numpy()
    hit = scene.cast_rays(open3d.core.Tensor(rays))["primitive_ids"].numpy().astype(np.int64)
    hit[hit == scene.INVALID_ID] = -1
    return torch.from_numpy(hit).to(o.device)


def _array(values: Tensor, kind: Any) -> Any:
    import open3d

    return open3d.core.Tensor(values.detach().cpu().numpy().astype(kind))


def meet(
    verts: Tensor,  # [V, 3]
    faces: Tensor,  # int64 [F, 3]
    face: Tensor,  # int64 [R], -1 for none
    o: Tensor,  # [R, 3]
    d: Tensor,  # [R, 3]
) -> tuple[Tensor, Tensor]:  # shares of the corners [R, 3], distance [R]; 0 for none
    """Where rays meet their faces (Moeller and Trumbore 1997), differentiable in the vertices."""
    on = face >= 0
    a, b, c = verts[faces[face[on]]].unbind(dim=1)
    start, along = o[on].to(verts), d[on].to(verts)
    ab, ac = b - a, c - a
    p = torch.linalg.cross(along, ac)
    scale = (ab * p).sum(dim=1)
    scale = torch.where(scale.abs() < 1e-12, torch.full_like(scale, 1e-12), scale)
    s = start - a
    q = torch.linalg.cross(s, ab)
    u, v, t = ((s * p).sum(dim=1) / scale, (along * q).sum(dim=1) / scale, (ac * q).sum(dim=1) / scale)
    shares = torch.stack([1 - u - v, u, v], dim=1)
    return verts.new_zeros(len(o), 3).index_put((on,), shares), verts.new_zeros(len(o)).index_put((on,), t)


class Nvdiffrast:
    """Visibility and outlines by nvdiffrast."""

    def __init__(self, device: str) -> None:
        self.library = importlib.import_module("nvdiffrast.torch")
        self.context = self.library.RasterizeCudaContext(device=device)

    def fragments(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Fragments:
        """See `Rasteriser`."""
        found = self._raster(verts, faces, views, side)
        face = found[..., 3].long() - 1
        on = (face >= 0)[..., None]
        first, second = found[..., 0:1], found[..., 1:2]  # of the first and the second corner
        bary = torch.where(on, torch.cat([first, second, 1 - first - second], dim=-1), torch.zeros_like(on.float()))
        frame = Fragments(face, bary, face.new_zeros(face.shape).float())
        position = frame.interpolate(verts, faces)
        away = position - views.c2w[:, None, None, :3, 3]
        depth = -(away * views.c2w[:, None, None, :3, 2]).sum(dim=-1)
        return Fragments(face, bary, torch.where(on[..., 0], depth, torch.zeros_like(depth)))

    def smoothed(self, picture: Tensor, verts: Tensor, faces: Tensor, views: Views) -> Tensor:
        """Outlines blended by how much of a pixel they cover."""
        side = picture.shape[1]
        found = self._raster(verts, faces, views, side)
        clip = clip_space(verts, views)
        turned = self.library.antialias(picture.flip(1).contiguous(), found.flip(1).contiguous(), clip, faces.int())
        return turned.flip(1)

    def _raster(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Tensor:  # [B, S, S, 4], top row first
        found, _ = self.library.rasterize(self.context, clip_space(verts, views), faces.int(), (side, side))
        return found.flip(1)  # OpenGL counts rows from below


def clip_space(verts: Tensor, views: Views) -> Tensor:  # [V, 3] -> [B, V, 4]
    """OpenGL's clip coordinates of world positions, for square pictures."""
    rows = []
    for pose, fovy in zip(views.c2w, views.fovy, strict=True):
        local = (verts - pose[:3, 3]) @ pose[:3, :3]
        f = 2 * focal_length(fovy, 1)
        x, y, z = local.unbind(dim=1)
        far = (FAR + NEAR) / (NEAR - FAR) * z + 2 * FAR * NEAR / (NEAR - FAR)
        rows.append(torch.stack([f * x, f * y, far, -z], dim=1))
    return torch.stack(rows)


def vertex_normals(verts: Tensor, faces: Tensor) -> Tensor:  # [V, 3], unit
    """Means of the faces around each vertex, weighted by area."""
    a, b, c = verts[faces].unbind(dim=1)
    cross = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(verts)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], cross)
    return F.normalize(total, dim=1)


def pooled(picture: Tensor, side: int) -> Tensor:  # [B, S, S, C] -> [B, C, side, side]
    """A picture of several times the size, averaged down: soft outlines."""
    channels_first = picture.permute(0, 3, 1, 2)
    return channels_first if channels_first.shape[-1] == side else F.adaptive_avg_pool2d(channels_first, side)
