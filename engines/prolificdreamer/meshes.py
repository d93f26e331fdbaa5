"""From fields to surfaces that other programs open: extraction, cleaning, unwrapping, baking.

Follows the released export (ProlificDreamer, appendix), without its remeshing, which throws away what the second
stage made. Meshes are right-handed, y up, front +z, as glTF wants them. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from engines.prolificdreamer.raster import cast, meet, ray_scene
from engines.prolificdreamer.tetrahedra import marching_tetrahedra, tetrahedral_grid

if TYPE_CHECKING:  # libraries of meshes are loaded where a mesh is made: fields and numbers do without
    import trimesh

Density = Callable[[Tensor], Tensor]  # points [M, 3] -> [M]
Colour = Callable[[Tensor], Tensor]  # points [M, 3] -> [M, 3] in [0, 1]

BATCH = 640_000  # points asked for at a time
LOWERED = 0.5  # factor on the threshold while nothing is found
LEAST_FACES = 8  # of a component that is kept
LEAST_DIAMETER = 0.05  # of a component, in diameters of the whole
MERGED = 1e-4  # distance of vertices that are one, in diameters


@dataclass(frozen=True)
class Surface:
    """A mesh, and what had to be done to get one."""

    verts: Tensor  # float32 [V, 3]
    faces: Tensor  # int64 [F, 3], counter-clockwise from outside
    threshold: float  # of the density
    note: str = ""  # a sentence, if the threshold is not the one that was asked for


@torch.no_grad()
def evaluated(ask: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Something of many points, in batches."""
    return torch.cat([ask(part) for part in points.split(BATCH)])


@torch.no_grad()
def extract(density: Density, threshold: float, resolution: int, bound: float, device: str) -> Surface:
    """The surface where the density is `threshold`, on a tetrahedral grid of the cube.

    Where that is nowhere, the threshold is lowered until something is found, and that is said. A field that is empty
    everywhere gives an empty surface.
    """
    points, tets = (part.to(device) for part in tetrahedral_grid(resolution))
    points = points * bound
    values = evaluated(density, points)
    on_border = (points.abs() >= bound - 1e-6).any(dim=1)
    used = reached(threshold, float(values[~on_border].max()))
    signed = torch.where(on_border, torch.full_like(values, -1e-3), values - used)  # closed at the cube's faces
    verts, faces = marching_tetrahedra(points, signed, tets)
    note = ""
    if used != threshold and len(faces):
        note = lowered_note(threshold, used)
    if not len(faces):
        note = "The field is empty: there is no surface in it."
    return Surface(verts, faces, used, note)


def reached(threshold: float, most: float) -> float:
    """The threshold, lowered until the densest place is denser; as it was where nothing is dense at all."""
    while threshold >= most and most > 1e-6:
        threshold *= LOWERED
    return threshold


def lowered_note(asked: float, used: float) -> str:
    """What is said where the threshold had to be lowered."""
    return f"Nothing is as dense as {asked:g}; the surface was taken where the density is {used:.3g}."


def cleaned(surface: Surface) -> Surface:
    """Without doubled vertices, flat faces and small loose parts; the largest part is always kept."""
    import trimesh

    mesh = trimesh.Trimesh(surface.verts.cpu().numpy(), surface.faces.cpu().numpy(), process=False)
    if not len(mesh.faces):
        return surface
    diameter = float(np.linalg.norm(mesh.extents))
    mesh.merge_vertices(digits_vertex=max(0, int(np.ceil(-np.log10(MERGED * diameter)))))
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    labels = _components(mesh.faces, len(mesh.vertices))
    counts = np.bincount(labels)
    kept = np.zeros(len(counts), bool)
    for label in range(len(counts)):
        corners = mesh.vertices[mesh.faces[labels == label].ravel()] if counts[label] >= LEAST_FACES else None
        kept[label] = corners is not None and np.linalg.norm(np.ptp(corners, axis=0)) >= LEAST_DIAMETER * diameter
    kept[counts.argmax()] = True
    mesh.update_faces(kept[labels])
    mesh.remove_unreferenced_vertices()
    device = surface.verts.device
    return Surface(
        torch.tensor(mesh.vertices, dtype=torch.float32, device=device),
        torch.tensor(np.asarray(mesh.faces), dtype=torch.int64, device=device),
        surface.threshold,
        surface.note,
    )


def _components(faces: np.ndarray, count: int) -> np.ndarray:
    """The number of the connected part that each face belongs to."""
    pairs = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1][faces[:, 0]]
    return np.unique(labels, return_inverse=True)[1]


def decimated(surface: Surface, most_faces: int) -> Surface:
    """At most so many faces, by quadric error (Garland and Heckbert 1997)."""
    if len(surface.faces) <= most_faces:
        return surface
    import open3d

    mesh = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(surface.verts.cpu().double().numpy()),
        open3d.utility.Vector3iVector(surface.faces.cpu().numpy().astype(np.int32)),
    ).simplify_quadric_decimation(most_faces)
    device = surface.verts.device
    return Surface(
        torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32, device=device),
        torch.tensor(np.asarray(mesh.triangles), dtype=torch.int64, device=device),
        surface.threshold,
        surface.note,
    )


@dataclass(frozen=True)
class Unwrapped:
    """A mesh with a place in a texture for every corner; vertices at seams are doubled."""

    verts: Tensor  # float32 [V, 3]
    faces: Tensor  # int64 [F, 3]
    uv: Tensor  # float32 [V, 2] in [0, 1], v upwards


def unwrapped(surface: Surface) -> Unwrapped:
    """Charts by xatlas."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.verts.cpu().numpy(), surface.faces.cpu().numpy().astype(np.uint32))
    options = xatlas.ChartOptions()
    options.max_iterations = 4  # as released
    atlas.generate(chart_options=options)
    origin, faces, uv = atlas[0]
    device = surface.verts.device
    return Unwrapped(
        surface.verts[torch.from_numpy(origin.astype(np.int64)).to(device)],
        torch.from_numpy(faces.astype(np.int64)).to(device),
        torch.from_numpy(uv).to(device),
    )


@torch.no_grad()
def baked(mesh: Unwrapped, colour: Colour, size: int) -> np.ndarray:  # uint8 [size, size, 3], top row first
    """The colour of every texel's place on the mesh; texels beside a chart repeat the nearest one in it."""
    flat = torch.cat([mesh.uv, torch.zeros_like(mesh.uv[:, :1])], dim=1)
    centre = (torch.arange(size, device=flat.device, dtype=torch.float32) + 0.5) / size
    v, u = torch.meshgrid(centre.flip(0), centre, indexing="ij")
    o = torch.stack([u, v, torch.ones_like(u)], dim=-1).flatten(0, 1)
    d = torch.tensor([0.0, 0.0, -1.0], device=flat.device).expand_as(o)
    face = cast(ray_scene(flat, mesh.faces), o, d)
    on = face >= 0
    shares, _ = meet(flat, mesh.faces, face, o, d)
    places = (mesh.verts[mesh.faces[face[on]]] * shares[on][:, :, None]).sum(dim=1)
    picture = np.zeros((size * size, 3), np.float32)
    covered = on.cpu().numpy()
    picture[covered] = evaluated(colour, places).float().cpu().numpy()
    if covered.any():
        nearest = ndimage.distance_transform_edt(
            ~covered.reshape(size, size), return_distances=False, return_indices=True
        )
        picture = picture.reshape(size, size, 3)[tuple(nearest)]
    return (picture.reshape(size, size, 3).clip(0, 1) * 255).round().astype(np.uint8)


def textured(mesh: Unwrapped, texture: np.ndarray, name: str) -> trimesh.Trimesh:
    """A mesh with its picture as the colour of a rough, non-metallic material."""
    import trimesh

    material = trimesh.visual.material.PBRMaterial(
        name=name,
        baseColorTexture=Image.fromarray(texture),
        metallicFactor=0.0,
        roughnessFactor=1.0,
        doubleSided=True,
    )
    visual = trimesh.visual.TextureVisuals(uv=mesh.uv.cpu().numpy(), material=material)
    return trimesh.Trimesh(mesh.verts.cpu().numpy(), mesh.faces.cpu().numpy(), visual=visual, process=False)


@torch.no_grad()
def coloured(surface: Surface, colour: Colour) -> trimesh.Trimesh:
    """A mesh with a colour at every vertex."""
    import trimesh

    values = (evaluated(colour, surface.verts).clamp(0, 1) * 255).round().byte().cpu().numpy()
    full = np.concatenate([values, np.full((len(values), 1), 255, np.uint8)], axis=1)
    return trimesh.Trimesh(
        surface.verts.cpu().numpy(), surface.faces.cpu().numpy(), vertex_colors=full, process=False
    )
