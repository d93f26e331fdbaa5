"""The recipe of the pocket model for UltraViCo: what is built, from which seeds, and how it is exported.

A Wan pipeline that `WanPipeline.from_pretrained` loads unmodified, trained on clips of 45 frames, 12 latent ones.
Twelve lies just below 13.5, the second temporal period of the rotary embedding at 24 dimensions: in longer videos it
is the one that makes the clip repeat. Knows how to train; knows nothing of how the method cures it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from engines.shared.training import Recipe, load_average, train
from engines.ultravico.train import Flow, VideoStudent, hidden
from pocket import clips, clipvae, tokenizer
from pocket.clips import COLOURS, KINDS, WORDS, Clip, ClipSpec
from pocket.shards import filled

FRAMES, LATENT_FRAMES = 45, 12
PATCH = (1, 4, 4)  # 4 x 4 tokens a frame
CELLS = 4  # of a layout, a side
LAYOUT = 3 + len(KINDS) + len(COLOURS)  # channels: near the object, the way from its centre, its kind, its colour
LENGTH = 16  # tokens of a prompt
TEXT_WIDTH = 64
DROP = 0.1  # captions replaced by the empty one, for classifier-free guidance
WORLD_SEED = 300_000_000  # first seed of the training clips; tests and reports use small seeds
SHARD = 500  # clips
# Thin, and gone before long where the transformer errs a little.
HARDEST = (("small", "star"), ("small", "triangle"), ("small", "ring"))
HARD = 3  # times as often as others these are drawn
SHIFT = 8.0  # of the schedule of noise when sampling: where things go is decided above 0.9


@dataclass(frozen=True)
class Stage:
    """What the transformer learns, one after the other."""

    name: str
    code: str  # of which autoencoder: "first" or "settled"
    shards: int  # of clips
    recipe: Recipe


# Learned from nothing on the settled code, the transformer draws clips well, and hardly repeats them in longer videos
# (docs/log.md); learned on the first code and then on the settled one, it does as large models do.
STAGES = (
    Stage(
        "first",
        "first",
        6,
        Recipe(steps=6500, batch=16, ranks=1, cooldown=2000, muon_rate=0.02, adam_rate=2e-3, ema=0.998),
    ),
    Stage(
        "settled",
        "settled",
        3,
        Recipe(seed=18, steps=1800, batch=16, ranks=1, cooldown=675, muon_rate=0.012, adam_rate=1.2e-3, ema=0.998),
    ),
    Stage(
        "longer",
        "settled",
        8,
        Recipe(seed=19, steps=3000, batch=16, ranks=1, cooldown=1125, muon_rate=0.0096, adam_rate=9.6e-4, ema=0.998),
    ),
)


def build_transformer() -> WanTransformer3DModel:
    """Six layers of 2 heads of 64."""
    return WanTransformer3DModel(
        patch_size=PATCH,
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=384,
        num_layers=6,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )


def build_words() -> PreTrainedTokenizerFast:
    """The tokenizer of the moving things."""
    return tokenizer.build(WORDS, LENGTH)


def build_text_encoder(words: PreTrainedTokenizerFast) -> UMT5EncoderModel:
    """Two layers of width 64."""
    config = UMT5Config(
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
    return UMT5EncoderModel(config)


def build_student(seed: int) -> VideoStudent:
    """Fresh networks; the output projection starts at zero, so the first guess is no motion."""
    torch.manual_seed(seed)
    transformer, text = build_transformer(), build_text_encoder(build_words())
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.normal_(text.shared.weight, std=0.5)
    return VideoStudent(transformer, text, LAYOUT)


def layout(clip: Clip) -> Tensor:  # float32 [LAYOUT, LATENT_FRAMES, CELLS, CELLS]
    """What lies where at the middle of every latent frame, fading with the distance from the object's centre."""
    middle = clips.centres(clip, FRAMES)[[0, *range(3, FRAMES, 4)]]
    at = (np.arange(CELLS) + 0.5) / CELLS
    across = (at[None, None, :] - middle[:, 0, None, None]) * CELLS + np.zeros((1, CELLS, 1))
    down = (at[None, :, None] - middle[:, 1, None, None]) * CELLS + np.zeros((1, 1, CELLS))
    near = np.exp(-(across**2 + down**2) / 2)
    known = np.zeros((len(KINDS) + len(COLOURS), 1, 1, 1))
    known[KINDS.index(clip.kind)] = known[len(KINDS) + COLOURS.index(clip.colour)] = 1
    return torch.from_numpy(np.concatenate([np.stack([near, near * across, near * down]), known * near])).float()


@torch.no_grad()
def fill(path: Path, autoencoder: AutoencoderKLWan, first_seed: int, count: int, batch: int = 4) -> None:
    """Render and encode the clips `first_seed ...`; writes one shard (tensors and truths), the tensors last."""
    mean = torch.tensor(autoencoder.config.latents_mean)[:, None, None, None]
    std = torch.tensor(autoencoder.config.latents_std)[:, None, None, None]
    latents, layouts, truths = [], [], []
    for start in range(first_seed, first_seed + count, batch):
        some = [clips.sample(seed) for seed in range(start, min(start + batch, first_seed + count))]
        pictures = clipvae.to_tensor(np.stack([clips.render(clip, FRAMES) for clip in some]))
        latents.append(((autoencoder.encode(pictures).latent_dist.mean - mean) / std).half())
        layouts.append(torch.stack([layout(clip) for clip in some]).half())
        truths += [asdict(clip.truth) for clip in some]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(truths))
    tensors = {"latents": torch.cat(latents).contiguous(), "layouts": torch.cat(layouts).contiguous()}
    save_file(tensors, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


@dataclass
class CaptionedClips:
    """Batches from a pool: latents, a caption spoken anew each time, and the standardised layout.

    Holds paths until the first batch is drawn, so that handing it to another process costs nothing.
    """

    shards: list[Path]
    tensors: dict[str, Tensor] | None = None
    truths: tuple[ClipSpec, ...] = ()
    often: np.ndarray | None = None  # float64 [clips], the chance of each, summing to 1

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents [count, 4, 12, 16, 16], token ids and mask [count, LENGTH], layouts [count, LAYOUT, 12, 4, 4]."""
        if self.tensors is None:
            parts = [load_file(path) for path in self.shards]
            self.tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            told = [item for path in self.shards for item in json.loads(path.with_suffix(".json").read_text())]
            self.truths = tuple(ClipSpec(**item) for item in told)
            times = np.array([HARD if (truth.size, truth.kind) in HARDEST else 1 for truth in self.truths])
            self.often = times / times.sum()
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        chosen = rng.choice(len(self.truths), size=count, p=self.often)
        spoken = [clips.write(clips.speak(self.truths[index], rng)) for index in chosen]
        tokens, mask = encode_captions(["" if rng.random() < DROP else caption for caption in spoken])
        which = torch.from_numpy(chosen)
        spread = self.tensors["layouts"][:500].float().std((0, 2, 3, 4))[:, None, None, None].clamp(min=1e-3)
        return self.tensors["latents"][which].float(), tokens, mask, self.tensors["layouts"][which].float() / spread


_WORDS: PreTrainedTokenizerFast | None = None


def encode_captions(captions: list[str]) -> tuple[Tensor, Tensor]:  # -> int64 [B, LENGTH] twice
    """Token ids and where they are words, padded to the full length as the pipeline pads them."""
    global _WORDS
    _WORDS = _WORDS or build_words()
    found = _WORDS(captions, padding="max_length", truncation=True, return_tensors="pt")
    return found.input_ids, found.attention_mask


def assemble(student: VideoStudent, autoencoder: AutoencoderKLWan) -> WanPipeline:
    """The trained parts as one pipeline. Call it with `max_sequence_length=tokenizer.model_max_length`."""
    return WanPipeline(
        tokenizer=build_words(),
        text_encoder=student.text.eval(),
        vae=autoencoder.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        transformer=student.transformer.eval(),
    )


def export(student: VideoStudent, autoencoder: AutoencoderKLWan, folder: Path) -> None:
    """Half-precision safetensors in the diffusers layout; text encoder and autoencoder declare float32."""
    pipeline = assemble(student, autoencoder).to(torch.float16)
    pipeline.save_pretrained(folder)
    for name in ("text_encoder", "vae", "transformer"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if name == "text_encoder":
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    pipeline.to(torch.float32)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; what lies in `work` or beside it is not made again when resuming."""
    student = build_student(STAGES[0].recipe.seed)
    autoencoders, begun = _autoencoders(work.parent / "clipvae", resume, log), set[str]()
    for stage in STAGES:
        folder = work / stage.name
        shards = filled(
            work.parent / "clips" / stage.code,
            stage.shards,
            WORLD_SEED,
            lambda path, seed, vae=autoencoders[stage.code]: fill(path, vae, seed, SHARD),
            "encoding clips",
            resume or stage.code in begun,
            log,
        )
        begun.add(stage.code)
        log(f"transformer, stage {stage.name}: {stage.recipe.steps} steps; progress in {folder / 'log.txt'}")
        task = Flow(CaptionedClips(shards))
        train(student, task, stage.recipe, folder, hidden, resume and (folder / "state.pt").exists())
        load_average(folder, student)
    export(student, autoencoders["settled"], out)
    log(f"exported to {out}")


def _autoencoders(folder: Path, resume: bool, log: Callable[[str], None]) -> dict[str, AutoencoderKLWan]:
    """By code: as the first half of its training leaves it, and as it ships."""
    seed = WORLD_SEED - 1_000_000
    if resume and (folder / "vae" / "config.json").exists():
        first = AutoencoderKLWan.from_pretrained(folder / "vae").eval()
    else:
        first = clipvae.make(folder, seed, resume, log)
    if resume and (folder / "polished" / "config.json").exists():
        return {"first": first, "settled": AutoencoderKLWan.from_pretrained(folder / "polished").eval()}
    polished = copy.deepcopy(first)
    clipvae.polish(polished, folder / "polish", seed, resume, log)
    polished.save_pretrained(folder / "polished")
    return {"first": first, "settled": polished}
