"""Training a Wan video transformer by rectified flow, on any machine with a few cores (Liu et al. 2022).

The straight path is x_t = (1 - t) x + t e and the target is v = e - x. The text encoder is trained along with the
transformer. Half way through it a linear reader is asked what lies where in every frame, since a network that has to
know this early learns to draw it much sooner (representation alignment, Yu et al. 2025, with the world's own truth in
place of a pretrained encoder's features); the reader is thrown away afterwards. Does not know where latents and
captions come from: a `Batches` object hands them over.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from engines.shared.training import beside

# Of the logit-normal times. A sampler with a shifted schedule spends a third of its steps above 0.95, where it is
# decided what goes where; so do these, and a sixth of the examples with them.
TIME_MEAN, TIME_STD = 1.5, 1.5
READING = 0.3  # weight of the reader's error
OBJECT = 1.0  # how much more an error counts at the object, in deviations of the layout's first channel


class Batches(Protocol):
    """Training data, the same for the same generator."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised latents [B, C, F, H, W], token ids and their mask [B, T], layouts [B, K, F, H/p, W/p].

        p is the patch of the transformer. Layouts have deviation about 1; the first channel says how near the object
        is, 0 where it is not. Captions are dropped already where they should be.
        """
        ...


class VideoStudent(nn.Module):
    """Transformer and text encoder, called as `WanPipeline` calls them, and the reader."""

    def __init__(self, transformer: WanTransformer3DModel, text: UMT5EncoderModel, channels: int) -> None:
        super().__init__()
        self.transformer, self.text = transformer, text
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        self.reader = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))

    def forward(
        self,
        latents: Tensor,  # [B, C, F, H, W], noised
        times: Tensor,  # [B], in [0, 1], 1 is pure noise
        tokens: Tensor,  # int64 [B, T]
        mask: Tensor,  # int64 [B, T], 1 where there is a word
    ) -> tuple[Tensor, Tensor]:  # velocity [B, C, F, H, W], layout [B, K, F, H/p, W/p] as the reader sees it
        middle: list[Tensor] = []
        blocks = self.transformer.blocks
        with blocks[len(blocks) // 2 - 1].register_forward_hook(lambda _block, _given, out: middle.append(out)):
            velocity = self.transformer(latents, 1000 * times, self.embed(tokens, mask)).sample
        patch = self.transformer.config.patch_size
        grid = [size // step for size, step in zip(latents.shape[2:], patch, strict=True)]
        return velocity, self.reader(middle[0]).transpose(1, 2).unflatten(2, grid)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:  # [B, T] twice -> [B, T, D]
        """Token states, zero where there is no word, as the pipeline pads them."""
        return self.text(tokens, attention_mask=mask).last_hidden_state * mask[..., None]


def flow_loss(
    student: nn.Module,
    latents: Tensor,  # [B, C, F, H, W], normalised
    tokens: Tensor,  # int64 [B, T]
    mask: Tensor,  # int64 [B, T]
    layouts: Tensor,  # [B, K, F, H/p, W/p]
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mean squared errors of velocity and layout, at stratified logit-normal times.

    The first channel of the layout says how near the object is. A small one covers a fiftieth of the picture: counted
    alike everywhere, its errors are nothing beside the wall's, and it fades out of the video.
    """
    count = len(latents)
    uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    times = torch.sigmoid(TIME_MEAN + TIME_STD * torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))).to(
        latents.device
    )
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = times[:, None, None, None, None]
    velocity, seen = student((1 - t) * latents + t * noise, times, tokens, mask)
    near = F.interpolate(layouts[:, :1], latents.shape[2:], mode="nearest")
    weight = 1 + OBJECT * near
    wrong = (velocity - (noise - latents)).square() * weight / weight.mean()
    return wrong.mean(), F.mse_loss(seen, layouts)


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
    return name.startswith("transformer.blocks.") and weight.ndim == 2
