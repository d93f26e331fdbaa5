"""The recipe of the pocket model for UltraImage: what is built, from which seeds, and how it is exported.

A Flux pipeline that `FluxPipeline.from_pretrained` loads unmodified, trained at 12x12 tokens (96 px). Twelve lies
just below 12.13, the second period of the rotary embedding at axis dimension 28: the published rule picks that
component, and above 96 px it is the one that makes the picture repeat. Knows how to train; knows nothing of how
the method cures it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from engines.shared.training import Recipe, load_average, train
from engines.ultraimage.train import Flow, FluxStudent, hidden
from pocket import judge, tokenizer, vae
from pocket.flatworld import LAYOUT, speak
from pocket.grammar import write
from pocket.pool import Pool, fill, load
from pocket.shards import filled

SIDE = 96  # pixels; 12 tokens of 8 px
DROP = 0.1  # captions replaced by the empty one, for classifier-free guidance
TEXT_WIDTH = 64
WORLD_SEED = 100_000_000  # first seed of the training pictures; tests and reports use small seeds
VAE_SEED = 50_000_000  # first seed of the pictures the latent space is measured on
VAE_SECONDS = 720.0
SHARDS, SHARD = 4, 24_000  # encoded pictures
TWO = 0.65  # share of them with two objects, which are harder to learn than one
RECIPE = Recipe(steps=7750, batch=48, cooldown=2700)


def build_transformer() -> FluxTransformer2DModel:
    """1 double and 5 single blocks, 3 heads of 64, 4.3 million parameters."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=5,
        attention_head_dim=64,
        num_attention_heads=3,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 28, 28),
    )


def build_text_encoders(words: PreTrainedTokenizerFast) -> tuple[CLIPTextModel, T5EncoderModel]:
    """A pooled vector and token states, each from two layers of width 64."""
    clip = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
        max_position_embeddings=words.model_max_length,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    t5 = T5Config(
        vocab_size=len(words),
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return CLIPTextModel(clip), T5EncoderModel(t5)


def build_student(seed: int) -> FluxStudent:
    """Fresh networks; the output projection starts at zero, so the first guess is no motion."""
    torch.manual_seed(seed)
    clip, t5 = build_text_encoders(tokenizer.build())
    transformer = build_transformer()
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.normal_(t5.shared.weight, std=0.5)
    torch.nn.init.normal_(clip.embeddings.token_embedding.weight, std=0.2)
    return FluxStudent(transformer, clip, t5, LAYOUT)


@dataclass
class CaptionedLatents:
    """Batches from a pool: the picture's latents, a caption spoken anew each time, and the standardised layout.

    Holds paths until the first batch is drawn, so that handing it to another process costs nothing.
    """

    shards: list[Path]
    pool: Pool | None = None

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [count, 4, 24, 24], token ids [count, T], layouts [count, LAYOUT, 12, 12]."""
        self.pool = self.pool or load(self.shards)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(self.pool), size=count)
        captions = ["" if rng.random() < DROP else write(speak(self.pool.truths[i], rng)) for i in chosen]
        which = torch.from_numpy(chosen)
        layouts = self.pool.layouts[which].float() / self.pool.spread
        return self.pool.latents[which].float(), encode_captions(captions), layouts


_WORDS: PreTrainedTokenizerFast | None = None


def encode_captions(captions: list[str]) -> Tensor:  # -> int64 [B, T]
    """Token ids, padded to the full length as the pipeline pads them."""
    global _WORDS
    _WORDS = _WORDS or tokenizer.build()
    return _WORDS(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def assemble(student: FluxStudent, autoencoder: AutoencoderKL) -> FluxPipeline:
    """The trained parts as one pipeline."""
    words = tokenizer.build()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0, use_dynamic_shifting=False),
        vae=autoencoder.eval(),
        text_encoder=student.clip.eval(),
        tokenizer=words,
        text_encoder_2=student.t5.eval(),
        tokenizer_2=words,
        transformer=student.transformer.eval(),
    )


def export(student: FluxStudent, autoencoder: AutoencoderKL, folder: Path) -> None:
    """Half-precision safetensors in the diffusers layout; text encoders declare float32, or Flux mixes types.

    Where the autoencoder was loaded from is nobody's business and is not written.
    """
    pipeline = assemble(student, autoencoder).to(torch.float16)
    pipeline.save_pretrained(folder)
    for name in ("text_encoder", "text_encoder_2", "vae"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if name != "vae":
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    pipeline.to(torch.float32)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` is not repeated when resuming."""
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = _autoencoder(work / "vae", resume, log)
    shards = _pool(work / "pool", autoencoder, resume, log)
    student = build_student(RECIPE.seed)
    resume = resume and (work / "flux" / "state.pt").exists()
    log(f"transformer: {RECIPE.steps} steps of {RECIPE.batch}; progress in {work / 'flux' / 'log.txt'}")
    train(student, Flow(CaptionedLatents(shards)), RECIPE, work / "flux", hidden, resume)
    load_average(work / "flux", student)
    export(student, autoencoder, out)
    log(f"exported to {out}")
    judge.make(out.with_name(out.name + "_judge"), log)


def _autoencoder(folder: Path, resume: bool, log: Callable[[str], None]) -> AutoencoderKL:
    if resume and (folder / "config.json").exists():
        return AutoencoderKL.from_pretrained(folder).eval()
    trained = vae.train(RECIPE.seed, VAE_SECONDS, log)
    vae.calibrate(trained, VAE_SEED)
    for side in (96, 192, 288):
        log(f"autoencoder at {side} px: {vae.psnr(trained, side, VAE_SEED + 10_000_000):.1f} dB")
    trained.save_pretrained(folder)
    return trained


def _pool(folder: Path, trained: AutoencoderKL, resume: bool, log: Callable[[str], None]) -> list[Path]:
    return filled(
        folder,
        SHARDS,
        WORLD_SEED,
        lambda path, seed: fill(path, trained, seed, SHARD, two=TWO),
        "encoding pictures",
        resume,
        log,
    )
