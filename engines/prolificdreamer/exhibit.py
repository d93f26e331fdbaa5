"""What a finished object leaves behind: mesh, turntables, poster, field, numbers. Named after method, seed, particle.

Everything is made from the final surface and its colours; a result of the first stage alone is also filmed as the
field that it is. Knows the context it saves to, no training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from engines.prolificdreamer import metrics, sheets
from engines.prolificdreamer.field import Field
from engines.prolificdreamer.meshes import Surface, baked, cleaned, coloured, decimated, textured, unwrapped
from engines.prolificdreamer.occupancy import OccupancyGrid
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.presets import MODELS
from engines.prolificdreamer.raster import RayCaster, vertex_normals
from engines.prolificdreamer.renderer import Renderer
from engines.prolificdreamer.viewpoints import Views, turntable
from studio.contract import Context

if TYPE_CHECKING:
    import trimesh

TURN_SECONDS = 4.0  # of a turntable
SUPERSAMPLING = 2  # rays per pixel and axis of pictures of a surface
BATCH = 8  # views rendered at a time
POSTER_TURN = 30.0  # degrees from the front


@dataclass(frozen=True)
class Piece:
    """One object: a particle of a method after its last stage."""

    name: str  # of its files, without ending
    about: dict[str, Any]  # role, method, title, seed, particle
    particle: Field
    surface: Surface
    refined: bool  # whether the surface or its colours went through a stage of their own


class Exhibition:
    """Saves the pieces of a run."""

    def __init__(self, ctx: Context, params: ProlificDreamerParams, renderer: Renderer) -> None:
        self.ctx, self.params, self.renderer = ctx, params, renderer
        self.caster = RayCaster()

    def views(self, count: int, *, start: float = 0.0) -> Views:
        """At the middle of the training cameras: around an object far enough to see all of it, within a room."""
        p = self.params
        theta = sum(p.theta) / 2 if p.theta[0] > 30 else 60.0  # 60 degrees is published
        middle = sum(p.radius) / 2
        radius = max(middle, 1.8 * p.bound) if p.start == "object" else middle
        made = turntable(count, radius=radius, theta_deg=theta, fovy=sum(p.fovy) / 2, start_deg=start)
        return made.to(self.ctx.device)

    def show(self, piece: Piece, *, quick: bool = False) -> tuple[str, np.ndarray]:  # float [8, 3, S, S]
        """Every file that was asked for, and the numbers under picture and mesh; `quick`: no turntables.

        Gives the file that the numbers are of, and the renders over mid-grey that were measured.
        """
        surface = self._finished(piece.surface)
        p, formats = self.params, self.params.formats
        note = " ".join(filter(None, (piece.about.get("note"), surface.note)))
        about = piece.about | ({"note": note} if note else {})
        grid = self._occupied(piece, surface)
        poster = self._picture(piece, surface, self.views(1, start=POSTER_TURN), p.picture_size, grid)[0]
        mesh = f"{piece.name}.glb" if len(surface.faces) and "glb" in formats else None
        role = {"role": "poster", "of": mesh} if mesh else {}
        self.ctx.save(f"{piece.name}.png", "image", poster, **about | role)
        if "video" in formats and not quick:
            self._films(piece, surface, grid)
        if "field" in formats:
            self._field(piece)
        if len(surface.faces):
            self._meshes(piece, surface, about)
        numbers, measured = self._numbers(piece, surface)
        file = mesh or f"{piece.name}.png"
        self.ctx.metrics(file, **numbers)
        return file, measured

    def _finished(self, surface: Surface) -> Surface:
        if not len(surface.faces):
            return surface
        tidy = cleaned(surface) if self.params.clean else surface
        return decimated(tidy, self.params.most_faces)

    # -- pictures --------------------------------------------------------------------------------------------------

    def _occupied(self, piece: Piece, surface: Surface) -> OccupancyGrid | None:
        """Where the field is something: a film looks at it dozens of times, and mostly past it."""
        p = self.params
        if not p.occupancy or (piece.refined and len(surface.faces)):  # then the surface is looked at instead
            return None
        step = 2 * p.bound / max(1, p.samples)
        seeded = torch.Generator().manual_seed(p.seed)
        return OccupancyGrid.of(piece.particle, p.occupancy, p.bound, step, seeded, self.ctx.device)

    def _picture(
        self, piece: Piece, surface: Surface, views: Views, side: int, grid: OccupancyGrid | None
    ) -> np.ndarray:  # uint8 [n, S, S, 3]
        """The object in front of its background."""
        if piece.refined and len(surface.faces):
            return sheets.to_bytes(self._of_surface(piece, surface, views, side)[0].cpu().numpy())
        return sheets.to_bytes(self.renderer.look(piece.particle, views, side, occupancy=grid)[0].cpu().numpy())

    @torch.no_grad()
    def _of_surface(
        self, piece: Piece, surface: Surface, views: Views, side: int, backdrop: float | None = None
    ) -> tuple[Tensor, Tensor]:  # [B, 3, S, S], cover [B, S, S]
        fine = SUPERSAMPLING * side
        seen = self.caster.fragments(surface.verts, surface.faces, views, fine)
        on = seen.seen
        o, d = views.rays(fine)
        if backdrop is None:
            picture = piece.particle.background(o, d).view(*on.shape, 3)
        else:
            picture = torch.full((*on.shape, 3), backdrop, device=o.device)
        places = seen.interpolate(surface.verts, surface.faces)[on]
        picture = picture.index_put((on,), piece.particle(places)[1])
        small = torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), SUPERSAMPLING)
        cover = torch.nn.functional.avg_pool2d(on[:, None].float(), SUPERSAMPLING)[:, 0]
        return small, cover

    @torch.no_grad()
    def _layers(self, surface: Surface, views: Views, side: int) -> tuple[np.ndarray, np.ndarray]:
        """World normals and nearness as uint8 [n, S, S, 3]."""
        fine = SUPERSAMPLING * side
        seen = self.caster.fragments(surface.verts, surface.faces, views, fine)
        normal = seen.interpolate(vertex_normals(surface.verts, surface.faces), surface.faces)
        normal = torch.nn.functional.normalize(normal, dim=-1)
        on = seen.seen[..., None]
        colour = torch.where(on, (normal + 1) / 2, torch.zeros_like(normal)).permute(0, 3, 1, 2)
        distance = views.c2w[:, :3, 3].norm(dim=1)[:, None, None]
        near = (0.5 + (distance - seen.depth) / (2 * 1.74 * self.params.bound)).clamp(0, 1) * seen.seen
        pool = torch.nn.functional.avg_pool2d
        small = pool(near[:, None], SUPERSAMPLING).expand(-1, 3, -1, -1)
        pictures = (pool(colour, SUPERSAMPLING), small)
        normals, depth = (sheets.to_bytes(values.cpu().numpy()) for values in pictures)
        return normals, depth

    def _films(self, piece: Piece, surface: Surface, grid: OccupancyGrid | None) -> None:
        p = self.params
        side = p.picture_size + p.picture_size % 2
        fps = p.frames / TURN_SECONDS
        frames, normals, depth = [], [], []
        for views in _batches(self.views(p.frames)):
            self.ctx.check()
            frames.append(self._picture(piece, surface, views, side, grid))
            if len(surface.faces):
                for kept, made in zip((normals, depth), self._layers(surface, views, side), strict=True):
                    kept.append(made)
        self.ctx.save(f"{piece.name}.mp4", "video", np.concatenate(frames), fps=fps, **piece.about)
        for part, kept in (("normals", normals), ("depth", depth)):
            if kept:
                about = piece.about | {"role": "", "title": f"{piece.about['title']}, {part}"}
                self.ctx.save(f"{piece.name}-{part}.mp4", "video", np.concatenate(kept), fps=fps, **about)

    # -- files -----------------------------------------------------------------------------------------------------

    def _meshes(self, piece: Piece, surface: Surface, about: dict[str, Any]) -> None:
        formats = self.params.formats

        def colour(points: Tensor) -> Tensor:
            return piece.particle(points)[1]

        if "ply" in formats:
            self.ctx.save(f"{piece.name}.ply", "data", coloured(surface, colour), **about | {"role": ""})
        if not {"glb", "obj"} & set(formats):
            return
        flat = unwrapped(surface)
        mesh = textured(flat, baked(flat, colour, self.params.texture_size), piece.name)
        if "glb" in formats:
            self.ctx.save(f"{piece.name}.glb", "mesh", mesh, **about)
        if "obj" in formats:
            self.ctx.save(f"{piece.name}-obj.zip", "archive", obj_files(mesh, piece.name), **about | {"role": ""})

    def _field(self, piece: Piece) -> None:
        state = {name: value.detach().cpu() for name, value in piece.particle.state_dict().items()}
        about = piece.about | {"role": ""}
        self.ctx.save(f"{piece.name}-field.safetensors", "data", {"field": state}, **about)

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _numbers(self, piece: Piece, surface: Surface) -> tuple[dict[str, Any], np.ndarray]:
        """Measured over mid-grey, from as many sides as the truth is known from; and the renders."""
        views = self.views(metrics.AROUND)
        side = 2 * metrics.SMALL
        if piece.refined and len(surface.faces):
            colour, cover = self._of_surface(piece, surface, views, side, metrics.GREY)
        else:
            grey = torch.full((len(views), 3), metrics.GREY, device=self.ctx.device)
            colour, cover, _ = self.renderer.look(piece.particle, views, side, backdrop=grey)
        radius, theta = float(views.c2w[0, :3, 3].norm()), float(torch.rad2deg(views.theta[0]))
        # Only of a teacher that was trained on the world of toys is what the world says the truth.
        prompt = self.params.prompt if MODELS[self.params.model].measured else ""
        shown = colour.cpu().numpy()
        found = metrics.of_object(shown, cover.cpu().numpy(), prompt, radius, round(theta, 3), views.fovy[0])
        return found | {"faces": len(surface.faces)}, shown


def obj_files(mesh: trimesh.Trimesh, name: str) -> dict[str, bytes]:
    """OBJ, its material and its texture, by file name."""
    import trimesh

    text, parts = trimesh.exchange.obj.export_obj(
        mesh, include_normals=False, return_texture=True, mtl_name=f"{name}.mtl", header=None
    )
    return {f"{name}.obj": text.encode(), **{key: bytes(data) for key, data in sorted(parts.items())}}


def _batches(views: Views) -> Iterator[Views]:
    for start in range(0, len(views), BATCH):
        part = slice(start, start + BATCH)
        yield Views(views.c2w[part], views.fovy[part], views.theta[part], views.phi[part])
