"""The two published architectures behind one interface: prompts in, velocities and pictures out.

A family knows how its diffusers pipeline packs latents, calls the transformer, mixes guidance and scales its VAE; the
sampler knows only unpacked latents [B, C, H, W]. Results equal the pipelines' own bit for bit. Loads nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline, QwenImagePipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn

from engines.ultraimage.hooks import Focus
from engines.ultraimage.rope import flux_grid_ids

TILE, OVERLAP = 1024, 0.25  # pixels a side of a decoding tile, and the share that is blended


@dataclass(frozen=True)
class Condition:
    """What a transformer is told about one prompt (or one for each picture of a batch)."""

    embeds: Tensor  # [B, T, D]
    pooled: Tensor | None = None  # [B, P]
    mask: Tensor | None = None  # [B, T], None: all tokens count

    @property
    def tokens(self) -> int:
        """Text tokens in the joint sequence."""
        return self.embeds.shape[1]


class Family(ABC):
    """One architecture; `configs` are its components' configurations, as stored beside the weights."""

    text_parts: tuple[str, ...]  # components that `encode` needs

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer = configs["transformer"]
        self.channels: int = transformer["in_channels"] // 4
        self.heads: int = transformer["num_attention_heads"]
        self.head_dim: int = transformer["attention_head_dim"]
        self.layers: int = transformer["num_layers"] + transformer.get("num_single_layers", 0)
        self.distilled: bool = transformer.get("guidance_embeds", False)
        self.cell: int = self.vae_scale(configs["vae"]) * 2  # pixels a token

    @staticmethod
    @abstractmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """Pixels a latent pixel."""

    @abstractmethod
    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """The condition of a batch of prompts."""

    @abstractmethod
    def forward(
        self, transformer: nn.Module, packed: Tensor, time: Tensor, at: Condition, grid: tuple[int, int], scale: float
    ) -> Tensor:
        """One pass on packed latents [B, N, 4C] at `time` [B] in [0, 1]."""

    @abstractmethod
    def mix(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance on packed velocities [B, N, 4C]."""

    @abstractmethod
    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Latents [B, C, H, W] as the VAE's decoder takes them."""

    @abstractmethod
    def decode_raw(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] from latents [B, C, H, W]."""

    @abstractmethod
    def encode_picture(self, vae: nn.Module, picture: Tensor, generator: torch.Generator) -> Tensor:
        """Latents [B, C, H, W] sampled from the posterior of a picture [B, 3, H, W] in [-1, 1]."""

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of a picture in pixels."""
        return self.channels, height // self.cell * 2, width // self.cell * 2

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,  # [B, C, H, W]
        timestep: Tensor,  # scalar, 1000 sigma
        conditions: Sequence[Condition],  # conditional, and unconditional if guidance is classifier-free
        scale: float,
        focus: Focus | None = None,
    ) -> Tensor:  # [B, C, H, W]
        """The guided velocity at one noise level."""
        batch, channels, height, width = latents.shape
        packed = FluxPipeline._pack_latents(latents, batch, channels, height, width)
        time = timestep.expand(batch).to(latents.dtype) / 1000
        results = []
        for branch, condition in enumerate(conditions):
            if focus is not None:
                focus.branch = branch
            results.append(self.forward(transformer, packed, time, condition, (height // 2, width // 2), scale))
        mixed = results[0] if len(results) == 1 else self.mix(results[0], results[1], scale)
        return FluxPipeline._unpack_latents(mixed, height * 8, width * 8, 8)

    def decode(self, vae: nn.Module, latents: Tensor, *, tiles: bool) -> list[Image.Image]:
        """Pictures of latents [B, C, H, W]; in overlapping tiles where memory asks for it."""
        with tiled(vae, tiles, self.cell // 2):
            pixels = self.decode_raw(vae, latents)
        return VaeImageProcessor(vae_scale_factor=self.cell).postprocess(pixels, output_type="pil")


class FluxFamily(Family):
    """FLUX.1 and everything of its pipeline class."""

    text_parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")

    @staticmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """Every down block but the last halves the side."""
        return 2 ** (len(config["block_out_channels"]) - 1)

    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """Pooled CLIP and sequential T5 embeddings, up to the tokenizer's own length or 512."""
        pipe = FluxPipeline(scheduler=None, vae=None, transformer=None, **parts)
        longest = min(512, parts["tokenizer_2"].model_max_length)
        embeds, pooled, _ = pipe.encode_prompt(
            list(prompts), None, device=torch.device(device), max_sequence_length=longest
        )
        return Condition(embeds, pooled)

    def forward(
        self, transformer: nn.Module, packed: Tensor, time: Tensor, at: Condition, grid: tuple[int, int], scale: float
    ) -> Tensor:
        """Positions are float32 whatever the weights' type; distilled guidance is an input."""
        guidance = torch.full((len(packed),), scale, device=packed.device) if self.distilled else None
        ids = flux_grid_ids(at.tokens, *grid, device=packed.device)
        return transformer(
            hidden_states=packed,
            timestep=time,
            guidance=guidance,
            pooled_projections=at.pooled,
            encoder_hidden_states=at.embeds,
            txt_ids=ids[: at.tokens],
            img_ids=ids[at.tokens :],
            joint_attention_kwargs={},
            return_dict=False,
        )[0]

    def mix(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """v_u + s (v_c - v_u)."""
        return unconditional + scale * (conditional - unconditional)

    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """z / scaling + shift."""
        return (latents / vae.config.scaling_factor) + vae.config.shift_factor

    def decode_raw(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Scaled and decoded."""
        return vae.decode(self.to_vae(vae, latents), return_dict=False)[0]

    def encode_picture(self, vae: nn.Module, picture: Tensor, generator: torch.Generator) -> Tensor:
        """(z - shift) * scaling."""
        z = vae.encode(picture.to(vae.dtype)).latent_dist.sample(generator)
        return (z - vae.config.shift_factor) * vae.config.scaling_factor


class QwenFamily(Family):
    """Qwen-Image: one text encoder, a VAE of single-frame videos, guidance rescaled to the conditional norm."""

    text_parts = ("tokenizer", "text_encoder")

    @staticmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """Every temporal entry is a level."""
        return 2 ** len(config["temperal_downsample"])

    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """Hidden states of the template's user part."""
        pipe = QwenImagePipeline(scheduler=None, vae=None, transformer=None, **parts)
        embeds, mask = pipe.encode_prompt(list(prompts), device=torch.device(device), max_sequence_length=512)
        return Condition(embeds, mask=mask)

    def forward(
        self, transformer: nn.Module, packed: Tensor, time: Tensor, at: Condition, grid: tuple[int, int], scale: float
    ) -> Tensor:
        """The grid is passed as a shape; positions are the transformer's own affair."""
        guidance = torch.full((len(packed),), scale, device=packed.device) if self.distilled else None
        return transformer(
            hidden_states=packed,
            timestep=time,
            guidance=guidance,
            encoder_hidden_states_mask=at.mask,
            encoder_hidden_states=at.embeds,
            img_shapes=[[(1, *grid)]] * len(packed),
            attention_kwargs={},
            return_dict=False,
        )[0]

    def mix(self, conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
        """Guided, then given the conditional velocity's norm per token."""
        mixed = unconditional + scale * (conditional - unconditional)
        wanted = torch.norm(conditional, dim=-1, keepdim=True)
        return mixed * (wanted / torch.norm(mixed, dim=-1, keepdim=True))

    def _statistics(self, vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and inverse deviation of the latents, [1, C, 1, 1, 1]."""
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return mean.to(like), 1.0 / deviation.to(like)  # rounded before inverting, as the pipeline does

    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """z * std + mean, with a frame axis."""
        latents = latents[:, :, None].to(vae.dtype)
        mean, inverse = self._statistics(vae, latents)
        return latents / inverse + mean

    def decode_raw(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Scaled, decoded, and the only frame taken."""
        return vae.decode(self.to_vae(vae, latents), return_dict=False)[0][:, :, 0]

    def encode_picture(self, vae: nn.Module, picture: Tensor, generator: torch.Generator) -> Tensor:
        """(z - mean) / std."""
        z = vae.encode(picture[:, :, None].to(vae.dtype)).latent_dist.sample(generator)
        mean, inverse = self._statistics(vae, z)
        return ((z - mean) * inverse)[:, :, 0]


FAMILIES: dict[str, type[Family]] = {"FluxPipeline": FluxFamily, "QwenImagePipeline": QwenFamily}

_TILING = (
    "use_tiling",
    "tile_sample_min_size",
    "tile_latent_min_size",
    "tile_overlap_factor",
    "tile_sample_min_height",
    "tile_sample_min_width",
    "tile_sample_stride_height",
    "tile_sample_stride_width",
)


@contextmanager
def tiled(vae: nn.Module, on: bool, scale: int) -> Iterator[None]:
    """Decode and encode in tiles of 1024 px blended over a quarter, and leave the shared VAE as it was.

    The Qwen-Image VAE's own tiles are 256 px, which makes 484 of them at 4096 px; these make 36.
    """
    before = {name: getattr(vae, name) for name in _TILING if hasattr(vae, name)}
    stride = int(TILE * (1 - OVERLAP))
    wanted = dict(zip(_TILING, (on, TILE, TILE // scale, OVERLAP, TILE, TILE, stride, stride), strict=True))
    try:
        for name in before if on else ("use_tiling",):
            setattr(vae, name, wanted[name])
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
