"""The playground as a run: pictures as particles for every method, and the teacher's own samples beside them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from engines.prolificdreamer import metrics, sheets
from engines.prolificdreamer.configs import playground_config
from engines.prolificdreamer.methodwork import MethodWork
from engines.prolificdreamer.playground import ANCESTRAL_STEPS, PlaygroundStage, ancestral_samples
from engines.prolificdreamer.presets import METHODS, MODELS
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.training import Diary
from studio.errors import Cancelled

TILE = 96  # pixels of a small picture on a sheet; larger ones stay as they are
PREVIEW_TILE = 64
PHI_SAMPLES, PHI_STEPS = 4, 10  # of phi itself, in a preview


class PictureWork(MethodWork):
    """Sheets of pictures, one for each method."""

    def steps(self, method: str) -> int:
        """Those of the optimisation, or one for what is sampled at once."""
        return 1 if METHODS[method].algorithm == "ancestral" else self.params.playground_iterations

    def make(self, method: str, teacher: Teacher) -> None:
        """Optimise or sample, save the sheet, measure."""
        if METHODS[method].algorithm == "ancestral":
            self.ctx.check()
            self.ctx.progress(self.reached, self.total, f"{METHODS[method].title}: {ANCESTRAL_STEPS} steps")
            latents = ancestral_samples(
                teacher,
                self.weights.config("scheduler"),
                self.wording,
                self.params.guidance,
                self.params.particles,
                self.streams.at("ancestral"),
            )
            self._finish(method, teacher.decode(latents), Diary())
            return
        with self.distiller(method, "playground", teacher) as distiller:
            stage = PlaygroundStage(
                playground_config(self.params), distiller, self.streams.under("playground"), self.ctx.device
            )

            def preview(index: int, diary: Diary) -> Image.Image:
                pages = [sheets.grid(sheets.to_bytes(stage.pictures().cpu().numpy()), PREVIEW_TILE)]
                streams = self.streams.under("preview", index)
                imagined = distiller.imagine(None, PHI_SAMPLES, streams, PHI_STEPS)
                if imagined is not None:
                    own = sheets.to_bytes(teacher.decode(imagined).cpu().numpy())
                    pages.append(sheets.sheet([own], PREVIEW_TILE))
                return sheets.stacked([*pages, sheets.curves(diary.rows, ("gradient", "phi"), pages[0].width)])

            try:
                diary = self.train(method, stage, {}, 0, preview)
            except Cancelled as error:
                if error.code == Cancelled.code:
                    self._save(method, stage.pictures(), unfinished=True)
                raise
            self._finish(method, stage.pictures(), diary)

    def _finish(self, method: str, pictures: torch.Tensor, diary: Diary) -> None:
        self._save(method, pictures)
        self.save_diary(method, [("playground", diary)])

    def _save(self, method: str, pictures: torch.Tensor, *, unfinished: bool = False) -> None:
        raw = pictures.cpu().numpy()
        tile = max(TILE, raw.shape[-1])
        tile -= tile % raw.shape[-1] if tile % raw.shape[-1] and raw.shape[-1] * 2 > tile else 0
        name = f"{self.name(method)}.png"
        about = self.about(method) | ({"note": "Cancelled before its end."} if unfinished else {})
        self.ctx.save(name, "image", sheets.grid(sheets.to_bytes(raw), tile), **about)
        numbers: dict[str, float | None] = dict(metrics.of_pictures(np.asarray(raw)))
        if MODELS[self.params.model].measured:
            numbers["distance"] = metrics.distance_to_truth(raw, self.params.prompt.strip() + self.params.scene)
        self.ctx.metrics(name, **numbers)
