"""The models UltraImage runs on and the methods it compares, as data; read by `spec.py` and resolved there.

Sizes and licences of published checkpoints are those of their pages. Knows no torch and loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.shared.sources import ASSETS, Source


@dataclass(frozen=True, kw_only=True)
class ModelPreset(Source):
    """One set of weights: where it is, what it was trained for, and which settings suit it."""

    pixels_per_token: int
    base_pixels: int  # side the guide of the guided scenarios is sampled at
    train_pixels: int  # side a scale of 1 means
    train_tokens: int  # n_train: side of the training grid, tokens
    train_sequence: int  # longest joint sequence of the training; up to it nothing is corrected
    text_tokens: int
    observed: tuple[float, ...]  # further repetition periods seen on this model, tokens (Algorithm 1)
    axes: tuple[int, int, int]  # rotary channels of frame, height, width
    layers: int
    width: int  # channels of the transformer
    parameters: float  # of the transformer
    text_parameters: float
    vae_flop_per_pixel: float  # decoding
    vae_bytes_per_pixel: float  # peak of one untiled decode
    distilled_guidance: bool  # guidance is an input of the network, not a second branch
    h_range: tuple[float, float | None]  # published h_min, h_max; None: ln(blocks)
    judge: str = ""  # folder of the classifier for a model that draws countable things
    calibration_prompt: str = "a photograph of a landscape"  # what heads are measured on when that is shared
    settings: dict[str, Any] = field(default_factory=dict)  # what `Params` starts from

    @property
    def attention_sequence(self) -> int:
        """Tokens that attention was trained on, for the entropy-scale baseline."""
        return self.train_sequence or self.train_tokens**2 + self.text_tokens


POCKET = ModelPreset(
    title="Pocket model",
    repo=str(ASSETS / "pocket" / "ultraimage"),
    revision="",
    fallbacks=(),
    licence="Apache-2.0",
    download="",
    dtype="float32",
    pixels_per_token=8,
    base_pixels=96,
    train_pixels=96,
    train_tokens=12,
    train_sequence=164,
    text_tokens=20,
    observed=(23.4,),  # the next period also runs through once at twice the size
    axes=(8, 28, 28),
    layers=6,
    width=192,
    parameters=4.4e6,
    text_parameters=0.2e6,
    vae_flop_per_pixel=60e3,
    vae_bytes_per_pixel=1200,
    distilled_guidance=False,
    h_range=(0.04, None),
    judge=str(ASSETS / "pocket" / "ultraimage_judge"),
    calibration_prompt="a red disc under a pale sky over sandy ground",
    settings={
        "steps": 16,
        "guidance": 2.0,
        "guide_guidance": 3.0,
        "shift": 2.0,
        "correction": "interpolate",
        "lambda_max": 1.15,  # at the published 1.3 fragments become objects; chosen on seeds 10000 to 10015
    },
)

FLUX = ModelPreset(
    title="FLUX.1-dev",
    repo="black-forest-labs/FLUX.1-dev",
    revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    fallbacks=(("black-forest-labs/FLUX.1-Krea-dev", "main"),),
    licence="FLUX.1-dev non-commercial licence (gated: accept it on the model's page first)",
    download="34 GB",
    dtype="bfloat16",
    pixels_per_token=16,
    base_pixels=1024,
    train_pixels=1024,
    train_tokens=128,  # trained up to 2048 px, section 3.1
    train_sequence=4608,  # (1024 / 16)^2 + 512
    text_tokens=512,
    observed=(),
    axes=(16, 56, 56),
    layers=57,
    width=3072,
    parameters=11.9e9,
    text_parameters=4.9e9,
    vae_flop_per_pixel=4.8e6,
    vae_bytes_per_pixel=1800,
    distilled_guidance=True,
    h_range=(0.44, 6.0),
    settings={
        "steps": 30,
        "guidance": 7.0,
        "guide_guidance": 3.5,
        "shift": 3.0,
        "correction": "single_period",
        "margin": 0.85,
        "lambda_max": 1.3,
    },
)

QWEN = ModelPreset(
    title="Qwen-Image",
    repo="Qwen/Qwen-Image",
    revision="75e0b4be04f60ec59a75f475837eced720f823b6",
    fallbacks=(("Qwen/Qwen-Image-2512", "main"),),
    licence="Apache-2.0",
    download="58 GB",
    dtype="bfloat16",
    pixels_per_token=16,
    base_pixels=1328,
    train_pixels=1328,
    train_tokens=83,
    train_sequence=0,  # its correction is always on
    text_tokens=128,
    observed=(121.3,),  # repetition after the first correction, from training at several resolutions
    axes=(16, 56, 56),
    layers=60,
    width=3072,
    parameters=20.4e9,
    text_parameters=8.3e9,
    vae_flop_per_pixel=4.0e6,
    vae_bytes_per_pixel=1800,
    distilled_guidance=False,
    h_range=(0.04, 6.25),
    settings={
        "steps": 50,
        "guidance": 4.0,
        "guide_guidance": 4.0,
        "shift": None,
        "correction": "interpolate",
        "lambda_max": 1.3,
        "negative_prompt": "repeated elements, warped geometry, distorted image",
    },
)

MODELS = {"pocket": POCKET, "flux": FLUX, "qwen": QWEN}


@dataclass(frozen=True)
class Method:
    """One way to sample above the training resolution: a positional rule and an attention rule."""

    title: str
    help: str
    role: str  # "method", "ablation" or "baseline"
    position: str = "trained"  # trained, corrected, interpolation, ntk, yarn or dype
    attention: str = "plain"  # plain, focused or proportional
    note: str = ""  # shown beside a result


METHODS = {
    "ultraimage": Method(
        "UltraImage", "Corrects the repeating frequency and sharpens local heads.", "method", "corrected", "focused"
    ),
    "frequency_only": Method(
        "Frequency correction alone", "UltraImage without sharpening attention.", "ablation", "corrected"
    ),
    "concentration_only": Method(
        "Concentration alone", "UltraImage without correcting frequencies.", "ablation", attention="focused"
    ),
    "direct": Method("Direct sampling", "The model as it is, asked for a larger picture (PE).", "baseline"),
    "pi": Method(
        "Position interpolation", "All positions squeezed into the trained range.", "baseline", "interpolation"
    ),
    "ntk": Method("NTK-aware", "A larger rotary base: slow frequencies stretched most.", "baseline", "ntk"),
    "yarn": Method("YaRN", "Slow frequencies interpolated, fast ones kept.", "baseline", "yarn"),
    "entropy_scale": Method(
        "Entropy scale",
        "One attention factor for all heads, from the sequence length.",
        "baseline",
        attention="proportional",
    ),
    "dype": Method(
        "DyPE",
        "Frequencies that change with the noise level.",
        "baseline",
        "dype",
        note="DyPE is patent pending; its authors ask to be contacted before commercial use.",
    ),
}
