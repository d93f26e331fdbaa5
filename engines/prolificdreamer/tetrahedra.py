"""The surface of the second stage: where signed distances cross zero, and what keeps it smooth.

ProlificDreamer (arXiv 2305.16213), section 4: normals of neighbouring faces agree, and
vertices lie between their neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.shared.tetrahedra import marching_tetrahedra, tetrahedral_grid

__all__ = [
    "edges_of",
    "face_normals",
    "laplacian_loss",
    "marching_tetrahedra",
    "normal_consistency",
    "tetrahedral_grid",
]


def face_normals(verts: Tensor, faces: Tensor) -> Tensor:  # [F, 3], unit
    """Outward for counter-clockwise faces."""
    a, b, c = verts[faces].unbind(dim=1)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)


def edges_of(faces: Tensor) -> tuple[Tensor, Tensor]:  # [E, 2], int64 [F, 3]: the edge after each corner
    """Undirected edges without repetition, and which ones bound each face."""
    pairs = torch.stack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]], dim=1).sort(dim=-1).values
    unique, inverse = torch.unique(pairs.flatten(0, 1), dim=0, return_inverse=True)
    return unique, inverse.view(-1, 3)


def normal_consistency(verts: Tensor, faces: Tensor) -> Tensor:  # []
    """Mean of 1 - cos between the normals of faces that share an edge; edges of one face do not count. 0 of none."""
    edges, bounding = edges_of(faces)
    order = bounding.flatten().argsort(stable=True)
    counts = torch.bincount(bounding.flatten(), minlength=len(edges))
    first = torch.cumsum(counts, 0) - counts
    shared = first[counts == 2]
    if not len(shared):
        return verts.sum() * 0
    owner = order // 3
    normals = face_normals(verts, faces)
    one, other = normals[owner[shared]], normals[owner[shared + 1]]
    return (1 - (one * other).sum(dim=-1)).mean()


def laplacian_loss(verts: Tensor, faces: Tensor) -> Tensor:  # []
    """Mean length of deg v - sum of neighbours: the uniform Laplacian, not normalised. 0 of no mesh."""
    if not len(verts):
        return verts.sum()
    edges, _ = edges_of(faces)
    both = torch.cat([edges, edges.flip(1)])
    degree = torch.bincount(both[:, 0], minlength=len(verts)).to(verts.dtype)
    around = torch.zeros_like(verts).index_add(0, both[:, 0], verts[both[:, 1]])
    return (degree[:, None] * verts - around).norm(dim=-1).mean()
