"""The defender: a diffusion transformer used as a predictor from a portrait to its perturbation.

RID (arXiv 2412.09844). The condition of its adaptive norms is always zero, and SiLU(0) = 0, so each modulation equals
the bias of its linear layer: a third of the published parameters never does anything. `fold` drops them. Images and
budgets are in [-1, 1]: a budget of 12/255 is six grey levels, not twelve. Knows no file and no diffusion model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GREY_LEVELS = 127.5  # of 255 per unit of [-1, 1]


@dataclass(frozen=True)
class Shape:
    """The sizes of a defender; the defaults are those of the published checkpoints."""

    input_size: int = 512  # pixels a side
    patch_size: int = 16
    hidden_size: int = 1152
    depth: int = 14
    num_heads: int = 8
    mlp_ratio: float = 4.0
    num_classes: int = 1000  # of a label table that is never used

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.input_size // self.patch_size


def bounded_perturbation(raw: Tensor, eps: float) -> Tensor:  # any shape -> same, within [-eps, eps]
    """eps * tanh(raw), in units of [-1, 1]."""
    return eps * torch.tanh(raw)


def sincos_pos_embed_2d(dim: int, grid: int) -> Tensor:  # float64 [grid * grid, dim]
    """Sines and cosines of the column in the first half of the channels, of the row in the second; row-major.

    Raises ValueError for a number of channels that these cannot share.
    """
    if dim % 4:
        raise ValueError(f"{dim} channels cannot be shared by two sines and two cosines")
    quarter = dim // 4
    rates = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * rates  # [grid, dim / 4]
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, dim / 2]
    column = line[None, :, :].expand(grid, grid, -1)
    row = line[:, None, :].expand(grid, grid, -1)
    return torch.cat([column, row], dim=-1).flatten(0, 1)


def unpatchify(tokens: Tensor, patch_size: int, channels: int = 3) -> Tensor:  # [B, N, p p c] -> [B, c, g p, g p]
    """Tokens in row-major order, each (row in patch, column in patch, channel), to a picture."""
    grid = round(tokens.shape[1] ** 0.5)
    patches = tokens.unflatten(1, (grid, grid)).unflatten(-1, (patch_size, patch_size, channels))
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), channels, grid * patch_size, grid * patch_size)


class Bias(nn.Module):
    """What is left of a linear layer whose input is always zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:  # [B, *] -> [B, width]
        """The bias for every item."""
        return self.bias.expand(len(x), -1)


class Attention(nn.Module):
    """Self-attention with one fused projection, in the order query, key, value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C]
        """Scale 1 / sqrt(C / heads); queries and keys are not normalised."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around a GELU by tanh."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C]
        """fc2(gelu(fc1 x))."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _modulation(width: int, count: int, folded: bool) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), Bias(count * width) if folded else nn.Linear(width, count * width))


class Block(nn.Module):
    """z + g1 Attention(LN(z)(1 + c1) + s1), then the same with the MLP."""

    def __init__(self, shape: Shape, folded: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.hidden_size, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(shape.hidden_size, shape.num_heads)
        self.mlp = Mlp(shape.hidden_size, round(shape.hidden_size * shape.mlp_ratio))
        self.adaLN_modulation = _modulation(shape.hidden_size, 6, folded)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:  # [B, N, C], [B, C]
        """One block of adaLN-Zero."""
        s1, c1, g1, s2, c2, g2 = self.adaLN_modulation(condition)[:, None].chunk(6, dim=-1)
        z = z + g1 * self.attn(self.norm(z) * (1 + c1) + s1)
        return z + g2 * self.mlp(self.norm(z) * (1 + c2) + s2)


class FinalLayer(nn.Module):
    """Modulated norm and the projection to the pixels of a patch."""

    def __init__(self, shape: Shape, folded: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.hidden_size, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(shape.hidden_size, shape.patch_size**2 * 3)
        self.adaLN_modulation = _modulation(shape.hidden_size, 2, folded)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:  # [B, N, C], [B, C] -> [B, N, p p 3]
        """Linear(LN(z)(1 + c) + s)."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(self.norm(z) * (1 + scale) + shift)


class Defender(nn.Module):
    """The published network; with `folded`, without what never has an influence. Keys are those of its checkpoints.

    Fresh weights are those training starts from: the perturbation is exactly zero.
    """

    def __init__(self, shape: Shape, eps: float, folded: bool = False) -> None:
        super().__init__()
        self.shape, self.eps = shape, eps
        width = shape.hidden_size
        table = sincos_pos_embed_2d(width, shape.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(3, width, shape.patch_size, shape.patch_size)})
        if not folded:
            layers = [nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)]
            self.t_embedder = nn.ModuleDict({"mlp": nn.Sequential(*layers)})
            labels = nn.Embedding(shape.num_classes + 1, width)
            self.y_embedder = nn.ModuleDict({"embedding_table": labels})
        self.blocks = nn.ModuleList(Block(shape, folded) for _ in range(shape.depth))
        self.final_layer = FinalLayer(shape, folded)
        self._start()

    def forward(self, image: Tensor) -> Tensor:  # [B, 3, S, S] in [-1, 1] -> perturbation, same shape and units
        """The perturbation, within the budget. Raises ValueError for another size of picture."""
        side = self.shape.input_size
        if tuple(image.shape[-3:]) != (3, side, side):
            raise ValueError(f"the defender takes pictures of {side}x{side}, not {tuple(image.shape[-2:])}")
        z = self.x_embedder["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed
        condition = z.new_zeros(len(image), self.shape.hidden_size)
        for block in self.blocks:
            z = block(z, condition)
        raw = unpatchify(self.final_layer(z, condition), self.shape.patch_size)
        return bounded_perturbation(raw, self.eps)

    def _start(self) -> None:
        """Xavier for the linear layers and the patches, zero for modulations and the last layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.x_embedder["proj"]
        nn.init.xavier_uniform_(patches.weight.data.flatten(1))
        nn.init.zeros_(patches.bias)
        still = [block.adaLN_modulation[1] for block in self.blocks] + [self.final_layer.adaLN_modulation[1]]
        for layer in (*still, self.final_layer.linear):
            for weight in layer.parameters():
                nn.init.zeros_(weight)


_DEAD = re.compile(r"^(t_embedder|y_embedder)\.|adaLN_modulation\.1\.weight$")


def fold(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the folded network: all but those that never have an influence."""
    return {name: tensor for name, tensor in state_dict.items() if not _DEAD.search(name)}


def shape_of(state_dict: Mapping[str, Tensor], num_heads: int) -> Shape:
    """The sizes behind a checkpoint; the number of heads is not in it. Raises ValueError for other networks."""
    try:
        width, _, patch, _ = state_dict["x_embedder.proj.weight"].shape
        tokens = state_dict["pos_embed"].shape[1]
        (hidden,) = state_dict["blocks.0.mlp.fc1.bias"].shape
    except (KeyError, ValueError) as error:
        raise ValueError(f"this is no checkpoint of the defender: {error}") from error
    if not width or num_heads < 1 or width % num_heads:
        raise ValueError(f"a width of {width} cannot be shared by {num_heads} heads")
    depth = 1 + max(int(name.split(".")[1]) for name in state_dict if name.startswith("blocks."))
    return Shape(
        input_size=round(tokens**0.5) * patch,
        patch_size=patch,
        hidden_size=width,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=hidden / width,
        num_classes=_classes(state_dict),
    )


def _classes(state_dict: Mapping[str, Tensor]) -> int:
    """Rows of the table of labels but the one for no label; those of the published one where it was dropped."""
    table = state_dict.get("y_embedder.embedding_table.weight")
    return Shape.num_classes if table is None else len(table) - 1


def rid_defender(
    image: Tensor,  # [B, 3, S, S] in [-1, 1]
    state_dict: Mapping[str, Tensor],  # published key names, whole or folded
    *,
    input_size: int,
    patch_size: int,
    hidden_size: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    eps: float,
    num_classes: int | None = None,  # of a table that is never used; None: as many as it has rows
) -> Tensor:  # [B, 3, S, S]
    """The perturbation of a defender with these weights. Raises RuntimeError for keys that do not fit."""
    labels = _classes(state_dict) if num_classes is None else num_classes
    shape = Shape(input_size, patch_size, hidden_size, depth, num_heads, mlp_ratio, labels)
    folded = "t_embedder.mlp.0.weight" not in state_dict
    defender = Defender(shape, eps, folded).to(image.dtype)
    defender.load_state_dict(dict(state_dict))
    with torch.no_grad():
        return defender.eval()(image)
