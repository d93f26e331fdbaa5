"""UltraViCo, top to bottom: install positions or decay, denoise the whole length at once, decode, measure, explain.

Every chosen method and baseline is sampled from the same noise. What a method is, is in `methods.py`; the loop is in
`sampling.py`. A killed run goes on from its newest checkpoint and gives the same bytes. Knows no page and no store.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from engines.ultravico.attention import Way, best_way
from engines.ultravico.diagnosis import reading
from engines.ultravico.estimate import ROWS
from engines.ultravico.families import Condition, Shape, WanImageFamily, tiled
from engines.ultravico.hooks import decayed, positions
from engines.ultravico.methods import decay_for, position_rule
from engines.ultravico.metrics import measure
from engines.ultravico.pipeline import Weights, locate
from engines.ultravico.plot import COLUMNS, contact_sheet, pattern_plot, thumbnails
from engines.ultravico.presets import METHODS
from engines.ultravico.report import diagram, pattern_numbers
from engines.ultravico.sampling import Level, Moment, OnStep, denoise, scheduler_like
from engines.ultravico.spec import UltraVicoParams, decay_of, length_of, size_of, validate
from studio.contract import Context
from studio.errors import InvalidInput

PREVIEWS = 8  # previews of one video at most: its middle frame, from the predicted clean latents
CHECKPOINTS = 4  # checkpoints of one video


@torch.no_grad()
def run(ctx: Context, params: UltraVicoParams) -> None:
    """Make one video with every chosen method, from one seed."""
    validate(params)
    ctx.check()
    work = _Work(ctx, params)
    for method in params.methods:
        if method in work.rows:
            work.reached += params.steps + 1
        else:
            work.finish(method, work.sample(method))
    work.explain()


class _Work:
    """One run: its weights, its sizes, and how far it has come."""

    def __init__(self, ctx: Context, params: UltraVicoParams) -> None:
        self.ctx, self.params = ctx, params
        self.weights: Weights = locate(params.model, ctx.weights)
        self.model, self.family = self.weights.source, self.weights.family
        length, (width, height) = length_of(params), size_of(params)
        self.shape = Shape(length.latent_frames, length.frames, height, width)
        self.tokens_per_frame = self.family.tokens_per_frame(self.shape)
        self.fps = params.fps or self.model.fps
        self.total = len(params.methods) * (params.steps + 1) + 1
        self.reached = 0
        _, state = ctx.resume() or (0, {})
        self.part, self.moment = state.get("part", ""), state.get("moment", {})
        self.rows: dict[str, np.ndarray] = state.get("rows", {})  # thumbnails of the videos that are done
        self.pattern: dict[str, Tensor] = state.get("pattern", {})
        self.read_from = "direct" if "direct" in params.methods else params.methods[0]
        self.read_at = params.steps // 2  # in the step after the middle of a run
        self._check_positions()
        self.conditions = self._encode()

    def _check_positions(self) -> None:
        """The preset knows its own model; a folder in its place may hold another."""
        changed = [name for name in self.params.methods if METHODS[name].position != "pe"]
        if changed and not self.family.rotary:
            raise InvalidInput(
                f"{self.weights.folder.name} has no rotary positions that {METHODS[changed[0]].title} could change.",
                "Choose UltraViCo and direct sampling.",
                field="methods",
            )

    # -- conditions ------------------------------------------------------------------------------------------------

    def _encode(self) -> list[Condition]:
        """All prompts at once, so that the text encoders are needed once and can leave the device."""
        p, device = self.params, self.ctx.device
        self.ctx.progress(0, self.total, "Reading the prompt")
        with self.weights.lend(self.ctx, *self.family.text_parts) as parts:
            two = self.model.two_branches and p.guidance > 1
            texts = [p.prompt, p.negative_prompt] if two else [p.prompt]
            conditions = [self.family.encode(parts, [text], device) for text in texts]
        self.ctx.check()
        return self._with_picture(conditions) if isinstance(self.family, WanImageFamily) else conditions

    def _with_picture(self, conditions: list[Condition]) -> list[Condition]:
        """What is known of the picture the video starts from, on every branch."""
        assert isinstance(self.family, WanImageFamily)
        self.ctx.progress(0, self.total, "Looking at the picture")
        assert self.params.image is not None  # validated
        given = Image.open(io.BytesIO(self.ctx.input(self.params.image.sha256)))
        picture = ImageOps.exif_transpose(given).convert("RGB")
        picture = ImageOps.fit(picture, (self.shape.width, self.shape.height), Image.Resampling.LANCZOS)
        with self.weights.lend(self.ctx, *self.family.image_parts) as parts:
            seen = self.family.see(parts, picture, self.ctx.device).to(conditions[0].embeds.dtype)
        with self.weights.lend(self.ctx, "vae") as parts:
            with tiled(parts["vae"], self.ctx.plan != "fast"):
                known = self.family.first_frame(parts["vae"], picture, self.shape, self.ctx.device)
        self.ctx.check()
        return [replace(one, image=seen, frames=known) for one in conditions]

    # -- one video -------------------------------------------------------------------------------------------------

    def sample(self, method: str) -> Tensor:
        """Clean latents of one method, from the seed's noise or from the checkpoint of this method."""
        p, family = self.params, self.family
        with self.weights.lend(self.ctx, "transformer", "scheduler") as parts, ExitStack() as stack:
            transformer = parts["transformer"]
            rotary = (family.temporal_dim, family.theta, self.shape.latent_frames)
            rule = position_rule(method, p, *rotary)
            decay = decay_for(method, p, self.tokens_per_frame, rule, *rotary)
            level = Level()
            if rule is not None and not family.table_outside:
                stack.enter_context(positions(transformer, lambda: rule(level.value)))
            video_tokens = self.tokens_per_frame * self.shape.latent_frames
            if decay is not None:
                stack.enter_context(decayed(transformer, decay, self.way.path, video_tokens))
            generator = self.ctx.generator(p.seed)
            scheduler = scheduler_like(parts["scheduler"], self.model, p.shift)
            moment = self._first_moment(method, generator, scheduler)
            return denoise(
                family,
                transformer,
                scheduler,
                p.steps,
                moment,
                self.conditions,
                p.guidance,
                generator,
                self._on_step(method, moment.step),
                rule=rule,
                level=level,
                during=lambda step: (
                    self._read(transformer) if step == self.read_at and method == self.read_from else nullcontext()
                ),
            )

    @cached_property
    def way(self) -> Way:
        """How decayed attention is computed here."""
        dtype = getattr(torch, self.model.dtype)
        return best_way(self.ctx.device, dtype, self.family.head_dim, ROWS[self.ctx.plan])

    def _first_moment(self, method: str, generator: torch.Generator, scheduler: Any) -> Moment:
        if self.part == method:
            moment = Moment.unpacked(self.moment, self.ctx.device)
            self.reached += moment.step
            return moment
        embeds = self.conditions[0].embeds
        dtype = self.family.noise_dtype(embeds)
        noise = self.family.draw_noise(self.shape, [generator], self.ctx.device, dtype)
        return Moment(noise * getattr(scheduler, "init_noise_sigma", 1.0))

    @contextmanager
    def _read(self, transformer: Any) -> Iterator[None]:
        """Read the attention pattern off the passes inside the block."""
        family = self.family
        tokens = self.tokens_per_frame * self.shape.latent_frames
        with reading(transformer, family.temporal_dim, family.heads, tokens) as found:
            yield
        amplitude, phase = found.result()
        self.pattern = {"amplitude": amplitude, "phase": phase}

    def _on_step(self, method: str, start: int) -> OnStep:
        """Progress and cancelling at every step, a preview and a checkpoint now and then."""
        steps, title = self.params.steps, METHODS[method].title
        self.ctx.progress(self.reached, self.total, f"{title}: step {start} of {steps}")

        def on_step(moment: Moment, clean: Tensor) -> None:
            self.reached += 1
            preview = self._preview(clean) if moment.step % max(1, steps // PREVIEWS) == 0 else None
            self.ctx.progress(self.reached, self.total, f"{title}: step {moment.step} of {steps}", preview)
            if moment.step == steps or moment.step % max(1, steps // CHECKPOINTS) == 0:
                self._keep(method, moment.packed())
            self.ctx.check()

        return on_step

    def _keep(self, part: str, moment: dict[str, Any]) -> None:
        state = {"part": part, "moment": moment, "rows": self.rows, "pattern": self.pattern}
        self.ctx.checkpoint(self.reached, state)

    def _preview(self, clean: Tensor) -> Any | None:
        """The middle frame of where the run is heading; none where the plan keeps the VAE off the device."""
        if self.ctx.plan == "thrifty":
            return None
        with self.weights.lend(self.ctx, "vae") as parts:
            frames = self.family.decode(parts["vae"], self.family.middle(clean), tiles=self.ctx.plan != "fast")
        return Image.fromarray(frames[0, 0])

    # -- the result ------------------------------------------------------------------------------------------------

    def finish(self, method: str, latents: Tensor) -> None:
        """Decode, store, measure."""
        about, name = METHODS[method], f"{method}-{self.params.seed}"
        self.ctx.progress(self.reached, self.total, f"{about.title}: decoding")
        with self.weights.lend(self.ctx, "vae") as parts:
            frames = self.family.decode(parts["vae"], latents, tiles=self.ctx.plan != "fast")[0]
        self.ctx.check()
        facts = {"role": about.role, "method": method, "title": about.title, "seed": self.params.seed}
        note = {"note": about.note} if about.note else {}
        self.ctx.save(f"{name}.mp4", "video", frames, fps=self.fps, **facts, **note)
        self.ctx.save(f"{name}-frames.zip", "archive", stills(frames), **{**facts, "role": "frames"})
        period = decay_of(self.params).period or self.model.period
        spread = None if period is None else period * self.model.frames_per_latent
        self.ctx.metrics(f"{name}.mp4", **measure(frames, spread, self.model.countable, self.model.repeat_distance))
        self.rows[method] = thumbnails(frames)
        self.reached += 1
        self._keep("", {})
        self.ctx.progress(self.reached, self.total, f"{about.title}: done")

    def explain(self) -> None:
        """The contact sheet of all videos, and why this model repeats."""
        seed = self.params.seed
        rows = {METHODS[method].title: self.rows[method] for method in self.params.methods}
        times = [float(t) for t in np.linspace(0, (self.shape.frames - 1) / self.fps, COLUMNS)]
        self.ctx.save(f"contact-{seed}.png", "image", contact_sheet(rows, times), role="sheet", seed=seed)
        shown = None
        if self.pattern:
            shown = diagram(self.pattern, self.params, self.family, self.shape.latent_frames)
            self.ctx.save(f"pattern-{seed}.png", "image", pattern_plot(shown), role="plot", seed=seed)
        decays = length_of(self.params).ratio > 1 and any(METHODS[name].decays for name in self.params.methods)
        way = {"attention": self.way.name} if decays else {}
        self.ctx.metrics("", **way, **(pattern_numbers(shown) if shown else {}))
        self.reached += 1
        self.ctx.progress(self.reached, self.total, "Done")


def stills(frames: np.ndarray) -> dict[str, bytes]:  # uint8 [T, H, W, 3]
    """All frames as PNG, by file name, to be kept in one archive."""
    files = {}
    for number, frame in enumerate(frames):
        picture = io.BytesIO()
        Image.fromarray(frame).save(picture, "PNG", compress_level=6)
        files[f"frame-{number:05d}.png"] = picture.getvalue()
    return files
