"""The models UltraViCo runs on and the methods it compares, as data; read by `spec.py` and resolved there.

Constants of the method are those of arXiv 2511.20123 (table of settings) and of its published code; sizes and
licences of checkpoints are those of their pages. Knows no torch and loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engines.shared.sources import ASSETS, Source

NEGATIVE = (
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, still picture, "
    "overall grey, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly "
    "drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, messy background, three "
    "legs, many people in the background, walking backwards"
)  # of the Wan model card


@dataclass(frozen=True)
class DecayRow:
    """How strongly attention beyond the window is decayed, up to a ratio of target to training length."""

    up_to: float  # largest ratio this row is for
    alphas: tuple[float, float, float]  # subtle, standard, strong
    beta: float | None = None  # in the bands around multiples of the period; None: no bands


def published(up_to: float, alpha: float, beta: float | None = None) -> DecayRow:
    """A row of the paper, with half the decay as subtle and half again as strong: 0.95, 0.9, 0.85 for alpha 0.9."""
    gap = 1 - alpha
    return DecayRow(up_to, (round(1 - gap / 2, 4), alpha, round(1 - 1.5 * gap, 4)), beta)


@dataclass(frozen=True, kw_only=True)
class ModelPreset(Source):
    """One set of weights: where it is, what it was trained for, and which settings suit it."""

    family: str  # key of families.FAMILIES: wan, wan_image, hunyuan or cogvideox
    train_latent_frames: int  # L
    width: int  # of the training size, pixels
    height: int
    fps: float
    pixels_per_token: int
    layers: int
    channels: int  # of the transformer's tokens
    parameters: float  # of the transformer
    text_parameters: float
    vae_flop_per_pixel: float  # decoding one pixel of one frame
    vae_bytes_per_pixel: float  # peak of one untiled decode, for each pixel of a frame
    decay: tuple[DecayRow, ...]
    dtype: str = "bfloat16"  # of the networks once loaded
    vae_dtype: str = "bfloat16"
    frames_per_latent: int = 4  # pixel frames a latent frame, after the first
    text_tokens: int = 0  # that share the self-attention with the video
    rotary: bool = True  # False: positions are added to the tokens, and no rule can stretch them
    frequencies: int = 22  # temporal rotary frequencies
    riflex_k: int = 1  # 1-based, the frequency RIFLEx changes
    period: float | None = None  # T: latent frames after which the plain model repeats; None: it does not
    gamma: float | None = None  # half width of the bands around its multiples, latent frames
    first_frame: bool = False  # Wan: the first frame sees the training length only
    distilled_guidance: bool = False  # guidance is an input of the network, not a second branch
    solver: str = ""  # class of the scheduler to sample with; "": the checkpoint's own
    solver_settings: dict[str, Any] = field(default_factory=dict)
    takes_image: bool = False  # starts from a picture
    two_branches: bool = True  # classifier-free guidance is possible
    countable: bool = False  # draws saturated things on plain backgrounds, which can be counted and followed
    repeat_distance: float = (
        55  # root mean square of 255, below which frames count as equal; published for photographs
    )
    reported: float = 4  # times the training length, up to which the authors report results
    untested: str = ""  # what nobody has tried, as a sentence
    settings: dict[str, Any] = field(default_factory=dict)  # what `Params` starts from

    def row(self, ratio: float) -> DecayRow:
        """The row for a ratio of target to training length."""
        return next((row for row in self.decay if ratio <= row.up_to), self.decay[-1])


POCKET = ModelPreset(
    title="Pocket model",
    family="wan",
    repo=str(ASSETS / "pocket" / "ultravico"),
    revision="",
    licence="Apache-2.0",
    download="",
    dtype="float32",
    vae_dtype="float32",
    train_latent_frames=12,
    width=64,
    height=64,
    fps=16,
    pixels_per_token=16,
    layers=6,
    channels=128,
    parameters=1.56e6,
    text_parameters=0.2e6,
    vae_flop_per_pixel=280e3,  # what it takes in time: eight channels use little of a processor
    vae_bytes_per_pixel=16e3,
    decay=(DecayRow(8, (0.7, 0.5, 0.3)),),
    frequencies=12,
    riflex_k=2,
    period=13.5,
    gamma=1.0,
    first_frame=True,
    countable=True,
    repeat_distance=18,  # one small thing on a plain wall: true clips score 99.8, perfect loops of the period 58
    settings={"steps": 24, "guidance": 4.0},
)

WAN = ModelPreset(
    title="Wan2.1 1.3B",
    family="wan",
    repo="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    revision="0fad780a534b6463e45facd96134c9f345acfa5b",
    fallbacks=(("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "main"),),
    licence="Apache-2.0",
    download="29 GB",
    vae_dtype="float32",
    train_latent_frames=21,
    width=832,
    height=480,
    fps=16,
    pixels_per_token=16,
    layers=30,
    channels=1536,
    parameters=1.42e9,
    text_parameters=5.7e9,
    vae_flop_per_pixel=3.6e6,
    vae_bytes_per_pixel=9e3,
    decay=(published(8, 0.9),),
    first_frame=True,
    settings={"steps": 50, "guidance": 5.0, "negative_prompt": NEGATIVE},
)

WAN_LARGE = ModelPreset(
    title="Wan2.1 14B",
    family="wan",
    repo="Wan-AI/Wan2.1-T2V-14B-Diffusers",
    revision="38ec498cb3208fb688890f8cc7e94ede2cbd7f68",
    fallbacks=(("Wan-AI/Wan2.1-T2V-14B-Diffusers", "main"),),
    licence="Apache-2.0",
    download="80 GB",
    vae_dtype="float32",
    train_latent_frames=21,
    width=832,
    height=480,
    fps=16,
    pixels_per_token=16,
    layers=40,
    channels=5120,
    parameters=14.3e9,
    text_parameters=5.7e9,
    vae_flop_per_pixel=3.6e6,
    vae_bytes_per_pixel=9e3,
    decay=(published(8, 0.9),),
    first_frame=True,
    settings={"steps": 50, "guidance": 5.0, "negative_prompt": NEGATIVE},
)

WAN_IMAGE = ModelPreset(
    title="Wan2.1 14B from a picture",
    family="wan_image",
    repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    revision="b184e23a8a16b20f108f727c902e769e873ffc73",
    fallbacks=(("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "main"),),
    licence="Apache-2.0",
    download="90 GB",
    vae_dtype="float32",
    train_latent_frames=21,
    width=832,
    height=480,
    fps=16,
    pixels_per_token=16,
    layers=40,
    channels=5120,
    parameters=16.4e9,
    text_parameters=6.3e9,
    vae_flop_per_pixel=3.6e6,
    vae_bytes_per_pixel=9e3,
    decay=(published(8, 0.9),),
    first_frame=True,
    takes_image=True,
    untested="The paper reports no numbers for Wan that starts from a picture.",
    settings={"steps": 50, "guidance": 5.0, "negative_prompt": NEGATIVE},
)

HUNYUAN = ModelPreset(
    title="HunyuanVideo",
    family="hunyuan",
    repo="hunyuanvideo-community/HunyuanVideo",
    revision="e8c2aaa66fe3742a32c11a6766aecbf07c56e773",
    fallbacks=(("hunyuanvideo-community/HunyuanVideo", "main"),),
    licence="Tencent Hunyuan Community License (not for the EU, the UK and South Korea)",
    download="42 GB",
    vae_dtype="float16",
    train_latent_frames=33,
    width=960,
    height=544,
    fps=24,
    pixels_per_token=16,
    text_tokens=256,
    layers=60,
    channels=3072,
    parameters=12.8e9,
    text_parameters=8.1e9,
    vae_flop_per_pixel=9.0e6,
    vae_bytes_per_pixel=24e3,
    decay=(published(2.5, 0.95, 0.6), published(3.5, 0.9, 0.6), published(8, 0.9, 0.8)),
    frequencies=8,
    riflex_k=4,
    period=50,
    gamma=4,
    reported=5,
    distilled_guidance=True,
    two_branches=False,
    settings={"steps": 50, "guidance": 6.0},
)

COGVIDEOX = ModelPreset(
    title="CogVideoX-5B",
    family="cogvideox",
    repo="zai-org/CogVideoX-5b",
    revision="8fc5b281006c82b82d34fd2543d2f0ebb4e7e321",
    fallbacks=(("THUDM/CogVideoX-5b", "8d6ea3f817438460b25595a120f109b88d5fdfad"),),
    licence="CogVideoX licence",
    download="21 GB",
    train_latent_frames=13,
    width=720,
    height=480,
    fps=8,
    pixels_per_token=16,
    text_tokens=226,
    layers=42,
    channels=3072,
    parameters=5.57e9,
    text_parameters=4.76e9,
    vae_flop_per_pixel=7.0e6,
    vae_bytes_per_pixel=20e3,
    decay=(published(3.5, 0.9, 0.6), published(8, 0.85, 0.6)),
    frequencies=8,
    riflex_k=2,
    period=20,
    gamma=1,
    solver="CogVideoXDPMScheduler",  # as in RIFLEx's script
    solver_settings={"timestep_spacing": "trailing"},
    settings={"steps": 50, "guidance": 6.0},
)

COGVIDEOX_SMALL = ModelPreset(
    title="CogVideoX-2B",
    family="cogvideox",
    repo="zai-org/CogVideoX-2b",
    revision="1137dacfc2c9c012bed6a0793f4ecf2ca8e7ba01",
    fallbacks=(("THUDM/CogVideoX-2b", "1137dacfc2c9c012bed6a0793f4ecf2ca8e7ba01"),),
    licence="Apache-2.0",
    download="14 GB",
    dtype="float16",
    vae_dtype="float16",
    train_latent_frames=13,
    width=720,
    height=480,
    fps=8,
    pixels_per_token=16,
    text_tokens=226,
    rotary=False,
    layers=30,
    channels=1920,
    parameters=1.69e9,
    text_parameters=4.76e9,
    vae_flop_per_pixel=7.0e6,
    vae_bytes_per_pixel=20e3,
    decay=(published(8, 0.9),),
    solver="CogVideoXDPMScheduler",
    solver_settings={"timestep_spacing": "trailing"},
    untested="Nobody has reported decayed attention on this model, whose positions are added and not rotated.",
    settings={"steps": 50, "guidance": 6.0},
)

MODELS = {
    "pocket": POCKET,
    "wan": WAN,
    "wan_large": WAN_LARGE,
    "wan_image": WAN_IMAGE,
    "hunyuan": HUNYUAN,
    "cogvideox": COGVIDEOX,
    "cogvideox_small": COGVIDEOX_SMALL,
}


@dataclass(frozen=True)
class Method:
    """One way to sample beyond the training length: a rule for temporal frequencies, and whether attention decays."""

    title: str
    help: str
    role: str  # "method", "ablation" (part of it, or more than it) or "baseline"
    position: str = "pe"  # a method of rope.extrapolated_frequencies
    decays: bool = False
    note: str = ""  # shown beside a result


METHODS = {
    "ultravico": Method(
        "UltraViCo",
        "Shrinks positive attention logits beyond the training window, most where the video would repeat.",
        "method",
        decays=True,
    ),
    "direct": Method("Direct sampling", "The model as it is, asked for a longer video (PE).", "baseline"),
    "pi": Method("Position interpolation", "All frames squeezed into the trained range.", "baseline", "pi"),
    "ntk": Method("NTK-aware", "A larger rotary base: slow frequencies stretched most.", "baseline", "ntk"),
    "yarn": Method("YaRN", "Slow frequencies interpolated, fast ones kept.", "baseline", "yarn"),
    "tasr": Method(
        "TASR", "Interpolation while there is much noise, NTK afterwards; the switch is a guess.", "baseline", "tasr"
    ),
    "riflex": Method(
        "RIFLEx", "The one frequency that repeats, slowed to less than a turn over the video.", "baseline", "riflex"
    ),
    "riflex_decay": Method(
        "RIFLEx with decay",
        "Both at once; the bands move with the changed frequency.",
        "ablation",
        "riflex",
        decays=True,
        note="RIFLEx together with decayed attention is not studied by the authors of either.",
    ),
}
