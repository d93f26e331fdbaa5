"""Installing the method on a shared transformer, and taking it off again whatever happens.

Three context managers: `positions` replaces the rotary embedding, `focus` scales queries per head, `measured` reads
queries and keys as attention sees them. Only public hooks of diffusers and torch are used; no processor is replaced
and no attention backend is chosen, so any fast kernel stays in place. Knows neither prompts nor schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope, apply_rotary_emb_qwen
from torch import Tensor, nn

from engines.ultraimage.rope import flux_grid_ids, flux_table, qwen_table

Transformer = FluxTransformer2DModel | QwenImageTransformer2DModel
Axes = tuple[list[Tensor], list[float]]  # frequencies and magnitudes of frame, height and width
Rule = Callable[[float], Axes]  # at a noise level sigma in [0, 1]


class Place(Protocol):
    """A position embedding that is told where it is before every forward pass."""

    def at(self, height: int, width: int, sigma: float) -> None:
        """The grid in tokens, and the noise level."""
        ...


class FluxPlace(FluxPosEmbed):
    """Flux's rotary table from a rule, on positions rebuilt in float32 from the grid it is told."""

    def __init__(self, original: FluxPosEmbed, rule: Rule) -> None:
        super().__init__(original.theta, original.axes_dim)
        self.rule = rule
        self.at(0, 0, 1.0)

    def at(self, height: int, width: int, sigma: float) -> None:
        """The grid in tokens, and the noise level."""
        self.grid, self.axes = (height, width), self.rule(sigma)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:  # ids [S, 3] -> cos, sin [S, D]
        """`ids` gives the sequence length and device only: in bfloat16 its values collide above 256."""
        text = len(ids) - self.grid[0] * self.grid[1]
        frequencies, magnitudes = self.axes
        return flux_table(flux_grid_ids(text, *self.grid, device=ids.device), frequencies, magnitudes)


class QwenPlace(QwenEmbedRope):
    """Qwen-Image's rotary table from a rule; a new object, because the original's results are cached for ever."""

    def __init__(self, original: QwenEmbedRope, rule: Rule) -> None:
        nn.Module.__init__(self)  # the parent would build 8192 positions that are never read
        self.theta, self.axes_dim, self.scale_rope = original.theta, original.axes_dim, original.scale_rope
        self.rule = rule
        self.at(0, 0, 1.0)

    def at(self, height: int, width: int, sigma: float) -> None:
        """The grid in tokens, and the noise level."""
        self.axes = self.rule(sigma)

    def forward(
        self, video_fhw: Any, device: torch.device | None = None, max_txt_seq_len: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:  # image [h * w, D / 2], text [T, D / 2], complex64
        """The grid is read from the call, which is exact here."""
        shape = video_fhw
        while not isinstance(shape[0], int):
            shape = shape[0]
        frequencies, magnitudes = self.axes
        image, text = qwen_table(shape[1], shape[2], int(max_txt_seq_len), frequencies, magnitudes)
        return image.to(device), text.to(device)


@contextmanager
def positions(transformer: Transformer, rule: Rule | None) -> Iterator[Place | None]:
    """Use `rule` for the rotary embedding inside the block; None leaves the model's own untouched."""
    if rule is None:
        yield None
        return
    original = transformer.pos_embed
    kind = FluxPlace if isinstance(original, FluxPosEmbed) else QwenPlace
    place = kind(original, rule)
    transformer.pos_embed = place
    try:
        yield place
    finally:
        transformer.pos_embed = original


def attentions(transformer: Transformer) -> list[nn.Module]:
    """Every joint attention, in the order in which it runs: double blocks, then single blocks."""
    blocks = [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", ())]
    return [block.attn for block in blocks]


class Focus:
    """One factor per branch, layer and head; `branch` says which one the next forward pass belongs to."""

    def __init__(self, table: Tensor) -> None:  # [branches, layers, heads]
        self.table = table
        self.branch = 0

    def factor(self, layer: int, like: Tensor) -> Tensor:
        """[heads, 1] on the device of `like`; a table of one branch serves all."""
        branch = min(self.branch, len(self.table) - 1)
        return self.table[branch, layer, :, None].to(like.device, torch.float32)


@contextmanager
def focus(transformer: Transformer, table: Tensor | None) -> Iterator[Focus | None]:
    """Multiply the queries of layer l, head a by table[branch, l, a] inside the block; None changes nothing.

    The factor goes on the output of the query norm, before the rotary embedding, which is linear; so it is exactly
    a factor on the logits. Text queries have a norm of their own in double blocks and need it too.
    """
    if table is None:
        yield None
        return
    layers = attentions(transformer)
    if len(layers) != table.shape[1]:
        raise ValueError(f"a table for {table.shape[1]} layers does not fit a model of {len(layers)}")
    state, handles = Focus(table), []
    try:
        for index, attention in enumerate(layers):
            handles += [norm.register_forward_hook(_scaling(state, index)) for norm in _norms(attention, "q")]
        yield state
    finally:
        for handle in handles:
            handle.remove()


def _norms(attention: nn.Module, of: str) -> list[nn.Module]:
    found = (getattr(attention, name, None) for name in (f"norm_added_{of}", f"norm_{of}"))
    return [norm for norm in found if norm is not None]


def _scaling(state: Focus, layer: int) -> Callable[..., Tensor]:
    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:  # [B, N, heads, d]
        return (output * state.factor(layer, output)).to(output.dtype)

    return scale


Measure = Callable[[Tensor, Tensor], Tensor]  # q [B, heads, n, d], k [B, heads, N, d], rotated -> [B, heads]
Sample = Callable[[int], Tensor]  # of N queries, the indices of those that are measured: int64 [n]


class Seen(Exception):
    """A forward pass has come as far as anybody looks."""


@contextmanager
def measured(
    transformer: Transformer, measure: Measure, sample: Sample | None = None, *, stop: bool = False
) -> Iterator[list[Tensor]]:
    """Collect `measure(q, k)` of every layer, in order, from the forward passes inside the block.

    With `sample` the others of the queries are left out. With `stop` a pass ends with `Seen` where the last layer has
    been measured.
    """
    results: list[Tensor] = []
    layers = attentions(transformer)
    handles = []
    try:
        for attention in layers:
            handles += _measuring(attention, measure, sample, results, stop and attention is layers[-1])
        yield results
    finally:
        for handle in handles:
            handle.remove()


def _measuring(
    attention: nn.Module, measure: Measure, sample: Sample | None, results: list[Tensor], stop: bool
) -> list[Any]:
    """Hooks that keep this layer's normed queries and keys until all are there, then measure and drop them."""
    norms = {name: _norms(attention, name) for name in ("q", "k")}
    kept: dict[str, list[Tensor]] = {"q": [], "k": []}
    rotary: list[Any] = []

    def begin(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        rotary.append(kwargs["image_rotary_emb"])

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept[name].append(output)
            if all(len(kept[of]) == len(norms[of]) for of in norms):
                finish()

        return hook

    def finish() -> None:
        table = rotary.pop()
        chosen = None if sample is None else sample(sum(part.shape[1] for part in kept["q"]))
        q, k = _joint(kept["q"], table, chosen), _joint(kept["k"], table)
        kept["q"], kept["k"] = [], []
        results.append(measure(q, k))
        if stop:
            raise Seen

    handles = [norm.register_forward_hook(keep(name)) for name in norms for norm in norms[name]]
    return [*handles, attention.register_forward_pre_hook(begin, with_kwargs=True)]


def _joint(
    parts: list[Tensor],  # each [B, n, heads, d]
    rotary: tuple[Tensor, Tensor],
    chosen: Tensor | None = None,  # int64 [m], indices into text + image
) -> Tensor:  # [B, heads, m or text + image, d]
    """All or some of a layer's queries or keys, with the rotary embedding applied as the model's own attention does.

    Image parts come first because the processors norm them first; text stands first in the sequence.
    """
    if rotary[0].is_complex():  # Qwen-Image: one rotation for the image, one for the text
        parts = [
            apply_rotary_emb_qwen(part, table, use_real=False) for part, table in zip(parts, rotary, strict=True)
        ]
    joint = torch.cat(parts[::-1], dim=1)
    if chosen is not None:
        chosen = chosen.to(joint.device)
        joint = joint[:, chosen]
    if not rotary[0].is_complex():
        table = rotary if chosen is None else tuple(part[chosen] for part in rotary)
        joint = apply_rotary_emb(joint, table, sequence_dim=1)
    return joint.transpose(1, 2)
