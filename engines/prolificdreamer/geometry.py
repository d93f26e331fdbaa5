"""The second stage: a surface taken out of the field and refined by what its normals look like.

ProlificDreamer (arXiv 2305.16213), section 4.3: DMTet with score distillation on renders of world normals, guidance
100, neighbouring faces that agree and a Laplacian. Knows neither jobs nor files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engines.prolificdreamer.distillation import Distiller, load_optimiser, optimiser_state
from engines.prolificdreamer.meshes import Density, Surface, evaluated, reached
from engines.prolificdreamer.raster import Rasteriser, pooled, vertex_normals
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.tetrahedra import (
    laplacian_loss,
    marching_tetrahedra,
    normal_consistency,
    tetrahedral_grid,
)
from engines.prolificdreamer.viewpoints import CameraRange, Views, draw_views
from studio.errors import InvalidInput

MARGIN = 0.1  # of the grid around the object, in bounds


@dataclass(frozen=True)
class GeometryConfig:
    """The second stage; the defaults are the released ones."""

    steps: int = 15_000
    views: int = 1
    side: int = 512
    supersampling: int = 1  # rays per pixel and axis, averaged
    grid: int = 256  # cells a side
    threshold: float = 2.5  # of the density: 25 times the released 0.1
    normal_weight: float = 5000.0
    laplacian_weight: float = 0.5
    rate: float = 5e-3  # of distances and offsets
    backdrop: float = 0.0  # grey behind the normals
    cameras: CameraRange = field(default_factory=lambda: CameraRange(fovy=(30.0, 60.0)))


class EmptyField(InvalidInput):
    """The first stage left nothing that a later one could take up."""

    @classmethod
    def to(cls, be: str) -> EmptyField:
        """What cannot be done with it: "be refined"."""
        return cls(
            f"The field of the first stage is empty: there is no surface to {be}.",
            "Let the first stage run longer, or choose another seed.",
            field="threshold",
        )


class Shape(nn.Module):
    """Signed distances, positive inside, and offsets on a tetrahedral grid."""

    def __init__(self, points: Tensor, tets: Tensor, sdf: Tensor, grid: int) -> None:
        super().__init__()
        self.points, self.tets, self.grid = points, tets, grid
        self.sdf = nn.Parameter(sdf)
        self.offset = nn.Parameter(torch.zeros_like(points))
        # Vertices of a cell may meet but not pass each other.
        self.reach = (points.max() - points.min()) / 2 / grid

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices [V, 3] and faces [F, 3], differentiable in distances and offsets."""
        return marching_tetrahedra(self.points + torch.tanh(self.offset) * self.reach, self.sdf, self.tets)


@torch.no_grad()
def shape_from(density: Density, threshold: float, grid: int, bound: float, device: str) -> tuple[Shape, float]:
    """A shape that starts as the field's, on a grid that fits it; and the threshold that found one.

    Raises EmptyField if there is nothing.
    """
    points, tets = (part.to(device) for part in tetrahedral_grid(grid))
    on_border = (points.abs() >= 1 - 1e-6).any(dim=1)  # closed, whatever is there
    inner = points[~on_border]
    values = evaluated(density, inner * bound)
    used = reached(threshold, float(values.max()))
    dense = inner[values > used]
    if not len(dense):
        raise EmptyField.to("be refined")
    half = min(1.0, float(dense.abs().max()) + MARGIN) * bound
    fitted = points * half
    sdf = (evaluated(density, fitted) - used).clamp(-1, 1)
    sdf[on_border] = sdf[on_border].clamp(max=-0.01)
    return Shape(fitted, tets, sdf, grid).to(device), used


class GeometryStage:
    """One surface, moved by score distillation of its normals."""

    name = "geometry"
    title = "geometry"

    def __init__(
        self,
        config: GeometryConfig,
        shape: Shape,
        distiller: Distiller,
        rasteriser: Rasteriser,
        streams: Streams,
    ) -> None:
        self.config, self.shape, self.distiller, self.rasteriser = config, shape, distiller, rasteriser
        self.streams, self.steps, self.pace = streams, config.steps, 1.0
        self.optimiser = torch.optim.Adam(shape.parameters(), lr=config.rate, betas=(0.9, 0.99), eps=1e-15)

    def step(self, index: int) -> dict[str, float]:
        """One step; an empty surface gives no number, and the step is undone."""
        c = self.config
        verts, faces = self.shape.surface()
        if not len(faces):
            return {"gradient": float("nan")}
        device = str(verts.device)
        views = draw_views(c.cameras, c.views, self.streams.at("camera", index), spread=True).to(device)
        picture = self.normals(verts, faces, views, c.side)
        gradient, _, push = self.distiller.look(picture, views, index, self.streams)
        smooth = c.normal_weight * normal_consistency(verts, faces) + c.laplacian_weight * laplacian_loss(
            verts, faces
        )
        for group in self.optimiser.param_groups:
            group["lr"] = c.rate * self.pace
        self.optimiser.zero_grad(set_to_none=True)
        ((picture * gradient).sum() + smooth).backward()
        self.optimiser.step()
        return {**push.told, "smoothness": float(smooth.detach()), "faces": float(len(faces))}

    def normals(self, verts: Tensor, faces: Tensor, views: Views, side: int) -> Tensor:  # [B, 3, S, S] in [0, 1]
        """World normals as colours over a plain ground."""
        fine = side * self.config.supersampling
        seen = self.rasteriser.fragments(verts, faces, views, fine)
        normal = torch.nn.functional.normalize(seen.interpolate(vertex_normals(verts, faces), faces), dim=-1)
        on = seen.seen[..., None]
        picture = torch.where(on, (normal + 1) / 2, torch.full_like(normal, self.config.backdrop))
        return pooled(self.rasteriser.smoothed(picture, verts, faces, views), side)

    @torch.no_grad()
    def result(self, threshold: float) -> Surface:
        """The surface as it is now."""
        verts, faces = self.shape.surface()
        return Surface(verts.detach(), faces, threshold)

    def healthy(self) -> bool:
        """Whether every number of the shape is one."""
        return all(bool(torch.isfinite(w).all()) for w in self.shape.parameters())

    def state(self) -> dict[str, Any]:
        """Everything that following steps depend on."""
        shape = {"sdf": self.shape.sdf, "offset": self.shape.offset, "points": self.shape.points}
        return {
            "pace": self.pace,
            "shape": {name: value.detach().clone() for name, value in shape.items()},
            "optimiser": optimiser_state(self.optimiser),
            "distiller": self.distiller.state(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.pace = float(state["pace"])
        for name in ("sdf", "offset", "points"):
            getattr(self.shape, name).copy_(state["shape"][name])
        load_optimiser(self.optimiser, state["optimiser"])
        self.distiller.load(state["distiller"])
