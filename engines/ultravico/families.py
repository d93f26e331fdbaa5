"""The published video architectures behind one interface: prompts in, velocities and frames out.

A family knows how its diffusers pipeline encodes prompts, lays out latents, calls the transformer, mixes guidance,
and scales its autoencoder; the sampler knows only latents and what to do with them. Results equal the pipelines' own
bit for bit. Loads nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXPipeline, HunyuanVideoPipeline, WanImageToVideoPipeline, WanPipeline
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor, nn

from engines.ultravico.rope import axis_positions, rope_frequencies, table_3d
from studio.errors import InvalidInput

LONGEST_TEXT = 512  # umT5 tokens


@dataclass(frozen=True)
class Condition:
    """What a transformer is told about one prompt (or one for each video of a batch)."""

    embeds: Tensor  # [B, T, D]
    pooled: Tensor | None = None  # [B, P]
    mask: Tensor | None = None  # [B, T]
    image: Tensor | None = None  # [B, I, D], tokens of the picture a video starts from
    frames: Tensor | None = None  # [B, C', F, h, w], what is known of the video, beside the noisy latents


@dataclass(frozen=True)
class Shape:
    """The size of one video."""

    latent_frames: int
    frames: int
    height: int  # pixels
    width: int


class Family(ABC):
    """One architecture; `configs` are its components' configurations, as stored beside the weights."""

    text_parts: tuple[str, ...] = ("tokenizer", "text_encoder")
    theta = 10_000.0  # of the temporal rotary frequencies
    frames_first = False  # whether latents are [B, F, C, h, w] instead of [B, C, F, h, w]
    table_outside = False  # whether the rotary table is made by the pipeline and handed in

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        transformer, vae = configs["transformer"], configs["vae"]
        self.transformer, self.vae = transformer, vae
        self.spatial = self.vae_scale(vae)
        self.patch = self.patch_side(transformer)
        self.cell = self.spatial * self.patch  # pixels a token
        self.heads: int = transformer["num_attention_heads"]
        self.head_dim: int = transformer["attention_head_dim"]
        self.channels: int = self.latent_channels(configs)
        self.temporal_dim: int = self.temporal_channels(transformer)

    # -- what configurations say -----------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """Pixels a latent pixel."""

    @staticmethod
    @abstractmethod
    def patch_side(config: Mapping[str, Any]) -> int:
        """Latent pixels a token."""

    @staticmethod
    @abstractmethod
    def temporal_channels(config: Mapping[str, Any]) -> int:
        """Channels of a head that rotate with time."""

    @staticmethod
    def latent_channels(configs: Mapping[str, Mapping[str, Any]]) -> int:
        """Channels of a latent video."""
        return int(configs["transformer"]["in_channels"])

    @property
    def rotary(self) -> bool:
        """Whether positions are rotary."""
        return True

    def tokens_per_frame(self, shape: Shape) -> int:
        """Video tokens of one latent frame."""
        return (shape.height // self.cell) * (shape.width // self.cell)

    # -- prompts and noise -----------------------------------------------------------------------------------------

    @abstractmethod
    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """The condition of a batch of prompts."""

    def draw_noise(self, shape: Shape, generators: Sequence[torch.Generator], device: str, dtype: Any) -> Tensor:
        """One noisy video for each generator, in the layout of the family."""
        sides = (shape.height // self.spatial, shape.width // self.spatial)
        one = (shape.latent_frames, self.channels) if self.frames_first else (self.channels, shape.latent_frames)
        noise = [
            randn_tensor((1, *one, *sides), generator=generator, device=torch.device(device), dtype=dtype)
            for generator in generators
        ]
        return torch.cat(noise)

    def noise_dtype(self, _embeds: Tensor) -> torch.dtype:
        """In which precision latents are kept."""
        return torch.float32

    # -- one step --------------------------------------------------------------------------------------------------

    def timesteps(self, scheduler: Any, steps: int, device: str) -> Tensor:
        """Prepare a scheduler of one's own for a run."""
        scheduler.set_timesteps(steps, device=device)
        return scheduler.timesteps

    @abstractmethod
    def forward(
        self, transformer: nn.Module, latents: Tensor, timestep: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        """One pass of one branch on latents in the transformer's precision; `timestep` is a scalar tensor."""

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        timestep: Tensor,  # scalar, as the scheduler counts
        conditions: Sequence[Condition],  # conditional, and unconditional if guidance is classifier-free
        scale: float,
        frequencies: Tensor | None = None,  # temporal, for a family whose table is made outside
    ) -> Tensor:
        """The guided prediction at one noise level."""
        given = latents.to(conditions[0].embeds.dtype)
        results = [self.forward(transformer, given, timestep, one, scale) for one in conditions]
        return results[0] if len(results) == 1 else results[1] + scale * (results[0] - results[1])

    def clean(self, scheduler: Any, index: int, latents: Tensor, prediction: Tensor) -> Tensor:
        """Where a step is heading: latents without noise."""
        return latents - float(scheduler.sigmas[index]) * prediction

    def step(
        self,
        scheduler: Any,
        index: int,
        prediction: Tensor,
        latents: Tensor,
        memory: dict[str, Any],  # what a scheduler wants to see again in the next step; changed
        generator: torch.Generator,
    ) -> Tensor:
        """The next latents."""
        return scheduler.step(prediction, scheduler.timesteps[index], latents, return_dict=False)[0]

    # -- frames ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """Latents [B, C, F, h, w] as the autoencoder's decoder takes them."""

    def decode(self, vae: nn.Module, latents: Tensor, *, tiles: bool) -> np.ndarray:
        """Videos uint8 [B, T, H, W, 3]; in overlapping tiles where memory asks for it."""
        with tiled(vae, tiles):
            pixels = vae.decode(self.to_vae(vae, latents), return_dict=False)[0]
        frames = VideoProcessor(vae_scale_factor=self.spatial).postprocess_video(pixels, output_type="np")
        return (np.asarray(frames) * 255).round().astype(np.uint8)

    def middle(self, latents: Tensor) -> Tensor:
        """The latent frame in the middle, as a video of one frame."""
        axis = 1 if self.frames_first else 2
        return latents.narrow(axis, latents.shape[axis] // 2, 1)


class WanFamily(Family):
    """Wan2.1 from text, and the pocket model."""

    @staticmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """As the autoencoder states it."""
        return int(config.get("scale_factor_spatial", 8))

    @staticmethod
    def patch_side(config: Mapping[str, Any]) -> int:
        """Square patches of single frames."""
        return int(config["patch_size"][1])

    @staticmethod
    def temporal_channels(config: Mapping[str, Any]) -> int:
        """What rows and columns leave over."""
        return int(config["attention_head_dim"] - 4 * (config["attention_head_dim"] // 6))

    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """umT5 embeddings, up to the tokenizer's own length or 512."""
        pipe = WanPipeline(scheduler=None, vae=None, transformer=None, **parts)
        longest = min(LONGEST_TEXT, parts["tokenizer"].model_max_length)
        embeds, _ = pipe.encode_prompt(
            list(prompts), None, False, max_sequence_length=longest, device=torch.device(device)
        )
        return Condition(embeds)

    def forward(
        self, transformer: nn.Module, latents: Tensor, timestep: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        """Text through cross-attention; a picture's latents beside the noise, its tokens beside the text."""
        if condition.frames is not None:
            latents = torch.cat([latents, condition.frames.to(latents.dtype)], dim=1)
        return transformer(
            hidden_states=latents,
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=condition.embeds,
            encoder_hidden_states_image=condition.image,
            return_dict=False,
        )[0]

    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """z * std + mean."""
        latents = latents.to(vae.dtype)
        mean, inverse = self.statistics(vae, latents)
        return latents / inverse + mean

    def statistics(self, vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and inverse deviation of the latents, [1, C, 1, 1, 1]."""
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return mean.to(like), 1.0 / deviation.to(like)  # rounded before inverting, as the pipeline does


class WanImageFamily(WanFamily):
    """Wan2.1 that starts from a picture: the picture is seen by an image encoder and as the first frame."""

    image_parts = ("image_encoder", "image_processor")

    @staticmethod
    def latent_channels(configs: Mapping[str, Mapping[str, Any]]) -> int:
        """Noise alone; the transformer's other inputs are the known frame and its mask."""
        return int(configs["vae"]["z_dim"])

    def see(self, parts: Mapping[str, Any], picture: Image.Image, device: str) -> Tensor:  # [1, I, D]
        """The picture's tokens."""
        pipe = WanImageToVideoPipeline(None, None, None, None, **parts)
        return pipe.encode_image(picture, torch.device(device))

    def first_frame(self, vae: nn.Module, picture: Image.Image, shape: Shape, device: str) -> Tensor:
        """The mask and the latents of a video of which only the first frame is known, [1, 4 + C, F, h, w]."""
        pipe = WanImageToVideoPipeline(None, None, vae, None)
        pixels = pipe.video_processor.preprocess(picture, height=shape.height, width=shape.width)
        _, known = pipe.prepare_latents(
            pixels.to(device, dtype=torch.float32),
            1,
            self.channels,
            shape.height,
            shape.width,
            shape.frames,
            torch.float32,
            torch.device(device),
            torch.Generator().manual_seed(0),  # draws noise that is not used
        )
        return known


class HunyuanFamily(Family):
    """HunyuanVideo: text in the joint sequence, guidance distilled into the network."""

    text_parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(configs)
        self.theta = float(configs["transformer"]["rope_theta"])

    @staticmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """As the autoencoder states it."""
        return int(config.get("spatial_compression_ratio", 8))

    @staticmethod
    def patch_side(config: Mapping[str, Any]) -> int:
        """Square patches of single frames."""
        return int(config["patch_size"])

    @staticmethod
    def temporal_channels(config: Mapping[str, Any]) -> int:
        """The first of the rotary axes."""
        return int(config["rope_axes_dim"][0])

    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """Llama states with their mask, and CLIP's pooled state."""
        pipe = HunyuanVideoPipeline(transformer=None, vae=None, scheduler=None, **parts)
        embeds, pooled, mask = pipe.encode_prompt(list(prompts), device=torch.device(device))
        return Condition(embeds, pooled, mask)

    def timesteps(self, scheduler: Any, steps: int, device: str) -> Tensor:
        """Evenly spaced noise levels, then the scheduler's shift."""
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=device)
        return scheduler.timesteps

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        timestep: Tensor,
        conditions: Sequence[Condition],
        scale: float,
        frequencies: Tensor | None = None,
    ) -> Tensor:
        """Time is rounded as the latents are, which the solver rounds as the network does."""
        return super().velocity(transformer, latents, timestep.to(latents.dtype), conditions, scale, frequencies)

    def forward(
        self, transformer: nn.Module, latents: Tensor, timestep: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        """Guidance is an input."""
        assert condition.pooled is not None
        assert condition.mask is not None
        dtype = transformer.dtype
        return transformer(
            hidden_states=latents.to(dtype),
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=condition.embeds.to(dtype),
            encoder_attention_mask=condition.mask.to(dtype),
            pooled_projections=condition.pooled.to(dtype),
            guidance=torch.full((len(latents),), scale, dtype=dtype, device=latents.device) * 1000.0,
            return_dict=False,
        )[0]

    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """z / scaling."""
        return latents.to(vae.dtype) / vae.config.scaling_factor


class CogVideoXFamily(Family):
    """CogVideoX 1.0: text first in the joint sequence, v-prediction, both branches in one pass."""

    frames_first = True
    table_outside = True

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(configs)
        if configs["transformer"].get("patch_size_t") is not None:
            raise InvalidInput(
                "CogVideoX 1.5 joins latent frames to tokens, which nobody has extended with this method.",
                "Use CogVideoX 1.0.",
                field="model",
            )

    @staticmethod
    def vae_scale(config: Mapping[str, Any]) -> int:
        """Every level but the last halves the side."""
        return 2 ** (len(config["block_out_channels"]) - 1)

    @staticmethod
    def patch_side(config: Mapping[str, Any]) -> int:
        """Square patches of single frames."""
        return int(config["patch_size"])

    @staticmethod
    def temporal_channels(config: Mapping[str, Any]) -> int:
        """A quarter of the head."""
        return int(config["attention_head_dim"] // 4)

    @property
    def rotary(self) -> bool:
        """The small model adds positions instead."""
        return bool(self.transformer["use_rotary_positional_embeddings"])

    def encode(self, parts: Mapping[str, Any], prompts: Sequence[str], device: str) -> Condition:
        """T5 states, all of which count."""
        tokens = int(self.transformer["max_text_seq_length"])
        pipe = CogVideoXPipeline(vae=None, transformer=None, scheduler=None, **parts)
        embeds, _ = pipe.encode_prompt(
            list(prompts), None, False, max_sequence_length=tokens, device=torch.device(device)
        )
        return Condition(embeds)

    def noise_dtype(self, embeds: Tensor) -> torch.dtype:
        """That of the network."""
        return embeds.dtype

    def velocity(
        self,
        transformer: nn.Module,
        latents: Tensor,
        timestep: Tensor,
        conditions: Sequence[Condition],
        scale: float,
        frequencies: Tensor | None = None,
    ) -> Tensor:
        """Both branches at once, unconditional first; the table from `frequencies`, or the trained ones."""
        embeds = torch.cat([one.embeds for one in reversed(conditions)])
        given = torch.cat([latents] * len(conditions))
        prediction = transformer(
            hidden_states=given,
            encoder_hidden_states=embeds,
            timestep=timestep.expand(len(given)),
            image_rotary_emb=self.table(latents, frequencies) if self.rotary else None,
            return_dict=False,
        )[0].float()
        if len(conditions) == 1:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    def forward(
        self, transformer: nn.Module, latents: Tensor, timestep: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        """One branch alone."""
        return self.velocity(transformer, latents, timestep, [condition], scale)

    def table(self, latents: Tensor, frequencies: Tensor | None) -> tuple[Tensor, Tensor]:
        """cos and sin [F * h * w, head_dim] for latents [B, F, C, h, w]."""
        rows, columns = (side // self.patch for side in latents.shape[-2:])
        base = (self.transformer["sample_height"] // self.patch, self.transformer["sample_width"] // self.patch)
        if frequencies is None:  # to the last bit what the pipeline computes in float32
            crop = get_resize_crop_region_for_grid((rows, columns), base[1], base[0])
            return get_3d_rotary_pos_embed(
                self.head_dim, crop, (rows, columns), latents.shape[1], device=latents.device
            )
        spatial = [rope_frequencies(self.head_dim // 8 * 3, self.theta)] * 2
        places = axis_positions("cogvideox", latents.shape[1], rows, columns, base)
        cos, sin = table_3d([frequencies, *spatial], places)
        return cos.to(latents.device), sin.to(latents.device)

    def clean(self, scheduler: Any, index: int, latents: Tensor, prediction: Tensor) -> Tensor:
        """sqrt(a) x - sqrt(1 - a) v."""
        share = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
        return (share**0.5 * latents - (1 - share) ** 0.5 * prediction).to(latents.dtype)

    def step(
        self,
        scheduler: Any,
        index: int,
        prediction: Tensor,
        latents: Tensor,
        memory: dict[str, Any],
        generator: torch.Generator,
    ) -> Tensor:
        """The DPM solver of this family wants its last clean prediction and the last timestep."""
        time, before = scheduler.timesteps[index], scheduler.timesteps[index - 1] if index else None
        if type(scheduler).__name__ != "CogVideoXDPMScheduler":
            stepped = scheduler.step(prediction, time, latents, generator=generator, return_dict=False)[0]
            return stepped.to(latents.dtype)
        stepped, memory["clean"] = scheduler.step(
            prediction, memory.get("clean"), time, before, latents, generator=generator, return_dict=False
        )
        return stepped.to(latents.dtype)

    def to_vae(self, vae: nn.Module, latents: Tensor) -> Tensor:
        """z / scaling, frames second."""
        return 1 / vae.config.scaling_factor * latents.permute(0, 2, 1, 3, 4)

    def decode(self, vae: nn.Module, latents: Tensor, *, tiles: bool) -> np.ndarray:
        """The first latent frame is one frame and not four, which the decoder does for an odd count of them only.

        An even count, for which the plain pipeline returns three frames too many, is decoded with its last frame
        twice, and what that adds is cut off.
        """
        count = latents.shape[1]
        if count % 2 == 0:
            latents = torch.cat([latents, latents[:, -1:]], dim=1)
        wanted = int(self.vae["temporal_compression_ratio"]) * (count - 1) + 1
        return super().decode(vae, latents, tiles=tiles)[:, :wanted]


FAMILIES: dict[str, type[Family]] = {
    "WanPipeline": WanFamily,
    "WanImageToVideoPipeline": WanImageFamily,
    "HunyuanVideoPipeline": HunyuanFamily,
    "CogVideoXPipeline": CogVideoXFamily,
}


@contextmanager
def tiled(vae: nn.Module, on: bool) -> Iterator[None]:
    """Decode in the autoencoder's own tiles inside the block, and leave the shared autoencoder as it was."""
    before = getattr(vae, "use_tiling", False)
    vae.use_tiling = on
    try:
        yield
    finally:
        vae.use_tiling = before
