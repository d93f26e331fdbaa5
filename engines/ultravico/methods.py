"""What each method does to positions and attention at one length: rules and decays, from the parameters.

A rule gives the temporal rotary frequencies at a noise level; None means the model's own. Knows no transformer and
no prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from torch import Tensor

from engines.ultravico import rope
from engines.ultravico.decay import Decay
from engines.ultravico.presets import METHODS, MODELS, ModelPreset
from engines.ultravico.spec import UltraVicoParams, decay_of

Rule = Callable[[float], Tensor]  # at a noise level in [0, 1] -> [d] radians a latent frame


def position_rule(
    method: str,
    params: UltraVicoParams,
    dim: int,  # temporal rotary channels
    theta: float,
    latent_frames: int,
) -> Rule | None:
    """The temporal frequencies of `method` for a video of `latent_frames`; None leaves the model as it is."""
    name, model = cast(rope.Method, METHODS[method].position), MODELS[params.model]
    if name == "pe" or latent_frames <= model.train_latent_frames:
        return None

    def at(level: float) -> Tensor:
        return rope.extrapolated_frequencies(
            dim,
            theta,
            name,
            model.train_latent_frames,
            latent_frames,
            k=riflex_frequency(params, dim, theta),
            t=level,
            tasr_threshold=params.tasr_switch,
        )

    return at


def riflex_frequency(params: UltraVicoParams, dim: int, theta: float) -> int:
    """Counted from 1: the one asked for, else the one whose period is the repetition's, else the published one."""
    model = MODELS[params.model]
    period = params.period or model.period
    found = model.riflex_k if period is None else rope.identify_intrinsic_frequency(dim, theta, period)[0]
    return params.riflex_k or found


def decay_for(
    method: str,
    params: UltraVicoParams,
    tokens_per_frame: int,
    rule: Rule | None,
    dim: int,
    theta: float,
    latent_frames: int,
) -> Decay | None:
    """How attention decays; None where it stays plain: by choice, or because nothing is longer than trained."""
    model = MODELS[params.model]
    if not METHODS[method].decays or latent_frames <= model.train_latent_frames:
        return None
    own = decay_of(params)
    period = own.period
    if rule is not None and own.beta is not None:  # the bands move with the frequency that RIFLEx changed
        period = 2 * math.pi / float(rule(1.0)[riflex_frequency(params, dim, theta) - 1])
    return Decay(
        tokens_per_frame=tokens_per_frame,
        window_frames=window_of(params, model),
        alpha=own.alpha,
        beta=own.beta,
        period_frames=period,
        gamma_frames=own.gamma,
        first_frame_mask=model.first_frame,
        smooth_k=params.smooth_keys,
        profile=params.profile,
        alpha1=params.far,
        alpha2=own.alpha if params.far is not None else None,
    )


def window_of(params: UltraVicoParams, model: ModelPreset) -> float:
    """L of equation 6, latent frames; half of it either way is left alone."""
    return params.window or float(model.train_latent_frames)
