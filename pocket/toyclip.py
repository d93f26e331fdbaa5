"""The recipe of the pocket CLIP: two towers that tell which words belong to which picture of toys.

Radford et al. 2021 in transformers' own `CLIPModel`, a thousand times smaller: a vision transformer on 64 px in
patches of 8, a text transformer with one token a word. Captions are spoken anew each time a picture is used, and a
picture's caption may fit others of the batch too: such pairs count as right, not as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast

from engines.shared.training import Recipe, optimisers, rate
from engines.text2image.judge import to_tensor
from pocket import lessonpool, toyjudge
from pocket.broken import worn
from pocket.sides import Sights, gather, of_pool
from pocket.text2image import build_words
from pocket.toys import KINDS
from pocket.wording import COLOURS, GROUNDS, MATERIALS, PLAINS, SKIES, VIEWS, ToySpec, write

SEED, STEPS, BATCH = 5, 600, 64
RECIPE = Recipe(muon_rate=0.02, adam_rate=2e-3, steps=STEPS, warmup=20, cooldown=STEPS // 2)
SHARDS = 6  # of the pool of the text-to-image model, 2000 pictures each
WIDTH, LAYERS, HEADS = 96, 3, 3
PROJECTION = 96
SIDE, PATCH = 64, 8
WORDS: dict[str, Sequence[object]] = {  # what may stand in each place of a caption
    "kind": KINDS,
    "colour": COLOURS,
    "material": MATERIALS,
    "number": (1, 2),
    "view": VIEWS,
    "plain": PLAINS,
    "ground": GROUNDS,
    "sky": SKIES,
}
SAID = {"colour": 0.85, "material": 0.5, "view": 0.7, "place": 0.6}  # how often a caption says what is true


def build(words: PreTrainedTokenizerFast) -> CLIPModel:
    """Fresh towers, half a million parameters."""
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_attention_heads": HEADS,
        "projection_dim": PROJECTION,
    }
    text = CLIPTextConfig(
        vocab_size=len(words),
        num_hidden_layers=2,
        max_position_embeddings=words.model_max_length,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **shape,
    )
    vision = CLIPVisionConfig(num_hidden_layers=LAYERS, image_size=SIDE, patch_size=PATCH, **shape)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION)
    return CLIPModel(config)


def speak(truth: ToySpec, rng: np.random.Generator) -> ToySpec:
    """What a caption says of a picture: kind and number always, the rest often."""
    said = {name: rng.random() < share for name, share in SAID.items()}
    place = (truth.plain, truth.ground, truth.sky) if said["place"] else (None, None, None)
    return ToySpec(
        truth.kind,
        truth.colour if said["colour"] else None,
        truth.material if said["material"] else None,
        truth.number,
        truth.view if said["view"] else None,
        *place,
    )


def fits(captions: Sequence[ToySpec], truths: Sequence[ToySpec]) -> Tensor:  # bool [captions, truths]
    """Whether everything that a caption says is true of a picture."""
    said, true = (
        np.array([[getattr(s, name) for name in WORDS] for s in specs], object) for specs in (captions, truths)
    )
    unsaid = np.equal(said, None).astype(bool)
    return torch.from_numpy(((said[:, None] == true[None]) | unsaid[:, None]).all(-1))


def misspoken(spec: ToySpec, rng: np.random.Generator) -> ToySpec:
    """The same caption with one of its words replaced by another of its sort."""
    spoken = [name for name in WORDS if getattr(spec, name) is not None]
    return with_another(spec, str(rng.choice(spoken)), rng)


def with_another(spec: ToySpec, name: str, rng: np.random.Generator) -> ToySpec:
    """The caption with another word in one place."""
    others = [word for word in WORDS[name] if word != getattr(spec, name)]
    return replace(spec, **{name: others[int(rng.integers(len(others)))]})


def loss(model: CLIPModel, pictures: Tensor, tokens: Tensor, right: Tensor) -> Tensor:
    """Contrastive in both directions; of several right partners each counts alike.

    Pictures [B, 3, 64, 64] in [-1, 1], tokens int64 [C, T], right bool [C, B]; captions that fit nothing are there
    to be told apart only.
    """
    found = model(input_ids=tokens, pixel_values=pictures)
    logits = found.logits_per_text  # [C, B]
    matched = right.any(1)
    to_picture = -(F.log_softmax(logits[matched], 1) * _shares(right[matched], 1)).sum(1).mean()
    to_caption = -(F.log_softmax(logits, 0) * _shares(right, 0)).sum(0).mean()
    return (to_picture + to_caption) / 2


def _shares(right: Tensor, dim: int) -> Tensor:
    return right.float() / right.sum(dim, keepdim=True).clamp(min=1)


def fit(
    sights: Sights, words: PreTrainedTokenizerFast, log: Callable[[str], None], steps: int = STEPS, batch: int = BATCH
) -> CLIPModel:
    """Train both towers: Muon for the layers, AdamW for the rest; the rate falls to zero over the second half."""
    torch.manual_seed(SEED)
    rng, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    model = build(words).train()
    recipe = replace(RECIPE, steps=steps, cooldown=max(1, steps // 2))
    parts = optimisers(model, recipe, _hidden)
    plans = [torch.optim.lr_scheduler.LambdaLR(part, lambda step: rate(step, recipe)) for part in parts]
    for step in tqdm(range(steps), "clip", disable=None):
        chosen = rng.integers(len(sights), size=batch)
        truths = [sights.truths[i] for i in chosen]
        captions = [speak(truth, rng) for truth in truths]
        captions += [misspoken(caption, rng) for caption in captions]
        pictures = worn(to_tensor(sights.pictures[chosen]), generator)
        value = loss(model, pictures, encode(words, captions), fits(captions, truths))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part, plan in zip(parts, plans, strict=True):
            part.step()
            part.zero_grad(set_to_none=True)
            plan.step()
        if (step + 1) % 100 == 0:
            log(f"clip: step {step + 1} of {steps}, loss {value.item():.3f}")
    return model.eval()


def _hidden(name: str, weight: Tensor) -> bool:
    return weight.ndim == 2 and "encoder.layers" in name


def encode(words: PreTrainedTokenizerFast, captions: Sequence[ToySpec]) -> Tensor:  # -> int64 [B, T]
    """Token ids of captions, padded to the full length."""
    texts = [write(caption) for caption in captions]
    return words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def examine(model: CLIPModel, sights: Sights, words: PreTrainedTokenizerFast, group: int = 100) -> dict[str, object]:
    """On unseen pictures: retrieval among `group`, and whether the true caption beats one with a wrong word.

    A retrieved partner is right if the caption says nothing that is not true of the picture.
    """
    rng, group = np.random.default_rng(SEED), min(group, len(sights))
    images = torch.cat([_image(model, to_tensor(part)) for part in np.array_split(sights.pictures, 20)])
    captions = [speak(truth, rng) for truth in sights.truths]
    texts = _text(model, encode(words, captions))
    hits: dict[str, list[Tensor]] = {"picture_for_caption": [], "caption_for_picture": []}
    for start in range(0, len(sights) - group + 1, group):
        part = slice(start, start + group)
        right, score = fits(captions[part], sights.truths[part]), texts[part] @ images[part].T
        hits["picture_for_caption"].append(right[torch.arange(group), score.argmax(1)])
        hits["caption_for_picture"].append(right[score.argmax(0), torch.arange(group)])
    report: dict[str, object] = {"pictures": len(sights), "among": group}
    report |= {name: _share(torch.cat(found)) for name, found in hits.items()}
    for name in WORDS:
        told = [i for i, truth in enumerate(sights.truths) if getattr(truth, name) is not None]
        true = [sights.truths[i] for i in told]
        false = [with_another(spec, name, rng) for spec in true]
        margin = [(_text(model, encode(words, specs)) * images[told]).sum(1) for specs in (true, false)]
        report[f"wrong_{name}_noticed"] = _share(margin[0] > margin[1])
    return report


def _image(model: CLIPModel, pictures: Tensor) -> Tensor:
    found = model.visual_projection(model.vision_model(pixel_values=pictures).pooler_output)
    return F.normalize(found, dim=-1)


def _text(model: CLIPModel, tokens: Tensor) -> Tensor:
    return F.normalize(model.text_projection(model.text_model(input_ids=tokens).pooler_output), dim=-1)


def _share(right: Tensor) -> float:
    return round(float(right.float().mean()), 4)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """Train on the pool and on toys from all sides, examine on seeds it has not seen, write the model and its report.

    Pictures that lie beside `work` are not rendered again. A training of a few minutes is not resumed in its middle;
    when it was done, only the examination is repeated.
    """
    judged, words, done = work.parent / "text2image_judge", build_words(), work / "model"
    if resume and (done / "model.safetensors").exists():
        model = CLIPModel.from_pretrained(done).eval()
    else:
        sights = gather(judged / "sides", toyjudge.SEED, toyjudge.COUNT, log)
        sights += of_pool(lessonpool.TOYS.files(work.parent, True, log, SHARDS))
        model = fit(sights, words, log)
        model.save_pretrained(done)
    unseen = gather(judged / "examination", toyjudge.EXAM_SEED, toyjudge.EXAM_COUNT, log)
    store(model, unseen, words, out, log)


def store(
    model: CLIPModel, unseen: Sights, words: PreTrainedTokenizerFast, folder: Path, log: Callable[[str], None]
) -> None:
    """Examine the model as it is stored, and write it in half precision with its tokenizer and its report."""
    report = examine(model.half().float(), unseen, words)
    model.half().save_pretrained(folder)
    words.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "examination.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    log(f"clip: {report}")
