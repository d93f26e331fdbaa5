"""Training a Flux transformer by rectified flow, on any machine with a few cores (Liu et al. 2022; Esser et al.
2024).

The straight path is x_t = (1 - t) x + t e and the target is v = e - x. Both text encoders are trained along with
the transformer. Half way through the transformer a linear reader is asked what lies where in the picture, since a
network that has to know this early learns to draw it much sooner (representation alignment, Yu et al. 2025, with
the world's own truth in place of a pretrained encoder's features); the reader is thrown away afterwards. The loop is
`engines.shared.training`. Does not know where latents and captions come from: a `Batches` object hands them over.
"""

from __future__ import annotations

from typing import Protocol

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from engines.shared.training import beside

TIME_MEAN, TIME_STD = 0.5, 1.15  # of the logit-normal times; above 0 means more noise, where shapes are decided
READING = 0.3  # weight of the layout's error


class Batches(Protocol):
    """Training data, the same for the same arguments."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised latents [B, C, H, W], token ids [B, T] and layouts [B, K, H/2, W/2] of deviation about 1.

        Captions are already dropped where they should be.
        """
        ...


class FluxStudent(nn.Module):
    """The three networks that learn together, called exactly as `FluxPipeline` calls them, and the reader."""

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        channels: int,  # of the layouts to be read
    ) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = transformer, clip, t5
        width = transformer.inner_dim
        self.reader = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))

    def forward(
        self,
        latents: Tensor,  # [B, C, H, W], noised
        times: Tensor,  # [B], in [0, 1], 1 is pure noise
        tokens: Tensor,  # int64 [B, T]
    ) -> tuple[Tensor, Tensor]:  # velocity [B, C, H, W], layout [B, K, H/2, W/2] as the reader sees it
        height, width = latents.shape[-2:]
        middle: list[Tensor] = []
        with self._halfway().register_forward_hook(lambda _block, _given, out: middle.append(out[1])):
            velocity = self.transformer(
                hidden_states=pack(latents),
                timestep=times,
                pooled_projections=self.clip(tokens).pooler_output,
                encoder_hidden_states=self.t5(tokens).last_hidden_state,
                img_ids=grid_ids(height // 2, width // 2).to(latents.device),
                txt_ids=torch.zeros(tokens.shape[1], 3, device=latents.device),
                return_dict=False,
            )[0]
        layout = self.reader(middle[0]).transpose(1, 2).unflatten(2, (height // 2, width // 2))
        return unpack(velocity, height, width), layout

    def _halfway(self) -> nn.Module:
        """The block after whose output about half of all blocks have been passed, the double ones counted in."""
        blocks = self.transformer.single_transformer_blocks
        return blocks[(len(blocks) - 1) // 3]


def pack(latents: Tensor) -> Tensor:  # [B, C, H, W] -> [B, HW/4, 4C]
    """2x2 patches to tokens, in the order of `FluxPipeline._pack_latents`."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens: Tensor, h: int, w: int) -> Tensor:  # [B, HW/4, 4C] -> [B, C, H, W]
    """The inverse of `pack`."""
    b, _, c = tokens.shape
    return tokens.reshape(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def grid_ids(rows: int, columns: int) -> Tensor:  # -> float32 [rows * columns, 3]
    """Positions of image tokens: (0, row, column)."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).float()


def flow_loss(
    student: nn.Module,
    latents: Tensor,  # [B, C, H, W], normalised
    tokens: Tensor,  # int64 [B, T]
    layouts: Tensor,  # [B, K, H/2, W/2]
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of velocity and layout, at stratified logit-normal times."""
    count = len(latents)
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    times = torch.sigmoid(TIME_MEAN + TIME_STD * torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))).to(
        latents.device
    )
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = times[:, None, None, None]
    velocity, seen = student((1 - t) * latents + t * noise, times, tokens)
    return (velocity - (noise - latents)).square().mean(), (seen - layouts).square().mean()


class Flow:
    """The task of `engines.shared.training`: the flow of what a source of batches hands over."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses, weighted."""
        velocity, layout = flow_loss(student, *beside(student, self.batches.draw(count, generator)), generator)
        return {"velocity": velocity, "layout": READING * layout}


def hidden(name: str, weight: Tensor) -> bool:
    """The matrices inside the transformer's blocks."""
    return name.startswith("transformer.") and "_blocks." in name and weight.ndim == 2
