"""The third stage: the colours of a finished surface, by variational score distillation.

ProlificDreamer (arXiv 2305.16213), section 4.3. The geometry does not move, so it is extracted once, and what a
camera sees of it is a lookup; the colours are those of the first stage's field to begin with. Knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engines.prolificdreamer.distillation import Distiller, all_finite, load_optimiser, optimiser_state
from engines.prolificdreamer.field import Field
from engines.prolificdreamer.meshes import Surface
from engines.prolificdreamer.raster import Rasteriser, pooled
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.viewpoints import CameraRange, Views, draw_views, random_backdrop


@dataclass(frozen=True)
class TextureConfig:
    """The third stage; the defaults are what the released scripts do in effect: their counters go on from stage 2."""

    steps: int = 15_000
    views: int = 1
    side: int = 512
    supersampling: int = 1  # rays per pixel and axis, averaged
    rate_grid: float = 1e-2
    rate_decoder: float = 1e-3
    rate_background: float = 1e-3
    random_backdrop_step: int = 0
    random_backdrop_share: float = 0.5
    cameras: CameraRange = field(default_factory=CameraRange)


class TextureStage:
    """A field asked for colours on a fixed surface only."""

    name = "texture"
    title = "texture"

    def __init__(
        self,
        config: TextureConfig,
        surface: Surface,
        particle: Field,
        distiller: Distiller,
        rasteriser: Rasteriser,
        streams: Streams,
    ) -> None:
        self.config, self.surface, self.particle, self.distiller = config, surface, particle, distiller
        self.rasteriser, self.streams, self.steps, self.pace = rasteriser, streams, config.steps, 1.0
        groups = [
            {"params": [particle.table], "base": config.rate_grid},
            {"params": list(particle.decoder.parameters()), "base": config.rate_decoder},
            {"params": list(particle.behind.parameters()), "base": config.rate_background},
        ]
        kept = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.Adam(kept, lr=config.rate_grid, betas=(0.9, 0.99), eps=1e-15)

    def step(self, index: int) -> dict[str, float]:
        """As a step of the first stage, without a volume and without regularisers."""
        c = self.config
        device = str(self.surface.verts.device)
        views = draw_views(c.cameras, c.views, self.streams.at("camera", index), spread=True).to(device)
        behind = random_backdrop(
            index, c.random_backdrop_step, c.random_backdrop_share, len(views), self.streams, device
        )
        picture = self.look(views, c.side, behind)
        gradient, latents, push = self.distiller.look(picture, views, index, self.streams)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * self.pace
        self.distiller.pace = self.pace
        self.optimiser.zero_grad(set_to_none=True)
        (picture * gradient).sum().backward()
        self.optimiser.step()
        loss = self.distiller.learn(latents, views, index, self.streams)
        return push.told if loss is None else {**push.told, "phi": loss}

    def look(self, views: Views, side: int, backdrop: Tensor | None = None) -> Tensor:  # [B, 3, S, S] in [0, 1]
        """The coloured surface over its background, or over one colour a picture [B, 3]."""
        fine = side * self.config.supersampling
        seen = self.rasteriser.fragments(self.surface.verts, self.surface.faces, views, fine)
        on = seen.seen
        places = seen.interpolate(self.surface.verts, self.surface.faces)
        o, d = views.rays(fine)
        if backdrop is None:
            picture = self.particle.background(o, d).view(*on.shape, 3)
        else:
            picture = backdrop[:, None, None].expand(*on.shape, 3)
        picture = picture.index_put((on,), self.colour(places[on]))
        picture = self.rasteriser.smoothed(picture, self.surface.verts, self.surface.faces, views)
        return pooled(picture, side)

    def colour(self, points: Tensor) -> Tensor:  # [M, 3] -> [M, 3] in [0, 1]
        """Of points on the surface."""
        return self.particle(points)[1]

    def healthy(self) -> bool:
        """Whether every number of the field and of phi is one."""
        return all_finite(self.particle.parameters()) and self.distiller.healthy()

    def state(self) -> dict[str, Any]:
        """Everything that following steps depend on."""
        return {
            "pace": self.pace,
            "particle": {name: value.detach().clone() for name, value in self.particle.state_dict().items()},
            "surface": {"verts": self.surface.verts, "faces": self.surface.faces},
            "optimiser": optimiser_state(self.optimiser),
            "distiller": self.distiller.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.pace = float(state["pace"])
        self.particle.load_state_dict(state["particle"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.distiller.load(state["distiller"])
