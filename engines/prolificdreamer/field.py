"""A particle of the first stage: a field of density and colour in a cube, and what lies behind it.

Hash grid, a small decoder, a start that already is an object or a room (ProlificDreamer, arXiv 2305.16213, section
4.2), no dependence on the direction of view. World y up; the cube is [-bound, bound]^3. Knows neither cameras nor
losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.prolificdreamer.hashgrid import dense_volumes, encode_quickly, hash_grid_layout
from engines.prolificdreamer.presets import INSIDE
from engines.prolificdreamer.volume import activated_density, density_blob, frequency_encode

NORMAL_STEP = 0.01  # of the differences that give normals, in the unit of the published cube
BACKGROUND_DEGREE = 4
FLOOR_CELLS = 32  # a side of the learned floor
NO_SHADOW = 0.003  # of the floor at the start; at 0 nothing would ever change
FLOOR_REACH = 2.0  # half its side, in bounds
GREY = 0.5  # what a picture is compared over, and what is behind a render where nothing is said

Start = Literal["object", "scene", "centred"]
BackgroundKind = Literal["none", "black", "white", "learned", "floor"]


@dataclass(frozen=True)
class FieldConfig:
    """Sizes and start of a field; the defaults are the released ones."""

    bound: float = 1.0
    levels: int = 16
    features: int = 2
    base: int = 16
    finest: int = 2048
    log2_table: int = 19
    interpolation: Literal["linear", "smoothstep"] = "smoothstep"
    hidden: int = 0  # units of a hidden layer of the decoder; 0: one linear layer
    start: Start = "object"
    blob_scale: float = 10.0
    blob_radius: float = 0.5
    blob_kind: Literal["linear", "gaussian"] = "linear"
    background: BackgroundKind = "learned"
    backdrop: tuple[float, float, float] = (GREY, GREY, GREY)  # of "none", and where "floor" starts
    floor: float = -0.8  # height of the learned floor


class Field(nn.Module):
    """points [M, 3] in the cube -> density [M], albedo [M, 3]; `background` for what is behind."""

    def __init__(self, config: FieldConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.offsets, self.growth = hash_grid_layout(
            config.levels, config.base, config.finest, config.log2_table, per_level_scale=None
        )
        rows = int(self.offsets[-1])
        self.table = nn.Parameter(2e-4 * torch.rand(rows, config.features, generator=generator) - 1e-4)
        self.decoder = _decoder(config.levels * config.features, config.hidden, generator)
        self.behind = _behind(config, generator)

    def encode(self, points: Tensor) -> Tensor:  # [M, 3] -> [M, L F]
        """Features of the hash grid."""
        x01 = (points + self.config.bound) / (2 * self.config.bound)
        return encode_quickly(
            x01, self.table, self.offsets, self.growth, self.config.base, interpolation=self.config.interpolation
        )

    def forward(
        self,
        points: Tensor,  # [M, 3]
        noise: Tensor | None = None,  # [M], added before the activation in training
    ) -> tuple[Tensor, Tensor]:  # density [M] >= 0, albedo [M, 3] in (0, 1)
        """What is at these points."""
        raw = self.decoder(self.encode(points))
        bias = self.bias(points) if noise is None else self.bias(points) + noise
        return activated_density(raw[:, 0], bias), torch.sigmoid(raw[:, 1:])

    def density(self, points: Tensor) -> Tensor:  # [M, 3] -> [M]
        """Without noise and colour."""
        return activated_density(self.decoder(self.encode(points))[:, 0], self.bias(points))

    def bias(self, points: Tensor) -> Tensor:  # [M, 3] -> [M]
        """The start, which stays for ever: a ball, a hollow room, or a ball within a room."""
        c = self.config
        unit = points / c.bound
        object_bias = density_blob(unit, c.blob_scale, c.blob_radius, c.blob_kind)
        if c.start == "object":
            return object_bias
        room = density_blob(unit, -abs(c.blob_scale), 2.5 / 5, "linear")  # r 2.5 in the published cube of 5
        if c.start == "scene":
            return room
        return torch.where(unit.norm(dim=-1) < INSIDE, object_bias, room)

    def normals(self, points: Tensor) -> Tensor:  # [M, 3] -> [M, 3], unit or zero
        """Against the slope of the density, by central differences that stay in the cube."""
        step = NORMAL_STEP * self.config.bound
        slopes = []
        for axis in range(3):
            move = torch.zeros(3, dtype=points.dtype, device=points.device)
            move[axis] = step
            ahead = (points + move).clamp(-self.config.bound, self.config.bound)
            back = (points - move).clamp(-self.config.bound, self.config.bound)
            slopes.append(self.density(ahead) - self.density(back))
        return F.normalize(-torch.stack(slopes, dim=-1), dim=-1)

    def dense_volumes(self) -> list[Tensor]:  # [F, R, R, R] each, z y x
        """The levels of the table that are not hashed, as they lie in space."""
        return dense_volumes(self.table, self.offsets, self.growth, self.config.base)

    def background(self, o: Tensor, d: Tensor) -> Tensor:  # [R, 3] twice -> [R, 3]
        """What a ray sees where nothing stops it."""
        return self.behind(o, d)


def _decoder(inputs: int, hidden: int, generator: torch.Generator) -> nn.Module:
    if not hidden:
        return _seeded(nn.Linear(inputs, 4), generator)
    first = _seeded(nn.Linear(inputs, hidden, bias=False), generator)
    return nn.Sequential(first, nn.ReLU(), _seeded(nn.Linear(hidden, 4, bias=False), generator))


@torch.no_grad()
def _seeded(layer: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """PyTorch's own initialisation of a linear layer, from this generator."""
    limit = layer.in_features**-0.5
    for parameter in layer.parameters():
        parameter.copy_(limit * (2 * torch.rand(parameter.shape, generator=generator) - 1))
    return layer


def _behind(config: FieldConfig, generator: torch.Generator) -> nn.Module:
    if config.background == "learned":
        return _Sky(generator)
    if config.background == "floor":
        return _Floor(config)
    level = {"black": (0.0,) * 3, "white": (1.0,) * 3}.get(config.background, config.backdrop)
    return _Plain(level)


class _Plain(nn.Module):
    """One colour for every ray."""

    def __init__(self, colour: tuple[float, ...]) -> None:
        super().__init__()
        self.colour = colour

    def forward(self, o: Tensor, d: Tensor) -> Tensor:  # [R, 3]
        return d.new_tensor(self.colour).expand_as(d)


class _Sky(nn.Module):
    """A small network of the direction as it is, not normalised, in a frequency encoding of degree 4."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first = _seeded(nn.Linear(3 * (1 + 2 * BACKGROUND_DEGREE), 16), generator)
        self.second = _seeded(nn.Linear(16, 3), generator)

    def forward(self, o: Tensor, d: Tensor) -> Tensor:  # [R, 3]
        return torch.sigmoid(self.second(F.relu(self.first(frequency_encode(d, BACKGROUND_DEGREE)))))


class _Floor(nn.Module):
    """One colour, and how much of it a shadow on the ground leaves: it lies there, not in the object.

    A ground of any colour would also show what is as pale as the walls of a house: looking through the object from
    all sides, one sees the same spot.
    """

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.sky = nn.Parameter(torch.logit(torch.tensor(config.backdrop).clamp(0.01, 0.99)))
        self.shadow = nn.Parameter(torch.full((1, 1, FLOOR_CELLS, FLOOR_CELLS), NO_SHADOW))
        self.height, self.reach = config.floor, FLOOR_REACH * config.bound

    def forward(self, o: Tensor, d: Tensor) -> Tensor:  # [R, 3]
        """The same colour far away and near, darker where the shadow lies."""
        t = (self.height - o[:, 1]) / d[:, 1].clamp(max=-1e-6)
        down = d[:, 1] < -1e-6
        spot = (o + t[:, None] * d)[:, ::2] / self.reach  # x and z
        seen = F.grid_sample(self.shadow, spot[None, None], padding_mode="zeros", align_corners=True).flatten()
        light = torch.exp(-torch.where(down, seen, torch.zeros_like(seen)).square())  # of either sign: never above 1
        return torch.sigmoid(self.sky) * light[:, None]
