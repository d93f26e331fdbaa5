"""What each method does to positions and attention at one target size: rules and tables, from the parameters.

A rule gives the rotary frequencies of the three axes at a noise level; None means the model's own. Corrections only
apply beyond the training sequence, each axis by its own length. Knows no transformer and no prompt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engines.ultraimage.concentration import (
    BLOCK,
    attention_entropy,
    block_attention_mass,
    block_entropy,
    focus_factor,
    proportional_scale,
)
from engines.ultraimage.dype import LEAST_TIME, dype_frequencies
from engines.ultraimage.frequency import (
    interpolated_frequencies,
    ntk_frequencies,
    recursive_correction,
    rope_frequencies,
    yarn_frequencies,
)
from engines.ultraimage.hooks import Axes, Measure, Rule, Sample
from engines.ultraimage.presets import METHODS, ModelPreset
from engines.ultraimage.spec import UltraImageParams

THETA = 10000.0  # of both published models
# A calibration measures some of the queries, which cost as much as the pass itself if all were: one in twelve, at
# most as many as stand in 32 of the published blocks.
SAMPLED_SHARE = 12
SAMPLED_ROWS = 32
SAMPLE_SEED = 0


def position_rule(
    method: str, params: UltraImageParams, model: ModelPreset, grid: tuple[int, int], text_tokens: int
) -> Rule | None:
    """The rotary rule of `method` on a grid of (height, width) tokens; None leaves the model as it is."""
    position = METHODS[method].position
    if position == "trained" or text_tokens + grid[0] * grid[1] <= model.train_sequence:
        return None
    still = rope_frequencies(model.axes[0], THETA)
    if position == "dype":
        return _dype_rule(still, model, grid)
    spatial = [_axis(position, params, model, dim, n) for dim, n in zip(model.axes[1:], grid, strict=True)]
    if all(torch.equal(f, rope_frequencies(dim, THETA)) for f, dim in zip(spatial, model.axes[1:], strict=True)):
        return None
    axes: Axes = ([still, *spatial], [1.0, 1.0, 1.0])
    return lambda sigma: axes


def _axis(position: str, params: UltraImageParams, model: ModelPreset, dim: int, target: int) -> Tensor:
    scale = max(target / model.train_tokens, 1.0)
    if position == "corrected":
        return _corrected_axis(params, model, dim, target)
    if position == "interpolation":
        return interpolated_frequencies(dim, THETA, scale)
    if position == "ntk":
        return ntk_frequencies(dim, THETA, scale)
    return yarn_frequencies(dim, THETA, model.train_tokens, scale)


def _corrected_axis(params: UltraImageParams, model: ModelPreset, dim: int, target: int) -> Tensor:
    """Algorithm 1 with the model's observed periods, or the indices that were asked for."""
    frequencies, _ = recursive_correction(
        dim, THETA, model.train_tokens, target, model.observed, params.margin, params.correction
    )
    if params.indices is None or target <= model.train_tokens:
        return frequencies
    chosen = rope_frequencies(dim, THETA)
    for index in params.indices:
        one_period = params.margin * 2 * math.pi / target
        divided = float(chosen[index]) * model.train_tokens / target
        chosen[index] = one_period if params.correction == "single_period" else divided
    return chosen


def _dype_rule(still: Tensor, model: ModelPreset, grid: tuple[int, int]) -> Rule:
    def rule(sigma: float) -> Axes:
        spatial = [
            dype_frequencies(dim, THETA, n, model.train_tokens, timestep=max(sigma, LEAST_TIME))
            for dim, n in zip(model.axes[1:], grid, strict=True)
        ]
        return [still, *(f for f, _ in spatial)], [1.0, *(m for _, m in spatial)]

    return rule


def proportional_table(model: ModelPreset, sequence: int, layers: int, heads: int, head_dim: int) -> Tensor | None:
    """The entropy-scale baseline as a table: one factor for all; None up to the training sequence."""
    if sequence <= model.attention_sequence:
        return None
    factor = proportional_scale(sequence, model.attention_sequence, head_dim) * math.sqrt(head_dim)
    return torch.full((1, layers, heads), factor)


def entropy_measure(params: UltraImageParams) -> tuple[Measure, Sample | None]:
    """How a head's entropy is taken: exact (paper) or over blocks (code), on a fixed sample of queries."""

    def some(count: int) -> Tensor:
        return sample(count, SAMPLED_ROWS * BLOCK, SAMPLED_SHARE)

    def blockwise(q: Tensor, k: Tensor) -> Tensor:
        rows = sample(-(-q.shape[-2] // BLOCK), SAMPLED_ROWS).tolist()
        return block_entropy(block_attention_mass(q, k, rows=rows))[1]

    return (attention_entropy, some) if params.lambda_preset == "paper" else (blockwise, None)


def sample(count: int, most: int, share: int = 1) -> Tensor:  # int64 [n], ascending, in [0, count)
    """Always the same indices out of `count`: one in `share` of them, at most `most`."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SAMPLE_SEED))
    return order[: min(most, -(-count // share))].sort().values


def focus_table(
    entropy: Tensor,  # [branches, layers, heads], nats
    params: UltraImageParams,
    model: ModelPreset,
    sequence: int,  # joint tokens
) -> Tensor:  # [branches, layers, heads]
    """Lambda of every head. The paper takes the range over all heads; the code has it published per model."""
    low, high = float(entropy.min()), float(entropy.max())
    if params.lambda_preset == "code":
        low = model.h_range[0]
        high = model.h_range[1] or math.log(-(-sequence // BLOCK))
    return focus_factor(entropy, low, high, params.lambda_min, params.lambda_max, "power", params.gamma)
