"""Reading the row attention pattern off a running transformer: which temporal frequencies carry its attention.

While a forward pass runs, queries and keys are looked at as they leave their norms, before the rotary embedding.
Nothing is changed. Knows families only by their layouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn

from engines.ultravico.hooks import VideoTransformer, self_attentions
from engines.ultravico.pattern import coefficients


class Reading:
    """The sum of all heads' coefficients so far, and how many heads there were."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.heads = 0

    def add(self, found: Tensor) -> None:  # complex [h, K]
        """One layer of one pass."""
        found = found.cpu()
        self.total = found.sum(0) if self.total is None else self.total + found.sum(0)
        self.heads += len(found)

    def result(self) -> tuple[Tensor, Tensor]:
        """Amplitude and phase [K] of the mean logit."""
        assert self.total is not None, "nothing was read"
        mean = self.total / self.heads
        return mean.abs(), mean.angle()


@contextmanager
def reading(transformer: VideoTransformer, temporal_dim: int, heads: int, video_tokens: int) -> Iterator[Reading]:
    """Collect the temporal coefficients of every self-attention from the forward passes inside the block."""
    found, handles = Reading(), []
    try:
        for attention in self_attentions(transformer):
            handles += _watching(attention, found, _layout(transformer, temporal_dim, heads, video_tokens))
        yield found
    finally:
        for handle in handles:
            handle.remove()


Layout = Callable[[Tensor], Tensor]  # what a norm gives -> temporal channels of the video tokens [B, h, N, 2K]


def _layout(transformer: VideoTransformer, temporal_dim: int, heads: int, video_tokens: int) -> Layout:
    def wan(x: Tensor) -> Tensor:  # [B, N, h d]
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    def hunyuan(x: Tensor) -> Tensor:  # [B, N, h, d], video first
        return x[:, :video_tokens].transpose(1, 2)

    def cogvideox(x: Tensor) -> Tensor:  # [B, h, N, d], video last
        return x[:, :, -video_tokens:]

    kinds = {WanTransformer3DModel: wan, CogVideoXTransformer3DModel: cogvideox}
    chosen = next((f for kind, f in kinds.items() if isinstance(transformer, kind)), hunyuan)
    return lambda x: chosen(x)[..., :temporal_dim]


def _watching(attention: nn.Module, found: Reading, layout: Layout) -> list[Any]:
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output.detach())

    def finish(_module: nn.Module, _args: Any, _output: Any) -> None:
        q, k = kept.pop("q", None), kept.pop("k", None)
        if q is None or k is None:
            return
        head_dim = q.shape[-1] // attention.heads if q.ndim == 3 else q.shape[-1]
        found.add(coefficients(layout(q), layout(k)) / math.sqrt(head_dim))

    norms = [("q", attention.norm_q), ("k", attention.norm_k)]
    handles = [norm.register_forward_hook(keep(name)) for name, norm in norms if norm is not None]
    return [*handles, attention.register_forward_hook(finish)]
