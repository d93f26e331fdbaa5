"""Where in the cube something is: a coarse grid, so that empty samples are never evaluated.

As in Instant NGP (Mueller et al. 2022), section E.2: a moving maximum of the density, renewed now and then. Optional;
what is left out has an opacity below the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.prolificdreamer.volume import Field

DECAY = 0.95  # of the moving maximum at every update
EVERY = 16  # steps between updates
OPACITY = 0.01  # a sample that would be more opaque is evaluated
LOOKS = 8  # at every cell of a field that has settled


class OccupancyGrid:
    """Cells of the cube [-bound, bound]^3 with the largest density seen in each of late."""

    def __init__(self, resolution: int, bound: float, step: float, device: str = "cpu") -> None:
        """`step` is the usual distance of samples along a ray: it turns densities into opacities."""
        self.resolution, self.bound, self.step = resolution, bound, step
        self.densest = torch.full((resolution**3,), torch.inf, device=device)  # until first updated, all is occupied
        self._stride = torch.tensor([resolution**2, resolution, 1.0], device=device)
        self._boxed: tuple[Tensor, tuple[Tensor, Tensor]] | None = None  # the box of what `densest` was

    @classmethod
    def of(
        cls, field: Field, resolution: int, bound: float, step: float, generator: torch.Generator, device: str = "cpu"
    ) -> OccupancyGrid:
        """Of a field that does not change any more: a few looks at every cell, which count for its neighbours too."""
        grid = cls(resolution, bound, step, device)
        for _ in range(LOOKS):
            grid.update(field, generator)
        cells = grid.densest.view(1, 1, *[resolution] * 3)
        grid.densest = torch.nn.functional.max_pool3d(cells, 3, stride=1, padding=1).flatten()
        return grid

    def mask(self, points: Tensor) -> Tensor:  # [M, 3] -> bool [M]
        """Whether each point is worth evaluating."""
        r = self.resolution
        cell = ((points + self.bound) * (r / (2 * self.bound))).clamp(0, r - 1).floor()
        # Cells are few enough that their numbers are exact in float32, and a product is faster than integer sums.
        row = cell @ self._stride.to(cell)
        return self._occupied()[row.long()]

    def _occupied(self) -> Tensor:  # bool [cells]
        return 1 - torch.exp(-self.densest * self.step) > OPACITY

    def box(self) -> tuple[Tensor, Tensor]:  # centre [3], half sides [3]
        """The smallest box around everything that is occupied; a single cell where nothing is."""
        if self._boxed is None or self._boxed[0] is not self.densest:
            self._boxed = self.densest, self._found_box()
        return self._boxed[1]

    def _found_box(self) -> tuple[Tensor, Tensor]:
        r, cell = self.resolution, 2 * self.bound / self.resolution
        occupied = self._occupied().cpu().view(r, r, r)
        low, high = torch.zeros(3), torch.ones(3)
        for axis in range(3):
            rows = occupied.amax(dim=[other for other in range(3) if other != axis]).nonzero()[:, 0]
            if len(rows):
                low[axis], high[axis] = float(rows[0]), float(rows[-1]) + 1
        centre, half = (low + high) / 2 * cell - self.bound, (high - low) / 2 * cell
        return centre.to(self.densest.device), half.to(self.densest.device)

    def share(self) -> float:
        """Part of the cube that is occupied."""
        return float(self._occupied().float().mean())

    @torch.no_grad()
    def update(self, field: Field, generator: torch.Generator) -> None:
        """Look at one random point of every cell."""
        r = self.resolution
        axis = torch.arange(r, device=self.densest.device, dtype=torch.float32)
        corner = torch.cartesian_prod(axis, axis, axis)
        inside = torch.rand(corner.shape, generator=generator).to(corner.device)
        points = (corner + inside) * (2 * self.bound / r) - self.bound
        kept = torch.where(self.densest.isinf(), torch.zeros_like(self.densest), self.densest * DECAY)
        now = torch.cat([field(part)[0] for part in points.split(2**16)])
        self.densest = torch.maximum(kept, now)
