"""The Pocket lab, top to bottom: draw the words with the model, show them in the world, judge both, find neighbours.

A job makes a few pictures, each from a seed of its own and each whole before the next is begun; a killed run goes on
after the last whole one and gives the same bytes. Knows no page and no store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engines.text2image.judge import shipped as shipped_judge
from engines.text2image.judge import to_tensor
from engines.text2image.metrics import (
    about_toys,
    agreement,
    described,
    layers,
    nearest,
    pictures_of,
    row,
    wanted,
    world_scene,
)
from engines.text2image.neighbours import shipped as shipped_index
from engines.text2image.pipeline import PARTS, Weights, lend_clip, locate
from engines.text2image.presets import MODELS
from engines.text2image.sampling import draw
from engines.text2image.spec import Text2ImageParams, seeds_of, validate
from studio.contract import Context

NEIGHBOURS = 3  # training pictures shown beside a picture
LAYER_SIDE = 160  # pixels of the layers, which the world can show at any size
ENLARGED = 3  # pixels a training picture's pixel is shown with


@torch.no_grad()
def run(ctx: Context, params: Text2ImageParams) -> None:
    """Make every picture that was asked for."""
    validate(params)
    ctx.check()
    work = _Work(ctx, params)
    whole, _ = ctx.resume() or (0, {})
    for place, seed in enumerate(seeds_of(params)):
        if place < whole:
            continue
        work.reached = place * work.each
        if "model" in params.methods:
            work.model_picture(seed)
        if "world" in params.methods and work.spec is not None:
            work.world_picture(seed)
        ctx.checkpoint(place + 1, {})
        ctx.progress((place + 1) * work.each, work.total, f"Picture {place + 1} of {params.count}: done")
        ctx.check()


class _Work:
    """One run: its model, what its prompt says, and how far it has come."""

    def __init__(self, ctx: Context, params: Text2ImageParams) -> None:
        self.ctx, self.params = ctx, params
        self.model = MODELS[params.model]
        self.spec = wanted(params.prompt)
        if self.spec is None and "model" not in params.methods:
            world_scene(params.prompt, params.seed)  # says why nothing can be shown
        self.weights: Weights | None = locate(params.model, ctx.weights) if "model" in params.methods else None
        self.each = params.steps + 2  # reports of one picture
        self.total = params.count * self.each
        self.reached = 0

    def model_picture(self, seed: int) -> None:
        """What the model draws."""
        assert self.weights is not None
        picture = self._drawn(self.weights, seed)
        self.ctx.progress(self.reached, self.total, "Judging the picture", preview=Image.fromarray(picture))
        self._keep("picture", "method", "model", self.model.title, seed, picture)

    def world_picture(self, seed: int) -> None:
        """What the world shows for the same words."""
        self.reached += 1
        self.ctx.progress(self.reached, self.total, "The world: rendering")
        scene = world_scene(self.params.prompt, seed)
        self._keep("world", "baseline", "world", "The world itself", seed, pictures_of([scene], self.model.side)[0])
        if self.params.layers:
            title = "The world: render, depth, normals, place on the toy, paints"
            picture = Image.fromarray(layers(scene, LAYER_SIDE))
            self.ctx.save(f"layers-{seed}.png", "image", picture, role="plot", title=title, seed=seed)

    def _drawn(self, weights: Weights, seed: int) -> np.ndarray:  # uint8 [S, S, 3]
        """One picture from one seed; its progress is counted on from `reached`."""
        p, start = self.params, self.reached
        self.ctx.progress(start, self.total, "Reading the prompt")

        def on_step(done: int) -> None:
            self.reached = start + done
            self.ctx.progress(self.reached, self.total, f"Seed {seed}: step {done} of {p.steps}")
            self.ctx.check()

        with weights.lend(self.ctx, *PARTS) as parts:
            return draw(
                parts,
                p.sampler,
                p.prompt,
                p.negative_prompt,
                self.model.side,
                p.steps,
                p.guidance,
                self.ctx.generator(seed),
                on_step,
            )

    def _keep(self, name: str, role: str, method: str, title: str, seed: int, picture: np.ndarray) -> None:
        """Store a picture with its numbers, and beside it the training pictures that are nearest."""
        file = f"{name}-{seed}.png"
        self.ctx.save(file, "image", Image.fromarray(picture), role=role, method=method, title=title, seed=seed)
        numbers = self._judged(picture)
        if self.params.nearest:
            found = nearest(picture, shipped_index(Path(self.model.index)), NEIGHBOURS)
            numbers["distance"] = round(found[0].distance, 2)
            sheet = row([picture, *(each.picture for each in found)], ENLARGED)
            beside = f"{title}, and the training pictures nearest to it"
            name = f"nearest-{name}-{seed}.png"
            seeds = [each.seed for each in found]
            self.ctx.save(name, "image", Image.fromarray(sheet), role="plot", title=beside, seed=seed, nearest=seeds)
        if numbers:
            self.ctx.metrics(file, **numbers)

    def _judged(self, picture: np.ndarray) -> dict[str, Any]:  # uint8 [S, S, 3]
        """What can be said of a picture; of people nothing, and nothing where no judge knows what a model draws."""
        if not self.model.judge and not self.model.clip:
            return {}
        if self.spec is not None and not about_toys(self.spec):
            return {"caption": "understood; people are shown but not judged"}
        numbers: dict[str, Any] = {"clip": self._clip(picture)} if self.model.clip else {}
        if not self.model.judge:
            return numbers
        judge = shipped_judge(Path(self.model.judge))
        (seen,) = judge(picture[None])
        numbers["seen"] = described(seen)
        if not about_toys(self.spec):
            return {**numbers, "caption": "not of the world's grammar, so nothing can be compared"}
        return {**agreement(self.spec, seen, judge.sided), **numbers, "caption": "understood"}

    def _clip(self, picture: np.ndarray) -> float:  # uint8 [S, S, 3]
        """Cosine between the picture and the prompt."""
        with lend_clip(self.ctx, Path(self.model.clip)) as (model, words):
            tokens = words(self.params.prompt, truncation=True, padding="max_length", return_tensors="pt").input_ids
            pixels = to_tensor(picture[None]).to(self.ctx.device)
            found = model(input_ids=tokens.to(self.ctx.device), pixel_values=pixels)
        return round(float((found.image_embeds * found.text_embeds).sum()), 4)
