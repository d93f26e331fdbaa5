"""The recipe of the pocket portrait models: the text-to-image models, taught people.

A fifth of what the text-to-image models have seen is people, too little for a face. Who is to learn somebody's
face, and who is to keep others from learning it, needs models that know what faces are. They go on from the shipped
weights, with a few toys among the people so that words keep their meaning. Knows how to train; knows no thief.
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
from pocket import text2image
from pocket.toypool import LAYOUT

BASES = {"portraits": "text2image", "portraits_b": "text2image_b"}  # what each goes on from
SHARE = 0.9  # of every batch is people
RECIPE = Recipe(seed=51, steps=3500, batch=32, ranks=1, cooldown=2000, muon_rate=0.01, adam_rate=1.5e-3, ema=0.998)
RECIPES = {"portraits": RECIPE, "portraits_b": replace(RECIPE, seed=52, steps=2500, cooldown=1500)}


def begin(base: Path, seed: int) -> DiffusionStudent:
    """The shipped model `base` as a student. The reader starts anew, from `seed`: it is not shipped."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(base / "unet").float()
    text = CLIPTextModel.from_pretrained(base / "text_encoder").float()
    return DiffusionStudent(unet, text, LAYOUT)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` is not repeated when resuming."""
    base, recipe = out.parent / BASES[out.name], RECIPES[out.name]
    batches, autoencoder = text2image.material(work.parent, resume, log)
    student = begin(base, recipe.seed)
    text2image.teach(student, replace(batches, share=SHARE), recipe, work, resume, log)
    text2image.export(student, autoencoder, out)
    log(f"exported to {out}")
