"""A diffusion model as protection and thief see it: pictures to latents, noisy latents to predicted noise.

What stands between a perturbation and its effect is the encoder, so gradients flow through it; nothing flows through
the U-Net unless a thief trains it. Knows no file, no defender and no identity.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Diffusion(nn.Module):
    """Autoencoder, U-Net, text encoder and noise schedule of Stable Diffusion; frozen and in evaluation mode."""

    def __init__(self, vae: Any, unet: Any, text: Any, tokenizer: Any, scheduler: Any) -> None:
        super().__init__()
        self.vae, self.unet, self.text = vae, unet, text
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.alphas_cumprod: Tensor
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float().clone(), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def steps(self) -> int:
        """Timesteps of the schedule."""
        return len(self.alphas_cumprod)

    @property
    def side(self) -> int:
        """Pixels a side of its pictures."""
        return int(self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))

    def own_copy(self) -> Diffusion:
        """A model to train, in the same place: the autoencoder and the schedule shared, the rest copied."""
        return Diffusion(
            self.vae,
            copy.deepcopy(self.unet),
            copy.deepcopy(self.text),
            copy.deepcopy(self.tokenizer),
            self.scheduler,
        ).to(self.alphas_cumprod.device)

    def posterior(self, pictures: Tensor) -> Any:  # [B, 3, H, W] in [-1, 1] -> mean and std of [B, C, h, w]
        """What the encoder makes of pictures, with its gradient."""
        return self.vae.encode(pictures).latent_dist

    def encode(self, pictures: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] -> [B, C, h, w]
        """Scaled latents without chance: the mean."""
        return self.posterior(pictures).mean * self.vae.config.scaling_factor

    def sampled(self, posterior: Any, generator: torch.Generator) -> Tensor:  # [B, C, h, w]
        """Scaled latents drawn from a posterior, with a generator of the processor wherever the model is."""
        drawn = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        return (posterior.mean + posterior.std * drawn) * self.vae.config.scaling_factor

    def given_back(self, pictures: Tensor) -> Tensor:  # [B, 3, H, W] in [-1, 1] -> [B, 3, H, W], in about that
        """What the autoencoder makes of pictures by the mean of their latents, with its gradient."""
        return self.vae.decode(self.posterior(pictures).mean).sample

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:  # [B, C, h, w] -> [B, 3, H, W] in [-1, 1]
        """Pictures of scaled latents."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.clamp(-1, 1)

    def embed(self, prompts: list[str]) -> Tensor:  # -> [B, T, D]
        """What the text encoder makes of prompts, padded to its full length."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        limit = self.text.config.max_position_embeddings
        return self.text(tokens[:, :limit].to(self.alphas_cumprod.device)).last_hidden_state

    def predict(
        self, noisy: Tensor, timesteps: Tensor, words: Tensor
    ) -> Tensor:  # [B, C, h, w], int64 [B], [B, T, D]
        """The predicted noise; a model that predicts velocity is translated."""
        predicted = self.unet(noisy, timesteps, encoder_hidden_states=words).sample
        if self.scheduler.config.prediction_type == "epsilon":
            return predicted
        kept = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return kept.sqrt() * predicted + (1 - kept).sqrt() * noisy

    def denoising_error(
        self, latents: Tensor, noise: Tensor, timesteps: Tensor, words: Tensor
    ) -> Tensor:  # [B, C, h, w] twice, int64 [B], [B, T, D] -> []
        """The mean squared error of what the network predicts, which is noise or velocity."""
        wrong = self.predict(self.noised(latents, noise, timesteps), timesteps, words) - noise
        if self.scheduler.config.prediction_type == "epsilon":
            return wrong.square().mean()
        return (wrong.square() / self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)).mean()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:  # [B, C, h, w]
        """sqrt(abar) z + sqrt(1 - abar) e."""
        kept = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return kept.sqrt() * latents + (1 - kept).sqrt() * noise
