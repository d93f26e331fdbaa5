"""The recipe of the pocket text-to-image model: what is built, from which seeds, and how it is exported.

A Stable Diffusion pipeline that `StableDiffusionPipeline.from_pretrained` loads unmodified, trained on renders of
the world of toys at 64 px: 16x16 latents of four channels, a U-Net of four million parameters, a text encoder with
one token a word. A second copy of another width and seed is the surrogate for methods that need an ensemble. Knows
how to train; knows nothing of the methods that stand on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from engines.shared.training import Recipe, best_device, load_average, train
from engines.text2image.train import BETAS, TIMESTEPS, Denoising, DiffusionStudent, hidden
from pocket import lessonpool, peoplepool, tokenizer, toypool, toyvae
from pocket.toypool import LAYOUT, Pool
from pocket.wording import PersonSpec, vocabulary, write

TEXT_WIDTH = 128
LENGTH = 24  # tokens of a prompt, begin and end included
VOCABULARY = 160  # rows of the embedding; words may be added without training anew what is known
DROP = 0.1  # captions replaced by the empty one, for classifier-free guidance
PEOPLE = 0.2  # share of every batch, unless told otherwise
WIDTHS = {"text2image": (48, 80, 112), "text2image_b": (40, 64, 96)}
RECIPE = Recipe(steps=8500, batch=32, ranks=1, cooldown=3400, muon_rate=0.01, adam_rate=1.5e-3, ema=0.998)
RECIPES = {"text2image": RECIPE, "text2image_b": replace(RECIPE, seed=RECIPE.seed + 1, steps=2700, cooldown=1400)}


@dataclass(frozen=True)
class Code:
    """An autoencoder of toys and people: where it and the latents that it makes lie, and how it comes about."""

    name: str  # of its folder
    latents: str  # name of the folder of latents
    learn: Recipe
    polish: Recipe
    shards: int | None = None  # of each sort of toys that are used with it; None: all
    widths: tuple[int, ...] = toyvae.WIDTHS  # of the autoencoder
    people: bool = False  # whether its first half learns from people instead of toys


SHARED = Code("toyvae", "latents", toyvae.RECIPE, toyvae.POLISH)


def build_unet(widths: tuple[int, int, int]) -> UNet2DConditionModel:
    """Three levels, 16, 8 and 4 latent pixels a side; text is looked at on the lower two."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=widths,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )


def build_words() -> PreTrainedTokenizerFast:
    """The tokenizer of the world of toys."""
    return tokenizer.build(vocabulary(), LENGTH)


def build_text_encoder(words: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Two layers of width 128."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=TEXT_WIDTH,
        max_position_embeddings=words.model_max_length,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    return CLIPTextModel(config)


def build_student(widths: tuple[int, int, int], seed: int) -> DiffusionStudent:
    """Fresh networks; the output starts at zero, so the first guess is no noise."""
    torch.manual_seed(seed)
    unet, text = build_unet(widths), build_text_encoder(build_words())
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.normal_(text.embeddings.token_embedding.weight, std=0.2)
    return DiffusionStudent(unet, text, LAYOUT)


@dataclass
class CaptionedLatents:
    """Batches from a pool: latents, a caption spoken anew each time, and the standardised layout.

    Holds paths until the first batch is drawn, so that handing it to another process costs nothing.
    """

    shards: list[Path]
    latents: list[Path]
    people: list[Path] = field(default_factory=list)  # shards of `peoplepool`
    people_latents: list[Path] = field(default_factory=list)
    share: float = PEOPLE
    pool: Pool | None = None
    encoded: Tensor | None = None  # float16 [N, 4, S, S]
    persons: tuple[Tensor, Tensor, tuple[PersonSpec, ...]] | None = None  # latents, layouts, truths

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [count, 4, S, S], token ids [count, LENGTH], layouts [count, LAYOUT, S/2, S/2]."""
        if self.pool is None or self.encoded is None:
            self.pool = toypool.load(self.shards)
            self.encoded = torch.cat([load_file(path)["latents"] for path in self.latents])
            if self.people:
                encoded = torch.cat([load_file(path)["latents"] for path in self.people_latents])
                self.persons = (encoded, *peoplepool.load(self.people))
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        some = round(count * self.share) if self.persons is not None else 0
        chosen = rng.integers(len(self.pool), size=count - some)
        spoken = [write(toypool.speak(self.pool.truths[index], rng)) for index in chosen]
        which = torch.from_numpy(chosen)
        latents, layouts = self.encoded[which], self.pool.layouts[which]
        if self.persons is not None:
            encoded, places, truths = self.persons
            whom = rng.integers(len(truths), size=some)
            spoken += [write(peoplepool.speak(truths[index], rng)) for index in whom]
            latents = torch.cat([latents, encoded[torch.from_numpy(whom)]])
            layouts = torch.cat([layouts, places[torch.from_numpy(whom)]])
        tokens = encode_captions(["" if rng.random() < DROP else caption for caption in spoken])
        layouts = F.adaptive_avg_pool2d(layouts.float() / self.pool.spread, latents.shape[-1] // 2)
        return latents.float(), tokens, layouts


_WORDS: PreTrainedTokenizerFast | None = None


def encode_captions(captions: list[str]) -> Tensor:  # -> int64 [B, LENGTH]
    """Token ids, padded to the full length as the pipeline pads them."""
    global _WORDS
    _WORDS = _WORDS or build_words()
    return _WORDS(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def encode(shard: Path, path: Path, autoencoder: AutoencoderKL) -> None:
    """Write the scaled latents of a shard's pictures, float16 [N, 4, S, S]; made where the autoencoder is."""
    pictures, device = load_file(shard)["pictures"], autoencoder.device
    means = [autoencoder.encode(toypool.to_tensor(part.to(device))).latent_dist.mean for part in pictures.split(50)]
    scaled = (torch.cat(means) * autoencoder.config.scaling_factor).half().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": scaled}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def assemble(student: DiffusionStudent, autoencoder: AutoencoderKL) -> StableDiffusionPipeline:
    """The trained parts as one pipeline, sampled by DPM-Solver++."""
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=student.text.eval(),
        tokenizer=build_words(),
        unet=student.unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(student: DiffusionStudent, autoencoder: AutoencoderKL, folder: Path) -> None:
    """Half-precision safetensors in the diffusers layout; the text encoder declares float32, or types are mixed.

    Where the autoencoder was loaded from is nobody's business and is not written.
    """
    pipeline = assemble(student, autoencoder.cpu()).to(torch.float16)
    pipeline.save_pretrained(folder)
    for name in ("text_encoder", "vae"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if name == "text_encoder":
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    pipeline.to(torch.float32)


def train_everything(name: str, work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` is not repeated when resuming.

    Pictures and autoencoder are shared by both models, next to `work`.
    """
    batches, autoencoder = material(work.parent, resume, log)
    student = build_student(WIDTHS[name], RECIPES[name].seed)
    teach(student, batches, RECIPES[name], work, resume, log)
    export(student, autoencoder, out)
    log(f"exported to {out}")


def material(
    folder: Path,
    resume: bool,
    log: Callable[[str], None],
    code: Code = SHARED,
) -> tuple[CaptionedLatents, AutoencoderKL]:
    """What the models learn from, and the autoencoder that encodes it; made in `folder` where it is not there yet."""
    sorts = (lessonpool.TOYS, lessonpool.SIDED)
    toys = [file for sort in sorts for file in sort.files(folder, resume, log, code.shards)]
    people = lessonpool.PEOPLE.files(folder, resume, log)
    autoencoder = _autoencoder(folder / code.name, toys, people, resume, log, code)
    autoencoder.to(best_device())
    latents = {file: folder / code.latents / file.parent.name / file.name for file in [*toys, *people]}
    for file, path in latents.items():
        if not (resume and path.exists()):
            encode(file, path, autoencoder)
    batches = CaptionedLatents(toys, [latents[file] for file in toys], people, [latents[file] for file in people])
    return batches, autoencoder


def teach(
    student: DiffusionStudent,
    batches: CaptionedLatents,
    recipe: Recipe,
    work: Path,
    resume: bool,
    log: Callable[[str], None],
) -> None:
    """Train the student in place, to the average of its last weights."""
    log(f"{work.name}: {recipe.steps} steps of {recipe.batch}; progress in {work / 'log.txt'}")
    train(student, Denoising(batches), recipe, work, hidden, resume and (work / "state.pt").exists())
    load_average(work, student)


def _autoencoder(
    folder: Path, toys: list[Path], people: list[Path], resume: bool, log: Callable[[str], None], code: Code
) -> AutoencoderKL:
    if resume and (folder / "polished" / "config.json").exists():
        return AutoencoderKL.from_pretrained(folder / "polished").eval()
    if resume and (folder / "vae" / "config.json").exists():
        made = AutoencoderKL.from_pretrained(folder / "vae")
    else:
        shown = people if code.people else toys[:3]
        made = toyvae.make(folder, shown, resume, log, code.learn, code.widths)
    toyvae.polish(made, folder / "polish", [*people, *toys], resume, log, code.polish)
    made.save_pretrained(folder / "polished")
    return made.eval()
