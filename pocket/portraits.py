"""The recipe of the pocket portrait models: the text-to-image models, taught people and a tighter code.

A fifth of what the text-to-image models have seen is people, too little for a face. Who is to learn somebody's
face, and who is to keep others from learning it, needs models that know what faces are. They go on from the shipped
weights, with a few toys among the people so that words keep their meaning.

A perturbation acts through the encoder. That of the toys keeps one number for twelve, and gives a perturbed picture
back as it was: nothing is undone there, and nothing protects. These have autoencoders of the rate of Stable
Diffusion's, one number for 48. So that protection can be tried on a model that was not there when the perturbation
was made, each has one from a seed of its own. Knows how to train; knows no thief.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from engines.shared.training import Recipe
from engines.text2image.train import DiffusionStudent
from pocket import text2image, toyvae
from pocket.text2image import Code
from pocket.toypool import LAYOUT, SIDE

BASES = {"portraits": "text2image", "portraits_b": "text2image_b"}  # what each goes on from
FACES = Code(  # eight times smaller a side
    "facevae",
    "latents_faces",
    replace(toyvae.RECIPE, seed=17, steps=3000, cooldown=2000),
    replace(toyvae.POLISH, seed=17, steps=3000, cooldown=2400),
    2,
    (*toyvae.WIDTHS, 96),
    people=True,
)
FACES_B = replace(
    FACES,
    name="facevae_b",
    latents="latents_faces_b",
    learn=replace(FACES.learn, seed=18),
    polish=replace(FACES.polish, seed=18),
)
CODES = {"portraits": FACES, "portraits_b": FACES_B}
SHARE = 0.9  # of every batch is people
RECIPE = Recipe(seed=51, steps=2800, batch=64, ranks=1, cooldown=1800, muon_rate=0.01, adam_rate=1.5e-3, ema=0.996)
RECIPES = {"portraits": RECIPE, "portraits_b": replace(RECIPE, seed=52)}


def begin(base: Path, seed: int, code: Code) -> DiffusionStudent:
    """The shipped model `base` as a student of another code's latents.

    They mean something else and are fewer; what is kept is how words are read and forms are put together. The reader
    starts anew, from `seed`: it is not shipped.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(base / "unet").float()
    unet.register_to_config(sample_size=SIDE // 2 ** (len(code.widths) - 1))
    text = CLIPTextModel.from_pretrained(base / "text_encoder").float()
    return DiffusionStudent(unet, text, LAYOUT)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` or beside it is not repeated when resuming."""
    recipe, code = RECIPES[out.name], CODES[out.name]
    batches, autoencoder = text2image.material(work.parent, resume, log, code)
    student = begin(out.parent / BASES[out.name], recipe.seed, code)
    text2image.teach(student, replace(batches, share=SHARE), recipe, work, resume, log)
    text2image.export(student, autoencoder, out)
    log(f"exported to {out}")
