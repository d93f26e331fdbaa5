"""The recipe of the pocket portrait models: the text-to-image models, taught people.

A fifth of what the text-to-image models have seen is people, too little for a face. Who is to learn somebody's
face, and who is to keep others from learning it, needs models that know what faces are. They go on from the shipped
weights, with a few toys among the people so that words keep their meaning.

A perturbation acts through the encoder. So that protection can be tried on a model that was not there when the
perturbation was made, the second one has an autoencoder of its own, from another seed; its U-Net is turned towards
the new latents before it goes on. Knows how to train; knows no thief.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from engines.shared.training import Recipe, best_device
from engines.text2image.train import DiffusionStudent
from pocket import text2image, toyvae
from pocket.text2image import SHARED, CaptionedLatents, Code
from pocket.toypool import LAYOUT, pictures, to_tensor

BASES = {"portraits": "text2image", "portraits_b": "text2image_b"}  # what each goes on from
OWN = Code(  # half of the polish: its decoder is only looked at by a thief. Few steps of many pictures suit a GPU
    "toyvae_b",
    "latents_b",
    replace(toyvae.RECIPE, seed=8, steps=1000, batch=64, cooldown=700),
    replace(toyvae.POLISH, seed=8, steps=500, batch=64, cooldown=420),
    2,
)
KEPT = replace(SHARED, latents="latents_kept", shards=OWN.shards)  # that of the model it goes on from, as it ships
CODES = {"portraits": KEPT, "portraits_b": OWN}
SHARE = 0.9  # of every batch is people
TURNED = 256  # pictures by which one code is turned towards the other
RECIPE = Recipe(seed=51, steps=1600, batch=64, ranks=1, cooldown=1000, muon_rate=0.01, adam_rate=1.5e-3, ema=0.996)
RECIPES = {"portraits": RECIPE, "portraits_b": replace(RECIPE, seed=52, steps=1300, cooldown=900)}


def begin(base: Path, seed: int) -> DiffusionStudent:
    """The shipped model `base` as a student. The reader starts anew, from `seed`: it is not shipped."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(base / "unet").float()
    text = CLIPTextModel.from_pretrained(base / "text_encoder").float()
    return DiffusionStudent(unet, text, LAYOUT)


def turn_between(
    old: Tensor,  # [N, C, H, W], latents of some pictures
    new: Tensor,  # [N, C, H, W], of the same pictures by another encoder
) -> Tensor:  # [C, C], orthogonal
    """The turn that takes old latents nearest to the new ones (orthogonal Procrustes, Schoenemann 1966)."""
    left, _, right = torch.linalg.svd(torch.einsum("bihw,bjhw->ij", new.double(), old.double()))
    return (left @ right).float()


@torch.no_grad()
def turned(unet: UNet2DConditionModel, turn: Tensor) -> None:  # [C, C], orthogonal
    """Make a U-Net denoise turned latents as it denoised the latents before: exactly, as turned noise is noise.

    Autoencoders of two seeds call their channels by other names and signs. A turn is all of that, and is not learned.
    """
    unet.conv_in.weight.copy_(torch.einsum("oihw,ji->ojhw", unet.conv_in.weight, turn))
    unet.conv_out.weight.copy_(torch.einsum("ij,jkhw->ikhw", turn, unet.conv_out.weight))
    unet.conv_out.bias.copy_(turn @ unet.conv_out.bias)


@torch.no_grad()
def _scaled(autoencoder: AutoencoderKL, shown: Tensor) -> Tensor:  # [N, 3, S, S] -> [N, C, H, W]
    means = [autoencoder.encode(part.to(autoencoder.device)).latent_dist.mean for part in shown.split(64)]
    return (torch.cat(means) * autoencoder.config.scaling_factor).cpu()


def shipped_code(base: Path) -> AutoencoderKL:
    """The autoencoder of the shipped model `base`, ready for use."""
    return AutoencoderKL.from_pretrained(base / "vae").float().eval().to(best_device())


def acquaint(student: DiffusionStudent, base: Path, batches: CaptionedLatents) -> None:
    """Turn the student from the latents of the model it goes on from towards those of its batches."""
    old = _scaled(shipped_code(base), to_tensor(pictures(batches.people[:1])[:TURNED]))
    turned(student.unet, turn_between(old, load_file(batches.people_latents[0])["latents"][:TURNED]))


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """All stages in order; a stage whose result lies in `work` or beside it is not repeated when resuming."""
    base, recipe, code = out.parent / BASES[out.name], RECIPES[out.name], CODES[out.name]
    given = shipped_code(base) if code is KEPT else None
    batches, autoencoder = text2image.material(work.parent, resume, log, code, given)
    student = begin(base, recipe.seed)
    if given is None:
        acquaint(student, base, batches)
    text2image.teach(student, replace(batches, share=SHARE), recipe, work, resume, log)
    text2image.export(student, autoencoder, out)
    log(f"exported to {out}")
