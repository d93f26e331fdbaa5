"""From a reading of attention to what the diagram shows: the curve, the bands, and the numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engines.ultravico.families import Family
from engines.ultravico.methods import decay_for, position_rule, window_of
from engines.ultravico.pattern import harmonic_share, row_attention_pattern
from engines.ultravico.plot import Pattern
from engines.ultravico.presets import METHODS, MODELS
from engines.ultravico.rope import rope_frequencies
from engines.ultravico.spec import UltraVicoParams

TOLERANCE = 0.05  # of a ratio of frequencies: how far from a whole number a harmonic may be
POINTS = 8  # of the curve for every latent frame


def diagram(found: Mapping[str, Tensor], params: UltraVicoParams, family: Family, latent_frames: int) -> Pattern:
    """The row attention pattern of trained positions up to the length of the video, with the decay of this run."""
    model = MODELS[params.model]
    freqs = rope_frequencies(family.temporal_dim, family.theta)
    distance = torch.linspace(0, latent_frames - 1, (latent_frames - 1) * POINTS + 1, dtype=torch.float64)
    curve = row_attention_pattern(found["amplitude"], freqs, found["phase"], 0.0, distance)
    dominant, share = harmonic_share(freqs, found["amplitude"], TOLERANCE)
    method = next((name for name in params.methods if METHODS[name].decays), None)
    decay = None
    if method is not None:
        rule = position_rule(method, params, family.temporal_dim, family.theta, latent_frames)
        decay = decay_for(method, params, 1, rule, family.temporal_dim, family.theta, latent_frames)
    bands: list[tuple[float, float]] = []
    if decay is not None and decay.beta is not None and decay.period_frames and decay.gamma_frames:
        turns = range(1, math.ceil(latent_frames / decay.period_frames) + 1)
        reach = decay.gamma_frames
        bands = [(n * decay.period_frames - reach, n * decay.period_frames + reach) for n in turns]
    return Pattern(
        distance=distance.numpy(),
        logit=curve.numpy(),
        trained=float(model.train_latent_frames),
        half_window=window_of(params, model) / 2,
        bands=tuple(bands),
        alpha=None if decay is None else decay.alpha,
        beta=None if decay is None else decay.beta,
        period=2 * math.pi / float(freqs[dominant]),
        share=share,
    )


def pattern_numbers(shown: Pattern) -> dict[str, float]:
    """What the page prints beside the diagram."""
    return {"harmonic_share": round(shown.share, 4), "dominant_period": round(shown.period, 2)}
