"""Surfaces from signed distances on a tetrahedral grid that is made by rule.

DMTet's marching tetrahedra as ProlificDreamer (arXiv 2305.16213) uses it: distances are positive inside, and the
published table gives outward faces for negatively oriented tetrahedra, which `tetrahedral_grid` makes.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
TRIANGLES: dict[int, tuple[tuple[int, int, int], ...]] = {  # case -> edges of each triangle
    1: ((1, 0, 2),),
    2: ((4, 0, 3),),
    3: ((1, 4, 2), (1, 3, 4)),
    4: ((3, 1, 5),),
    5: ((2, 3, 0), (2, 5, 3)),
    6: ((1, 4, 0), (1, 5, 4)),
    7: ((4, 2, 5),),
    8: ((4, 5, 2),),
    9: ((4, 1, 0), (4, 5, 1)),
    10: ((3, 2, 0), (3, 5, 2)),
    11: ((1, 3, 5),),
    12: ((4, 1, 2), (4, 3, 1)),
    13: ((3, 0, 4),),
    14: ((2, 0, 1),),
}


def tetrahedral_grid(n: int) -> tuple[Tensor, Tensor]:  # float32 [(n + 1)^3, 3] in [-1, 1], int64 [6 n^3, 4]
    """Kuhn's grid: every cube cut into the six tetrahedra along the orders of the axes; all negatively oriented."""
    axis = torch.arange(n + 1)
    points = torch.cartesian_prod(axis, axis, axis)
    corner = torch.cartesian_prod(*(torch.arange(n),) * 3)
    stride = torch.tensor([(n + 1) ** 2, n + 1, 1])
    parts = []
    for order in itertools.permutations(range(3)):
        steps = torch.cumsum(torch.eye(3, dtype=torch.int64)[list(order)], dim=0)
        path = torch.cat([torch.zeros(1, 3, dtype=torch.int64), steps])
        tets = (corner[:, None] + path) @ stride
        even = sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0
        parts.append(tets[:, [0, 1, 3, 2]] if even else tets)  # swapping two vertices turns it over
    return points.float() * (2 / n) - 1, torch.stack(parts, dim=1).flatten(0, 1)


def marching_tetrahedra(pos: Tensor, sdf: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] and faces [F, 3] of the surface sdf = 0; pos [N, 3], sdf [N] positive inside, tets [T, 4].

    Vertices stand in the lexicographic order of the edges they cross, faces of tetrahedra with one triangle before
    those with two; both are empty where nothing crosses. Differentiable in positions and distances.
    """
    inside = sdf > 0
    case = (inside[tets] * torch.tensor([1, 2, 4, 8], device=tets.device)).sum(dim=-1)
    crossed = (case > 0) & (case < 15)
    tets, case = tets[crossed], case[crossed]
    if not len(tets):
        return pos.new_zeros(0, 3), tets.new_zeros(0, 3)
    pairs = tets[:, torch.tensor(EDGES, device=tets.device)].sort(dim=-1).values  # [T, 6, 2]
    unique, inverse = torch.unique(pairs.flatten(0, 1), dim=0, return_inverse=True)
    cut = inside[unique].sum(dim=-1) == 1
    number = torch.full((len(unique),), -1, device=tets.device)
    number[cut] = torch.arange(int(cut.sum()), device=tets.device)
    vertex = number[inverse].view(-1, 6)
    ends = unique[cut]
    value = sdf[ends]  # [V, 2]
    share = value.flip(1) * torch.tensor([1.0, -1.0], dtype=sdf.dtype, device=sdf.device)
    share = share / share.sum(dim=1, keepdim=True)
    verts = (pos[ends] * share[..., None]).sum(dim=1)
    faces = [_faces(vertex, case, count) for count in (1, 2)]
    return verts, torch.cat(faces)


def _faces(vertex: Tensor, case: Tensor, count: int) -> Tensor:
    """The triangles of all tetrahedra that have `count` of them."""
    table = torch.zeros(16, count, 3, dtype=torch.int64, device=case.device)
    chosen = torch.zeros(16, dtype=torch.bool, device=case.device)
    for number, triangles in TRIANGLES.items():
        if len(triangles) == count:
            table[number], chosen[number] = torch.tensor(triangles, device=case.device), True
    which = chosen[case]
    edges = table[case[which]].flatten(1)
    return vertex[which].gather(1, edges).view(-1, 3)
