"""The frozen text-to-image model: pictures in, latents out, and what it takes for the noise in them.

Works with every Stable Diffusion folder, whatever its network predicts. Parameters get no gradients and come back as
they were. Knows neither fields nor the estimator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from engines.prolificdreamer.renderer import resized
from engines.prolificdreamer.vsd import Prediction, convert_prediction


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """No parameter of these modules collects a gradient inside; what did before does again afterwards."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)


@torch.no_grad()
def read_prompts(
    encoder: nn.Module, tokenizer: Any, prompts: Sequence[str], device: str
) -> dict[str, Tensor]:  # [L, D] each
    """The text encoder's last hidden states, as the Stable Diffusion pipelines use them."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    masked = getattr(encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(device) if masked else None
    states = encoder(tokens.input_ids.to(device), attention_mask=mask).last_hidden_state
    return dict(zip(prompts, states, strict=True))


class Teacher:
    """A denoiser with its autoencoder and its texts."""

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: dict[str, Any],  # the configuration of the folder's scheduler
        texts: dict[str, Tensor],  # prompt -> [L, D]
    ) -> None:
        self.unet, self.vae, self.texts = unet, vae, texts
        self.device, self.dtype = next(unet.parameters()).device, next(unet.parameters()).dtype
        self.alphas_cumprod = alphas_of(scheduler).to(self.device)
        self.prediction_type: Prediction = scheduler.get("prediction_type", "epsilon")
        self.channels = int(unet.config.in_channels)
        self.cells = int(unet.config.sample_size)  # of the latents, a side
        self.pixels = self.cells * 2 ** (len(vae.config.block_out_channels) - 1)
        self._shift = getattr(vae.config, "shift_factor", None) or 0.0
        self._scale = float(vae.config.scaling_factor)

    def encode(self, image: Tensor, noise: Tensor) -> Tensor:  # [B, 3, S, S] in [0, 1], [B, C, h, w] -> [B, C, h, w]
        """A sample of the posterior, scaled; the gradient goes back to the picture."""
        picture = 2 * resized(image, self.pixels) - 1
        posterior = self.vae.encode(picture.to(self.dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * noise
        return (latents - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:  # [B, C, h, w] -> [B, 3, S, S], unclamped, about [0, 1]
        """Pictures of latents."""
        parts = [
            self.vae.decode((part / self._scale + self._shift).to(self.dtype)).sample.float()
            for part in latents.split(8)
        ]
        return (torch.cat(parts) + 1) / 2

    @torch.no_grad()
    def epsilon(self, x_t: Tensor, t: Tensor, texts: Sequence[Tensor]) -> list[Tensor]:
        """The noise predicted at x_t [B, C, h, w], int64 t [B], for each of the texts [B, L, D], in float32."""
        count = len(texts)
        noisy, steps = torch.cat([x_t] * count), torch.cat([t] * count)
        predicted = self.unet(noisy.to(self.dtype), steps, torch.cat(list(texts)).to(self.dtype)).sample.float()
        abar = self.alphas_cumprod[steps]
        return list(convert_prediction(predicted, noisy, abar, self.prediction_type, "epsilon").chunk(count))

    def text(self, prompts: Sequence[str]) -> Tensor:  # [B, L, D]
        """Texts that were read, one for each sample."""
        return torch.stack([self.texts[prompt] for prompt in prompts])


def alphas_of(scheduler: dict[str, Any]) -> Tensor:  # float32 [N]
    """alpha_bar of a scheduler's configuration, whatever class wrote it."""
    return DDPMScheduler.from_config(scheduler).alphas_cumprod
