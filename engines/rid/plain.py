"""The defender as it is used: a plain transformer, everything constant in it folded into its weights. Exact.

The condition of RID's adaptive norms is always zero, so scale c, shift s and gate g of each are constants, and a
linear layer between them is another linear layer: W((1 + c) n + s) + b = (W (1 + c)) n + (W s + b), and g (W x + b) =
(g W) x + g b. Position table and the bias of the patches are one table. Its readable twin is `defender.Defender`,
which also trains; images and budgets are in [-1, 1] here too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.rid.defender import Block, Defender, bounded_perturbation, unpatchify


class Linear(nn.Module):
    """A linear layer between a modulation and a gate, as one linear layer."""

    def __init__(
        self,
        layer: nn.Linear,
        shift: Tensor | None = None,  # [in], as the scale
        scale: Tensor | None = None,
        gate: Tensor | None = None,  # [out]
    ) -> None:
        super().__init__()
        weight, bias = layer.weight.double(), layer.bias.double()  # folded once: rounded once
        if shift is not None and scale is not None:
            weight, bias = weight * (1 + scale.double()), bias + weight @ shift.double()
        if gate is not None:
            weight, bias = weight * gate.double()[:, None], bias * gate.double()
        self.register_buffer("weight", weight.to(layer.weight.dtype))
        self.register_buffer("bias", bias.to(layer.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:  # [*, in] -> [*, out]
        """W x + b."""
        return F.linear(x, self.weight, self.bias)


class PlainBlock(nn.Module):
    """z + Attention(LN z), then z + MLP(LN z)."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        s1, c1, g1, s2, c2, g2 = block.adaLN_modulation[1].bias.chunk(6)
        self.heads = block.attn.heads
        self.qkv, self.proj = Linear(block.attn.qkv, s1, c1), Linear(block.attn.proj, gate=g1)
        self.fc1, self.fc2 = Linear(block.mlp.fc1, s2, c2), Linear(block.mlp.fc2, gate=g2)

    def forward(self, z: Tensor) -> Tensor:  # [B, N, C]
        """One block; `z` is changed in place."""
        q, k, v = self.qkv(_norm(z)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        z += self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        z += self.fc2(F.gelu(self.fc1(_norm(z)), approximate="tanh"))
        return z


class Plain(nn.Module):
    """What `Defender` computes, for use alone: nothing in it is trained."""

    @torch.no_grad()
    def __init__(self, defender: Defender) -> None:
        super().__init__()
        self.shape, self.eps = defender.shape, defender.eps
        patches, last = defender.x_embedder["proj"], defender.final_layer
        self.register_buffer("patches", patches.weight.flatten(1).clone())
        self.register_buffer("table", defender.pos_embed + patches.bias)
        self.blocks = nn.ModuleList(PlainBlock(block) for block in defender.blocks)
        self.last = Linear(last.linear, *last.adaLN_modulation[1].bias.chunk(2))

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:  # [B, 3, S, S] in [-1, 1] -> perturbation, same shape and units
        """The perturbation, within the budget, in at least float32. Raises ValueError for another size of picture."""
        side, patch = self.shape.input_size, self.shape.patch_size
        exact = torch.promote_types(self.patches.dtype, torch.float32)
        if tuple(image.shape[-3:]) != (3, side, side):
            raise ValueError(f"the defender takes pictures of {side}x{side}, not {tuple(image.shape[-2:])}")
        # Tokens first in memory: behind a convolution they would be scattered, and every norm would gather them anew.
        image = image.to(self.patches.dtype)
        z = F.linear(F.pixel_unshuffle(image, patch).flatten(2).transpose(1, 2), self.patches) + self.table
        for block in self.blocks:
            z = block(z)
        # Bounded in float32: rounded to fewer bits, the largest could leave the budget.
        return bounded_perturbation(unpatchify(self.last(_norm(z)), patch).to(exact), self.eps)


def _norm(z: Tensor) -> Tensor:  # [B, N, C]
    return F.layer_norm(z, z.shape[-1:], eps=1e-6)
