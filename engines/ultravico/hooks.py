"""Installing decayed attention and rotary rules on a shared video transformer, and taking both off again.

Only public hooks of torch are used: while a self-attention module runs, its one call of scaled_dot_product_attention
is answered by decayed attention, whichever processor makes it. Text attention is another module and is never reached.
Decayed attention holds for the thread and context that installed it, so that jobs side by side do not mix. Positions
hold for whoever uses the transformer meanwhile: a worker runs one job at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import CogVideoXTransformer3DModel, HunyuanVideoTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from engines.ultravico.decay import Decay
from engines.ultravico.rope import rope_frequencies, table_3d

VideoTransformer = WanTransformer3DModel | HunyuanVideoTransformer3DModel | CogVideoXTransformer3DModel
Path = Callable[[Tensor, Tensor, Tensor, Decay], Tensor]  # q, k, v [B, h, N, d] -> [B, h, N, d]
Rule = Callable[[], Tensor]  # temporal frequencies [d] as they are to be now


def self_attentions(transformer: VideoTransformer) -> list[nn.Module]:
    """Every attention in which video tokens look at video tokens, in the order in which it runs."""
    if isinstance(transformer, WanTransformer3DModel):
        return [block.attn1 for block in transformer.blocks]
    if isinstance(transformer, HunyuanVideoTransformer3DModel):
        return [block.attn for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)]
    if isinstance(transformer, CogVideoXTransformer3DModel):
        return [block.attn1 for block in transformer.transformer_blocks]
    raise TypeError(f"{type(transformer).__name__} is no video transformer whose attention is known")


@dataclass(eq=False)
class Installed:
    """What answers the self-attention of one context, and how often it has."""

    decay: Decay
    path: Path
    video_tokens: int  # the rest of a joint sequence is text
    calls: int = 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, text_first: bool) -> Tensor:
        """Decayed attention of one layer; text and padding are found from the lengths and the mask."""
        self.calls += 1
        text = q.shape[-2] - self.video_tokens
        if text < 0:
            raise ValueError(f"{q.shape[-2]} tokens, but the video alone has {self.video_tokens}")
        decay = replace(self.decay, **{"text_tokens_start" if text_first else "text_tokens_end": text})
        if mask is None:
            return self.path(q, k, v, decay)
        parts = []
        for item in range(len(q)):  # each prompt has a padding of its own
            padded = padding_of(mask[min(item, len(mask) - 1)])
            one = slice(item, item + 1)
            parts.append(self.path(q[one], k[one], v[one], replace(decay, padded_keys_end=padded)))
        return torch.cat(parts)


def padding_of(mask: Tensor) -> int:  # bool, true where a key may be looked at
    """How many keys of one prompt are padding."""
    return int((~mask.bool()).sum())


_ACTIVE: ContextVar[Installed | None] = ContextVar("ultravico_attention", default=None)


class _Answering(TorchFunctionMode):
    """Answers scaled_dot_product_attention; everything else passes."""

    def __init__(self, installed: Installed, text_first: bool) -> None:
        super().__init__()
        self._installed, self._text_first = installed, text_first
        self.before = installed.calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask")
        given = dict(zip(names, args, strict=False)) | kwargs
        q, k, v = (given[name] for name in names[:3])
        return self._installed.attend(q, k, v, given.get("attn_mask"), self._text_first)


@contextmanager
def decayed(
    transformer: VideoTransformer,
    decay: Decay | None,  # None changes nothing
    path: Path,
    video_tokens: int,
) -> Iterator[Installed | None]:
    """Use decayed attention in every self-attention of `transformer` inside the block, in this context only.

    `decay` speaks of the video alone; where text stands, and how much of it is padding, is found at each call. Raises
    RuntimeError inside a forward pass whose attention goes another way than scaled_dot_product_attention.
    """
    if decay is None:
        yield None
        return
    mine = Installed(decay, path, video_tokens)
    text_first = isinstance(transformer, CogVideoXTransformer3DModel)
    handles = [handle for module in self_attentions(transformer) for handle in _hooks(module, mine, text_first)]
    token = _ACTIVE.set(mine)
    try:
        yield mine
    finally:
        _ACTIVE.reset(token)
        for handle in handles:
            handle.remove()


def _hooks(module: nn.Module, mine: Installed, text_first: bool) -> list[Any]:
    """Answer from before the module runs until it is done, or has failed."""
    running: ContextVar[_Answering | None] = ContextVar("running", default=None)

    def enter(_module: nn.Module, _args: Any) -> None:
        if _ACTIVE.get() is mine:
            mode = _Answering(mine, text_first)
            mode.__enter__()
            running.set(mode)

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        mode = running.get()
        if mode is None:
            return
        running.set(None)
        mode.__exit__(None, None, None)
        if output is not None and mine.calls == mode.before:
            raise RuntimeError("self-attention did not use scaled_dot_product_attention: nothing was decayed")

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]


class VideoPlace(nn.Module):
    """The rotary table of Wan or HunyuanVideo with temporal frequencies from a rule."""

    def __init__(self, original: nn.Module, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.last: tuple[Any, tuple[Tensor, Tensor]] | None = None  # what the newest table was made for, and it
        if hasattr(original, "t_dim"):  # Wan
            self.patch, self.theta = tuple(original.patch_size), 10_000.0
            self.dims, self.four = (original.t_dim, original.h_dim, original.w_dim), True
        else:
            self.patch = (original.patch_size_t, original.patch_size, original.patch_size)
            self.dims, self.theta, self.four = tuple(original.rope_dim), original.theta, False

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:  # [B, C, F, H, W] -> cos, sin
        """[N, d] each, or [1, N, 1, d] for Wan."""
        shape = tuple(size // patch for size, patch in zip(latents.shape[2:], self.patch, strict=True))
        temporal = self.rule()
        wanted = (shape, latents.device, tuple(temporal.tolist()))
        if self.last is None or self.last[0] != wanted:
            spatial = [rope_frequencies(dim, self.theta) for dim in self.dims[1:]]
            places = [torch.arange(size, dtype=torch.float64) for size in shape]
            cos, sin = (table.to(latents.device) for table in table_3d([temporal, *spatial], places))
            self.last = wanted, (cos[None, :, None], sin[None, :, None]) if self.four else (cos, sin)
        return self.last[1]


@contextmanager
def positions(transformer: VideoTransformer, rule: Rule | None) -> Iterator[None]:
    """Use the temporal frequencies of `rule` inside the block; None leaves the model's own untouched.

    Raises TypeError for CogVideoX, whose table is made by its pipeline and passed in.
    """
    if rule is None:
        yield
        return
    if not hasattr(transformer, "rope"):
        raise TypeError(f"{type(transformer).__name__} is given its rotary table; pass another one instead")
    original = transformer.rope
    transformer.rope = VideoPlace(original, rule)
    try:
        yield
    finally:
        transformer.rope = original
