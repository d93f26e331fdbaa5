"""Objects as a run: stages one after another for every method, and what each of them leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from engines.prolificdreamer import metrics, sheets
from engines.prolificdreamer.configs import (
    field_config,
    geometry_config,
    nerf_config,
    render_config,
    stages_of,
    steps_of,
    texture_config,
)
from engines.prolificdreamer.exhibit import Exhibition, Piece
from engines.prolificdreamer.field import Field
from engines.prolificdreamer.geometry import EmptyField, GeometryStage, Shape, shape_from
from engines.prolificdreamer.meshes import Surface, extract, lowered_note
from engines.prolificdreamer.methodwork import MethodWork
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.particles import NerfStage
from engines.prolificdreamer.presets import METHODS
from engines.prolificdreamer.raster import rasteriser
from engines.prolificdreamer.renderer import Renderer
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.texture import TextureStage
from engines.prolificdreamer.training import Diary
from studio.contract import Context, FileRef
from studio.errors import Cancelled, InvalidInput

PREVIEW_VIEWS, PREVIEW_SIDE, TILE = 4, 48, 96
PHI_STEPS = 10  # of phi's own sample in a preview


@dataclass
class Carried:
    """What finished stages of a method leave to the later ones."""

    fields: list[dict[str, Any]] = field(default_factory=list)  # state of every particle
    surfaces: dict[str, dict[str, Any]] = field(default_factory=dict)  # by particle
    notes: dict[str, str] = field(default_factory=dict)  # by particle
    steps: int = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "fields": list(self.fields),
            "surfaces": dict(self.surfaces),
            "notes": dict(self.notes),
            "steps": self.steps,
        }


class ObjectWork(MethodWork):
    """Fields, surfaces and colours."""

    def __init__(self, ctx: Context, params: ProlificDreamerParams) -> None:
        super().__init__(ctx, params)
        self.rasteriser = rasteriser(params.rasteriser, ctx.device)
        self.exhibition = Exhibition(ctx, params, Renderer(render_config(params, ctx.plan)))
        self.diaries: list[tuple[str, Diary]] = []

    def steps(self, method: str) -> int:
        """Of all stages and particles."""
        return sum(steps_of(self.params, part) for part, _ in stages_of(self.params))

    def make(self, method: str, teacher: Teacher) -> None:
        """One method from the first stage to its files."""
        carried, self.diaries, first = self._earlier(method)
        try:
            for position, (part, particle) in enumerate(stages_of(self.params)):
                if position < first:
                    continue
                try:
                    {"nerf": self._nerf, "geometry": self._geometry, "texture": self._texture}[part](
                        method, teacher, carried, position, particle
                    )
                except EmptyField as error:  # the field itself is shown, and others have more to show
                    carried.notes[str(particle)] = str(error)
                carried.steps += steps_of(self.params, part)
        except Cancelled as error:
            if error.code == Cancelled.code and carried.fields:
                self._export(method, carried, note="Cancelled before its end.", quick=True)
            raise
        self._export(method, carried)
        self.save_diary(method, self.diaries)

    def _earlier(self, method: str) -> tuple[Carried, list[tuple[str, Diary]], int]:
        """What an earlier attempt at this method left, and the stage it had come to."""
        kept = self.resumed
        if kept.get("method") != method:
            return Carried(), [], 0
        before = kept["before"]
        carried = Carried(before["fields"], before["surfaces"], before["notes"], int(before["steps"]))
        diaries = [(title, Diary.restored(state)) for title, state in before["diaries"]]
        return carried, diaries, int(kept["position"])

    def _before(self, carried: Carried) -> dict[str, Any]:
        return {**carried.state(), "diaries": [[title, diary.state()] for title, diary in self.diaries]}

    # -- stages ----------------------------------------------------------------------------------------------------

    def _nerf(self, method: str, teacher: Teacher, carried: Carried, position: int, _particle: int) -> None:
        with self.distiller(method, "nerf", teacher) as distiller:
            stage = NerfStage(
                nerf_config(self.params, self.ctx.plan), distiller, self.streams.under("nerf"), self.ctx.device
            )
            if self.params.start_from is not None and not self.resumed:
                self._go_on(stage, method, self.params.start_from)

            def preview(index: int, diary: Diary) -> Image.Image:
                views = self.exhibition.views(PREVIEW_VIEWS)
                looks = [
                    stage.renderer.look(p, views, PREVIEW_SIDE, occupancy=g)[0]
                    for p, g in zip(stage.particles, stage.grids, strict=True)
                ]
                rows = [sheets.to_bytes(image.cpu().numpy()) for image in looks]
                imagined = distiller.imagine(views, PREVIEW_VIEWS, self.streams.under("nerf", index), PHI_STEPS)
                if imagined is not None:
                    rows.append(sheets.to_bytes(teacher.decode(imagined).cpu().numpy()))
                page = sheets.sheet(rows, TILE)
                return sheets.stacked([page, sheets.curves(diary.rows, ("gradient", "phi"), page.width)])

            try:
                diary = self.train(method, stage, self._before(carried), position, preview)
            except Cancelled:
                carried.fields = stage.state()["particles"]  # there is something to keep
                raise
            if "training" in self.params.formats:
                state = {"steps": diary.done, "stage": stage.state(), "field": field_state(self.params)}
                state["method"] = method
                name = f"{self.name(method)}-training.safetensors"
                self.ctx.save(name, "data", state, **self.about(method) | {"role": ""})
        carried.fields = stage.state()["particles"]
        self.diaries.append(("nerf", diary))

    def _go_on(self, stage: NerfStage, method: str, start: FileRef) -> None:
        """Begin where an earlier result ended, if it is of the same kind and there is something left to do."""
        kept = self.ctx.input_state(start.sha256)
        if not {"steps", "stage", "field"} <= kept.keys():
            raise InvalidInput(
                "This is no training file.", "Give the one whose name ends in -training.", field="start_from"
            )
        if kept.get("method", method) != method:
            raise InvalidInput(
                f"The training file is of {METHODS[kept['method']].title}, not of {METHODS[method].title}.",
                "Choose the method it came from.",
                field="methods",
            )
        if kept["field"] != field_state(self.params):
            raise InvalidInput(
                "The training file is of a field of other sizes.",
                "Use the settings of the result it came from.",
                field="start_from",
            )
        done, later = int(kept["steps"]), self.params.stages != ("nerf",)
        if done > stage.steps or (done == stage.steps and not later):
            each, rest = divmod(done, self.params.particles)  # steps are said for one particle
            later_too = "" if rest else f", or for {each} and later stages"
            raise InvalidInput(
                f"The training file has {done} steps already; {stage.steps} are asked for.",
                f"Ask for {each + 1} or more{later_too}.",
                field="iterations",
            )
        # Handed to `train` as if it were a checkpoint of this stage.
        self.resumed = {
            "method": method,
            "position": 0,
            "done": done,
            "stage": kept["stage"],
            "diary": Diary(done=done).state(),
        }

    def _geometry(self, method: str, teacher: Teacher, carried: Carried, position: int, particle: int) -> None:
        config = geometry_config(self.params)
        shape, used = self._shape(carried, particle)
        streams = self.streams.under("geometry", particle)
        with self.distiller(method, "geometry", teacher, particle) as distiller:
            stage = GeometryStage(config, shape, distiller, self.rasteriser, streams)

            def preview(index: int, diary: Diary) -> Image.Image:
                verts, faces = (part.detach() for part in shape.surface())
                picture = stage.normals(verts, faces, self.exhibition.views(PREVIEW_VIEWS), PREVIEW_SIDE)
                page = sheets.sheet([sheets.to_bytes(picture.detach().cpu().numpy())], TILE)
                return sheets.stacked([page, sheets.curves(diary.rows, ("gradient", "smoothness"), page.width)])

            diary = self.train(method, stage, self._before(carried), position, preview)
        surface = stage.result(used)
        carried.surfaces[str(particle)] = {"verts": surface.verts, "faces": surface.faces, "threshold": used}
        if used != config.threshold:
            carried.notes[str(particle)] = lowered_note(config.threshold, used)
        self.diaries.append((f"geometry {particle + 1}", diary))

    def _shape(self, carried: Carried, particle: int) -> tuple[Shape, float]:
        """The start of the second stage, again the same in a later attempt."""
        source = self._field(carried, particle)
        return shape_from(
            source.density, self.params.threshold, self.params.mesh_grid, self.params.bound, self.ctx.device
        )

    def _texture(self, method: str, teacher: Teacher, carried: Carried, position: int, particle: int) -> None:
        surface = self._surface(carried, particle)
        if not len(surface.faces):
            raise EmptyField.to("be coloured")
        source = self._field(carried, particle)
        if str(particle) not in carried.surfaces:  # what is coloured is kept: colours change the field it came from
            verts, faces = surface.verts.cpu(), surface.faces.cpu()
            carried.surfaces[str(particle)] = {"verts": verts, "faces": faces, "threshold": surface.threshold}
            carried.notes[str(particle)] = surface.note
        streams = self.streams.under("texture", particle)
        with self.distiller(method, "texture", teacher, particle) as distiller:
            stage = TextureStage(texture_config(self.params), surface, source, distiller, self.rasteriser, streams)

            def preview(index: int, diary: Diary) -> Image.Image:
                views = self.exhibition.views(PREVIEW_VIEWS)
                with torch.no_grad():
                    rows = [sheets.to_bytes(stage.look(views, PREVIEW_SIDE).cpu().numpy())]
                imagined = distiller.imagine(views, PREVIEW_VIEWS, streams.under("preview", index), PHI_STEPS)
                if imagined is not None:
                    rows.append(sheets.to_bytes(teacher.decode(imagined).cpu().numpy()))
                page = sheets.sheet(rows, TILE)
                return sheets.stacked([page, sheets.curves(diary.rows, ("gradient", "phi"), page.width)])

            diary = self.train(method, stage, self._before(carried), position, preview)
        carried.fields[particle] = stage.state()["particle"]
        self.diaries.append((f"texture {particle + 1}", diary))

    # -- what is left behind -----------------------------------------------------------------------------------------

    def _field(self, carried: Carried, particle: int) -> Field:
        made = Field(field_config(self.params), self.streams.at("field", particle)).to(self.ctx.device)
        made.load_state_dict(carried.fields[particle])
        return made

    def _surface(self, carried: Carried, particle: int) -> Surface:
        """That of the second stage, else the field's own."""
        kept = carried.surfaces.get(str(particle))
        if kept is not None:
            note = carried.notes.get(str(particle), "")
            device = self.ctx.device
            return Surface(kept["verts"].to(device), kept["faces"].to(device), float(kept["threshold"]), note)
        p = self.params
        return extract(self._field(carried, particle).density, p.threshold, p.mesh_grid, p.bound, self.ctx.device)

    def _export(self, method: str, carried: Carried, *, note: str = "", quick: bool = False) -> None:
        """The files of every particle, and how much they differ; `quick` leaves out what takes long."""
        seen = []
        for particle in range(self.params.particles):
            name = self.name(method, particle)
            self.ctx.progress(
                self.reached + self.steps(method), self.total, f"{self.about(method)['title']}: making the files"
            )
            empty = carried.notes.get(str(particle), "") if str(particle) not in carried.surfaces else ""
            said = " ".join(filter(None, (note, empty)))
            about = self.about(method, particle=particle + 1) | ({"note": said} if said else {})
            if self.params.particles > 1:
                about["title"] += f", particle {particle + 1}"
            refined = "texture" in self.params.stages or str(particle) in carried.surfaces
            piece = Piece(name, about, self._field(carried, particle), self._surface(carried, particle), refined)
            seen.append(self.exhibition.show(piece, quick=quick))
        if len(seen) > 1:
            mean, least = metrics.variety_of_objects([renders for _, renders in seen])
            for file, _ in seen:  # said of all of them together
                self.ctx.metrics(file, variety=mean, least_variety=least)


def field_state(params: ProlificDreamerParams) -> dict[str, Any]:
    """What has to be equal for a training file to fit."""
    config = field_config(params)
    shape = ("bound", "levels", "features", "base", "finest", "log2_table", "hidden", "start", "background")
    meaning = ("model", "particles", "estimator", "rank", "occupancy", "blob_scale", "blob_radius", "interpolation")
    return {name: getattr(config, name) for name in shape} | {name: getattr(params, name) for name in meaning}
