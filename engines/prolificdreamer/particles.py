"""The first stage: particles that are fields, moved by distillation (ProlificDreamer, algorithm 1).

Each step moves one particle by what teacher and phi say about its renders, then trains phi on the same renders.
Knows neither jobs nor files: `training` runs it, and its state is plain tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from engines.prolificdreamer.distillation import Distiller, all_finite, load_optimiser, optimiser_state
from engines.prolificdreamer.field import Field, FieldConfig
from engines.prolificdreamer.occupancy import EVERY, OccupancyGrid
from engines.prolificdreamer.renderer import Regularisers, RenderConfig, Renderer
from engines.prolificdreamer.schedules import scheduled_value
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.viewpoints import CameraRange, Views, draw_views, random_backdrop

BETAS, EPS = (0.9, 0.99), 1e-15  # of Adam, as released
Knots = float | tuple[float, ...]  # see `schedules.scheduled_value`


@dataclass(frozen=True)
class NerfConfig:
    """The first stage; the defaults are the released ones for one particle."""

    steps: int = 25_000
    particles: int = 1
    views: int = 1  # cameras a step
    side: int = 512  # pixels of a render
    side_early: int = 512  # until `grow_step`
    grow_step: int = 0
    rate_grid: float = 1e-2
    rate_decoder: float = 1e-3
    rate_background: float = 1e-3
    decay_share: float = 0.0  # last share of the steps over which rates fall to a tenth
    entropy: Knots = 10.0
    opacity: Knots = 0.0
    sparsity: Knots = 0.0
    opaque: Knots = 0.0
    z_variance: Knots = 0.0
    smoothness: Knots = 0.0
    random_backdrop_step: int = 2000  # from which on a random colour may stand behind; negative: never
    random_backdrop_share: float = 0.5
    occupancy: int = 0  # cells a side of the occupancy grid; 0: none
    replay: int = 0  # renders that phi chooses from; 0: it sees the newest
    volume: FieldConfig = field(default_factory=FieldConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    cameras: CameraRange = field(default_factory=CameraRange)

    def side_at(self, step: int) -> int:
        """Pixels of the renders of a step."""
        return self.side_early if step < self.grow_step else self.side


class NerfStage:
    """n particles, one optimiser each, one phi."""

    name = "nerf"
    title = "NeRF"

    def __init__(self, config: NerfConfig, distiller: Distiller, streams: Streams, device: str) -> None:
        self.config, self.distiller, self.streams, self.device = config, distiller, streams, device
        self.steps = config.steps
        self.particles = [
            Field(config.volume, streams.at("field", index)).to(device) for index in range(config.particles)
        ]
        self.optimisers = [self._optimiser(particle) for particle in self.particles]
        self.renderer = Renderer(config.render)
        usual = 2 * config.volume.bound / max(1, config.render.samples)
        self.grids = [
            OccupancyGrid(config.occupancy, config.volume.bound, usual, device) if config.occupancy else None
            for _ in self.particles
        ]
        self.replay: list[tuple[Tensor, Views]] = []
        self.pace = 1.0

    def _optimiser(self, particle: Field) -> torch.optim.Optimizer:
        c = self.config
        groups = [
            {"params": [particle.table], "base": c.rate_grid},
            {"params": list(particle.decoder.parameters()), "base": c.rate_decoder},
            {"params": list(particle.behind.parameters()), "base": c.rate_background},
        ]
        kept = [group for group in groups if group["params"]]
        return torch.optim.Adam(kept, lr=c.rate_grid, betas=BETAS, eps=EPS)

    def step(self, index: int) -> dict[str, float]:
        """One step of algorithm 1. Returns what can be said of it."""
        c, streams = self.config, self.streams
        which = int(torch.randint(c.particles, (1,), generator=streams.at("particle", index)))
        particle, optimiser = self.particles[which], self.optimisers[which]
        grid = self._renewed_grid(which, index)
        views = draw_views(c.cameras, c.views, streams.at("camera", index), spread=True).to(self.device)
        told: dict[str, float] = {"particle": float(which)}
        kept: list[Tensor] = []

        def wanted(image: Tensor) -> Tensor:
            gradient, latents, push = self.distiller.look(image, views, index, streams)
            told.update(push.told)
            kept.append(latents)
            return gradient

        optimiser.zero_grad(set_to_none=True)
        self._pace(optimiser, index)
        _, weighed = self.renderer.backward(
            particle,
            views,
            c.side_at(index),
            wanted,
            self._regularisers(index),
            occupancy=grid,
            streams=streams.under("render", index),
            backdrop=random_backdrop(
                index, c.random_backdrop_step, c.random_backdrop_share, len(views), streams, self.device
            ),
        )
        optimiser.step()
        told["regularisers"] = float(weighed)
        loss = self.distiller.learn(*self._for_phi(kept[0], views, index), index, streams)
        return told if loss is None else {**told, "phi": loss}

    def _renewed_grid(self, which: int, index: int) -> OccupancyGrid | None:
        grid = self.grids[which]
        if grid is not None and index % EVERY == 0:
            for other, particle in zip(self.grids, self.particles, strict=True):
                assert other is not None
                other.update(particle, self.streams.at("occupancy", index))
        return grid

    def _pace(self, optimiser: torch.optim.Optimizer, index: int) -> None:
        """Rates of this step: constant, or falling over the last share of the steps."""
        falling = 1.0
        if self.config.decay_share:
            begun = self.steps * (1 - self.config.decay_share)
            falling = 1 - 0.9 * max(0.0, (index - begun) / (self.steps - begun))
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * falling * self.pace
        self.distiller.pace = self.pace

    def _regularisers(self, index: int) -> Regularisers:
        names = ("entropy", "opacity", "sparsity", "opaque", "z_variance", "smoothness")
        return Regularisers(**{name: scheduled_value(getattr(self.config, name), index) for name in names})

    def _for_phi(self, latents: Tensor, views: Views, index: int) -> tuple[Tensor, Views]:
        """What phi learns from: the newest renders, or some of the last ones."""
        if not self.config.replay:
            return latents, views
        for position in range(len(latents)):
            self.replay.append((latents[position], one_of(views, position)))
        self.replay = self.replay[-self.config.replay :]
        chosen = torch.randint(len(self.replay), (len(latents),), generator=self.streams.at("replay", index))
        picked = [self.replay[int(k)] for k in chosen]
        return torch.stack([x for x, _ in picked]), joined([v for _, v in picked])

    def healthy(self) -> bool:
        """Whether every number of the particles and of phi is one."""
        weights = (w for particle in self.particles for w in particle.parameters())
        return all_finite(weights) and self.distiller.healthy()

    def state(self) -> dict[str, Any]:
        """Everything that following steps depend on; random numbers follow from the step."""
        return {
            "pace": self.pace,
            "particles": [
                {name: value.detach().clone() for name, value in particle.state_dict().items()}
                for particle in self.particles
            ],
            "optimisers": [optimiser_state(optimiser) for optimiser in self.optimisers],
            "occupancy": [grid.densest.clone() for grid in self.grids if grid is not None],
            "replay": [{"latents": x.clone(), "views": views_state(v)} for x, v in self.replay],
            "distiller": self.distiller.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.pace = float(state["pace"])
        for particle, kept in zip(self.particles, state["particles"], strict=True):
            particle.load_state_dict(kept)
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            load_optimiser(optimiser, kept)
        for grid, kept in zip(self.grids, state["occupancy"], strict=False):
            if grid is not None:
                grid.densest = kept.to(self.device).clone()
        self.replay = [
            (row["latents"].to(self.device), views_from(row["views"]).to(self.device)) for row in state["replay"]
        ]
        self.distiller.load(state["distiller"])


def one_of(views: Views, index: int) -> Views:
    """A single camera of a batch."""
    part = slice(index, index + 1)
    return replace(views, c2w=views.c2w[part], fovy=views.fovy[part], theta=views.theta[part], phi=views.phi[part])


def joined(parts: list[Views]) -> Views:
    """One batch of several."""
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("c2w", "theta", "phi")}
    return Views(fovy=tuple(value for part in parts for value in part.fovy), **tensors)


def views_state(views: Views) -> dict[str, Any]:
    """A batch of cameras as tensors and numbers."""
    return {"c2w": views.c2w.clone(), "fovy": list(views.fovy), "theta": views.theta, "phi": views.phi}


def views_from(state: dict[str, Any]) -> Views:
    """Put back what `views_state` gave."""
    return Views(state["c2w"], tuple(state["fovy"]), state["theta"], state["phi"])
