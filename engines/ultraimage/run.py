"""UltraImage, top to bottom: calibrate heads, correct frequencies, denoise at the target size, decode, measure.

Every chosen method and baseline is sampled from the same noise. What a method is, is in `methods.py`; the loop is in
`sampling.py`. A killed run goes on from its newest checkpoint and gives the same bytes. Knows no page and no store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.ultraimage.calibration import NOISE_SEED, Heads
from engines.ultraimage.families import Condition, tiled
from engines.ultraimage.guides import Guide, ResolutionGuide, ViewGuide
from engines.ultraimage.hooks import Rule, focus, positions
from engines.ultraimage.judge import shipped
from engines.ultraimage.methods import position_rule
from engines.ultraimage.metrics import measure, seam_visibility, vividness
from engines.ultraimage.pipeline import Weights, locate
from engines.ultraimage.presets import METHODS
from engines.ultraimage.sampling import OnStep, denoise, draw_noise, scheduler_for
from engines.ultraimage.spec import UltraImageParams, target_size, validate
from studio.contract import Context

PREVIEWS = 8  # previews of one picture at most, from its predicted clean latents
PREVIEW_CELLS = 48  # longest side of a preview, latent pixels
CHECKPOINTS = 4  # checkpoints of one picture
GUIDE = "guide"  # the small picture of the guided scenarios, in checkpoints and file names

# Independent streams of randomness under one seed; the target's noise is the seed's own, as in the plain pipeline.
STREAMS = {"target": 0, "guide": 1, "posterior": 2, "view": 3}


@torch.no_grad()
def run(ctx: Context, params: UltraImageParams) -> None:
    """Make one picture with every chosen method, from one seed."""
    validate(params)
    ctx.check()
    work = _Work(ctx, params)
    step, state = ctx.resume() or (0, {})
    work.resumed = state
    done = [m for m in params.methods if ctx.done(work.file(m)) and state.get("part") != m]
    small = work.small_picture() if params.scenario != "direct" else None
    for method in params.methods:
        if method in done:
            work.skip()
        else:
            latents = work.sample(method, small)
            work.finish(method, latents)


@dataclass
class _Prompts:
    """The conditions of a run, unconditional last where guidance is classifier-free."""

    small: list[Condition]
    large: list[Condition]
    calibration: list[Condition]


class _Work:
    """One run: its weights, its sizes, and how far it has come."""

    def __init__(self, ctx: Context, params: UltraImageParams) -> None:
        self.ctx, self.params = ctx, params
        self.weights: Weights = locate(params.model, ctx.weights)
        self.model, self.family = self.weights.source, self.weights.family
        self.width, self.height = target_size(params)
        self.resumed: dict[str, Any] = {}
        guided = params.scenario != "direct"
        self.total = (len(params.methods) + guided) * (params.steps + 1)
        self.reached = 0
        self.prompts = self._encode()

    # -- names, noise, progress ------------------------------------------------------------------------------------

    def file(self, part: str) -> str:
        """The name of a picture: method and seed."""
        return f"{part}-{self.params.seed}.png"

    def generator(self, stream: str) -> torch.Generator:
        """Randomness for one purpose; 2^63 seeds, so that neighbours of a seed never meet."""
        spread = 0x9E3779B97F4A7C15 * STREAMS[stream]
        return self.ctx.generator((self.params.seed + spread) % 2**63)

    def noise(self, stream: str, width: int, height: int) -> Tensor:  # [1, C, H, W]
        """Noise for a picture of this size, drawn on the CPU."""
        condition = self.prompts.large[0]
        return draw_noise(self.family.latent_shape(width, height), self.generator(stream), like=condition.embeds)

    def skip(self) -> None:
        """Count a picture that an earlier attempt finished."""
        self.reached += self.params.steps + 1

    @property
    def prompt(self) -> str:
        """What the large picture should show."""
        return self.params.prompt_high.strip() or self.params.prompt

    @property
    def tiles(self) -> bool:
        """Whether the memory plan decodes in tiles."""
        return self.ctx.plan != "fast"

    # -- conditions ------------------------------------------------------------------------------------------------

    def _encode(self) -> _Prompts:
        """All prompts at once, so that the text encoders are needed once and can leave the device."""
        p, model = self.params, self.model
        self.ctx.progress(0, self.total, "Reading the prompt")
        with self.weights.lend(self.ctx, *self.family.text_parts) as parts:

            @cache
            def encoded(text: str) -> Condition:
                return self.family.encode(parts, [text], self.ctx.device)

            def encode(prompt: str, negative: str, scale: float) -> list[Condition]:
                free = not self.family.distilled and scale > 1
                return [encoded(text) for text in ([prompt, negative] if free else [prompt])]

            return _Prompts(
                small=encode(p.prompt, p.negative_prompt, p.guide_guidance),
                large=encode(self.prompt, p.negative_prompt, p.guidance),
                calibration=encode(model.calibration_prompt, "", p.guidance),
            )

    # -- the small picture of the guided scenarios -----------------------------------------------------------------

    def small_picture(self) -> Tensor:  # [1, C, h, w], clean latents
        """Sampled at the training size, where nothing needs correcting."""
        if "small" in self.resumed:
            self.skip()
            return self.resumed["small"].to(self.ctx.device)
        side = self.model.base_pixels
        noise = self.noise("guide", side, side)
        with self.weights.lend(self.ctx, "transformer", "scheduler") as parts:
            latents = self._denoise(GUIDE, parts, noise, self.prompts.small, self.params.guide_guidance)
        with self.weights.lend(self.ctx, "vae") as parts:
            picture = self.family.decode(parts["vae"], latents, tiles=self.tiles)[0]
        self.ctx.save(self.file(GUIDE), "image", picture, role="guide", title="Small picture", seed=self.params.seed)
        self.reached += 1
        return latents

    def guide_for(self, small: Tensor | None) -> Guide | None:
        """How the small picture takes part in the large one."""
        p = self.params
        if small is None:
            return None
        if p.scenario == "guided_resolution":
            return ResolutionGuide(self._enlarged(small), p.steps, p.lowpass_level, p.patch_shift)
        return ViewGuide(
            view=small,
            noise=draw_noise(tuple(small.shape[1:]), self.generator("view"), like=small),
            num_steps=p.steps,
            held=round(p.view_share * p.steps),
            mode=p.view_mode,
            center=(p.view_y, p.view_x),
            inner_ratio=p.inner_ratio,
            schedule=p.weight_schedule,
            level=p.lowpass_level,
        )

    def _enlarged(self, small: Tensor) -> Tensor:  # [1, C, H, W]
        """Decoded, resized, encoded: the clean latents that low frequencies are pulled towards."""
        with self.weights.lend(self.ctx, "vae") as parts:
            vae = parts["vae"]
            with tiled(vae, self.tiles, self.family.cell // 2):
                picture = self.family.decode_raw(vae, small)
                picture = F.interpolate(picture.float(), (self.height, self.width), mode="bicubic")
                return self.family.encode_picture(vae, picture, self.generator("posterior")).to(small.dtype)

    # -- one picture -----------------------------------------------------------------------------------------------

    def sample(self, method: str, small: Tensor | None) -> Tensor:  # [1, C, H, W], clean latents
        """One method at the target size: its positions and its focus installed, the shared loop run."""
        guide = self.guide_for(small)
        grid = (self.height // self.family.cell, self.width // self.family.cell)
        rule = position_rule(method, self.params, self.model, grid, self.prompts.large[0].tokens)
        with self.weights.lend(self.ctx, "transformer", "scheduler") as parts:
            transformer = parts["transformer"]
            table = self._focus_table(method, transformer, rule)
            noise = self.noise("target", self.width, self.height)
            with positions(transformer, rule) as place, focus(transformer, table) as focused:
                return self._denoise(
                    method,
                    parts,
                    noise,
                    self.prompts.large,
                    self.params.guidance,
                    small=small,
                    place=place,
                    focus=focused,
                    guide=guide,
                )

    def _focus_table(self, method: str, transformer: nn.Module, rule: Rule | None) -> Tensor | None:
        """Lambda of every head on each branch; None where attention stays plain."""
        shared = self.params.reuse_calibration
        heads = Heads(
            ctx=self.ctx,
            weights=self.weights,
            params=self.params,
            size=(self.width, self.height),
            conditions=self.prompts.calibration if shared else self.prompts.large,
            stream=self.ctx.generator(NOISE_SEED) if shared else self.generator("target"),
            announce=lambda: self.ctx.progress(self.reached, self.total, "Calibration: measuring the heads"),
        )
        return heads.table(method, transformer, rule)

    def _denoise(
        self,
        part: str,
        parts: dict[str, Any],
        latents: Tensor,
        conditions: list[Condition],
        scale: float,
        *,
        small: Tensor | None = None,
        **installed: Any,
    ) -> Tensor:
        """The loop, from the checkpoint if it belongs to this part."""
        start = 0
        if self.resumed.get("part") == part:
            start, latents = int(self.resumed["step"]), self.resumed["latents"].to(self.ctx.device)
            self.reached += start
        tokens = latents.shape[-2] * latents.shape[-1] // 4
        config = parts["scheduler"].config
        scheduler = scheduler_for(config, self.params.steps, self.params.shift, tokens, self.ctx.device)
        return denoise(
            self.family,
            parts["transformer"],
            scheduler,
            latents,
            conditions,
            scale,
            self._on_step(part, small),
            start=start,
            **installed,
        )

    def _on_step(self, part: str, small: Tensor | None) -> OnStep:
        """Progress and cancelling at every step, a preview and a checkpoint now and then."""
        steps = self.params.steps
        title = METHODS[part].title if part in METHODS else "Small picture"
        self.ctx.progress(self.reached, self.total, f"{title}: step 0 of {steps}")

        def on_step(done: int, latents: Tensor, clean: Tensor) -> None:
            self.reached += 1
            preview = self._preview(clean) if done % max(1, steps // PREVIEWS) == 0 else None
            self.ctx.progress(self.reached, self.total, f"{title}: step {done} of {steps}", preview)
            if done == steps or done % max(1, steps // CHECKPOINTS) == 0:
                state = {"part": part, "step": done, "latents": latents.cpu()}
                self.ctx.checkpoint(self.reached, state if small is None else {**state, "small": small.cpu()})
            self.ctx.check()

        return on_step

    def _preview(self, clean: Tensor) -> Any | None:
        """A small picture of where the run is heading; none where the plan keeps the VAE off the device."""
        if self.ctx.plan == "thrifty":
            return None
        share = min(1.0, PREVIEW_CELLS / max(clean.shape[-2:]))
        small = F.interpolate(clean.float(), scale_factor=share, mode="area").to(clean.dtype) if share < 1 else clean
        with self.weights.lend(self.ctx, "vae") as parts:
            return self.family.decode(parts["vae"], small, tiles=False)[0]

    # -- the result ------------------------------------------------------------------------------------------------

    def finish(self, method: str, latents: Tensor) -> None:
        """Decode, store, measure."""
        about = METHODS[method]
        self.ctx.progress(self.reached, self.total, f"{about.title}: decoding")
        with self.weights.lend(self.ctx, "vae") as parts:
            picture = self.family.decode(parts["vae"], latents, tiles=self.tiles)[0]
        facts = {"role": about.role, "method": method, "title": about.title, "seed": self.params.seed}
        self.ctx.save(self.file(method), "image", picture, **facts, **({"note": about.note} if about.note else {}))
        self.ctx.metrics(self.file(method), **self._numbers(np.asarray(picture)))
        self.reached += 1
        self.ctx.progress(self.reached, self.total, f"{about.title}: done")

    def _numbers(self, picture: np.ndarray) -> dict[str, Any]:
        """What can be said of this picture: objects and horizons only where the model draws countable ones."""
        if self.model.judge:
            return measure(picture, self.prompt, shipped(Path(self.model.judge)))
        return {"vividness": vividness(picture), "seam": seam_visibility(picture, self.family.cell)}
