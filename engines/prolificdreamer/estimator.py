"""phi, the network that knows the particles: what noise it sees in their renders is subtracted from the teacher's.

ProlificDreamer (arXiv 2305.16213), section 3.2 and appendix: the teacher itself with low-rank adapters and a camera
embedding, a second model with adapters, a full copy, or a small U-Net without text. Adapters on a shared network are
off except while phi itself is asked, and gone afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from engines.prolificdreamer.vsd import Prediction, camera_embedding

POSE = 16  # numbers of a camera-to-world matrix
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]  # of self- and cross-attention
ADAPTER = "phi"
SMALL_WIDTHS = (128, 256, 384, 512)  # of the small U-Net on 64 x 64 latents


class CameraEmbedding(nn.Module):
    """Pose [B, 4, 4] -> [B, D], to be added to the embedding of time; a dropped pose is all zeros."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(POSE, width), nn.Linear(width, width)
        with torch.no_grad():
            for layer in (self.first, self.second):
                for parameter in layer.parameters():
                    drawn = 2 * torch.rand(parameter.shape, generator=generator) - 1
                    parameter.copy_(layer.in_features**-0.5 * drawn)

    def forward(self, c2w: Tensor, drop: Tensor | None = None) -> Tensor:
        """See `vsd.camera_embedding`."""
        return camera_embedding(c2w, self.first.weight, self.first.bias, self.second.weight, self.second.bias, drop)


class Estimator:
    """A network with a camera; `parameters` are what is trained."""

    def __init__(
        self,
        network: nn.Module,
        camera: CameraEmbedding,
        prediction_type: Prediction,
        *,
        reads: bool,  # whether the network takes a text
        shared: bool,  # whether the network belongs to others, so that its adapters must be off between calls
        trained: list[nn.Parameter],
    ) -> None:
        self.network, self.camera, self.prediction_type = network, camera, prediction_type
        self.reads, self.shared = reads, shared
        self._trained = trained

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the network and of the camera embedding."""
        return [*self._trained, *self.camera.parameters()]

    def __call__(
        self,
        x_t: Tensor,  # [B, C, h, w]
        t: Tensor,  # int64 [B]
        text: Tensor,  # [B, L, D], of the plain prompt
        c2w: Tensor,  # [B, 4, 4]
        drop: Tensor | None = None,  # bool [B], poses that are not told
    ) -> Tensor:  # [B, C, h, w], of its own prediction type, float32
        """Never guided."""
        dtype = next(self.network.parameters()).dtype
        told = self.camera(c2w, drop).to(dtype)
        given = {"encoder_hidden_states": text.to(dtype)} if self.reads else {}
        with self._on():
            return self.network(x_t.to(dtype), t, class_labels=told, **given).sample.float()

    @contextmanager
    def _on(self) -> Iterator[None]:
        if not self.shared:
            yield
            return
        before = self.network.class_embedding
        try:
            self.network.class_embedding = nn.Identity()
            self._switch(on=True)
            yield
        finally:
            self.network.class_embedding = before
            self._switch(on=False)

    def _switch(self, *, on: bool) -> None:
        (self.network.enable_adapters if on else self.network.disable_adapters)()
        for parameter in self._trained:  # switching freezes them, also for a backward pass that is still to come
            parameter.requires_grad_(True)

    def state(self) -> dict[str, Tensor]:
        """What was trained, by position."""
        return {f"{index:04d}": parameter.detach().clone() for index, parameter in enumerate(self.parameters)}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for index, parameter in enumerate(self.parameters):
            parameter.copy_(state[f"{index:04d}"])


@contextmanager
def lora_estimator(
    unet: nn.Module, prediction_type: Prediction, rank: int, generator: torch.Generator
) -> Iterator[Estimator]:
    """Adapters of this rank on every attention of `unet`, which is otherwise frozen; taken off at the end.

    A is normal with deviation 1 / rank and B zero, so phi starts as the network itself.
    """
    from peft import LoraConfig

    before = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
    had_config = getattr(unet, "_hf_peft_config_loaded", False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            unet.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS),
                adapter_name=ADAPTER,
            )
        known = {id(parameter) for parameter, _ in before}
        trained = [parameter for parameter in unet.parameters() if id(parameter) not in known]
        for parameter in trained:
            parameter.data = parameter.data.float()
        unet.disable_adapters()
        camera = CameraEmbedding(_time_width(unet), generator).to(next(unet.parameters()).device)
        yield Estimator(unet, camera, prediction_type, reads=True, shared=True, trained=trained)
    finally:
        if not had_config and getattr(unet, "_hf_peft_config_loaded", False):
            unet.unload_lora()
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


@contextmanager
def copy_estimator(unet: nn.Module, prediction_type: Prediction, generator: torch.Generator) -> Iterator[Estimator]:
    """A copy of the teacher, trained as a whole: dearer than adapters, and follows the particles faster."""
    network = copy.deepcopy(unet).float().requires_grad_(True)
    network.class_embedding = nn.Identity()
    camera = CameraEmbedding(_time_width(unet), generator).to(next(unet.parameters()).device)
    with torch.no_grad():  # starts as the teacher: poses say nothing yet
        camera.second.weight.zero_()
        camera.second.bias.zero_()
    trained = list(network.parameters())
    yield Estimator(network, camera, prediction_type, reads=True, shared=False, trained=trained)


@contextmanager
def small_estimator(channels: int, cells: int, device: str, generator: torch.Generator) -> Iterator[Estimator]:
    """A U-Net from nothing that knows no text and predicts v, as published for 64 x 64 latents; narrower below."""
    widths = tuple(width * min(cells, 64) // 64 for width in SMALL_WIDTHS) if cells >= 32 else (32, 64)
    depth = len(widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = UNet2DModel(
            sample_size=cells,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=widths,
            norm_num_groups=min(32, widths[0] // 4),
            attention_head_dim=min(8, widths[0] // 4),
            down_block_types=("DownBlock2D", *("AttnDownBlock2D",) * (depth - 1)),
            up_block_types=(*("AttnUpBlock2D",) * (depth - 1), "UpBlock2D"),
            class_embed_type="identity",
        ).to(device)
    camera = CameraEmbedding(4 * widths[0], generator).to(device)
    trained = list(network.parameters())
    yield Estimator(network, camera, "v_prediction", reads=False, shared=False, trained=trained)


def _time_width(unet: Any) -> int:
    """Channels of the embedding of time, which the camera is added to."""
    return int(unet.time_embedding.linear_2.out_features)
