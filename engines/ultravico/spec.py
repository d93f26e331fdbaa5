"""UltraViCo as the house knows it: parameters with ranges and help, presets, validation and estimate. No torch.

Paper: "UltraViCo: Breaking Extrapolation Limits in Video Diffusion Transformers", arXiv 2511.20123 (ICLR 2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from engines.shared.prompt import check_prompt, unknown_words, vocabulary, word_notes
from engines.shared.sources import with_settings
from engines.ultravico import estimate as cost
from engines.ultravico.presets import METHODS, MODELS, ModelPreset
from studio.contract import DeviceFacts, EngineSpec, Estimate, FileRef, Metric, Paper, Params
from studio.errors import InvalidInput

__all__ = ["METHODS", "MODELS", "SPEC", "UltraVicoParams", "decay_of", "length_of", "unknown_words", "vocabulary"]

MethodName = Literal["ultravico", "direct", "pi", "ntk", "yarn", "tasr", "riflex", "riflex_decay"]
ModelName = Literal["pocket", "wan", "wan_large", "wan_image", "hunyuan", "cogvideox", "cogvideox_small"]
Strength = Literal["subtle", "standard", "strong", "custom"]
STRENGTHS = ("subtle", "standard", "strong")
OWN_DECAY = ("alpha", "beta", "gamma", "period")  # fields that only a custom strength reads
LARGEST_RATIO = 8
LARGEST_SIDE = 2048  # pixels
LONGEST = 4001  # frames


class UltraVicoParams(Params):
    """Everything that decides a result; what is not given starts from the model's own settings."""

    prompt: str = Field("", title="Prompt", description="What the video should show.")
    model: ModelName = Field(
        "pocket", title="Model", description="The pocket model ships with Atelier; the others are large downloads."
    )
    ratio: float | None = Field(
        None,
        ge=1,
        le=LARGEST_RATIO,
        title="Length",
        description="Length over training length, to the nearest latent frame; 2 if no frames are given.",
        json_schema_extra={"unit": "times"},
    )
    frames: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        title="Frames",
        description="Instead of a length: one more than a multiple of 4.",
    )
    methods: tuple[MethodName, ...] = Field(
        ("ultravico", "direct"),
        title="Methods",
        description="Each is sampled from the same seed and noise, to be compared.",
    )
    strength: Strength = Field(
        "standard",
        title="Strength",
        description="How much attention beyond the window is decayed; custom reads alpha and the bands below.",
    )
    image: FileRef | None = Field(
        None,
        title="Picture",
        description="What the video starts from, for the model that starts from a picture.",
        json_schema_extra={"accept": "image/*"},
    )
    steps: int = Field(16, ge=1, le=200, title="Steps", description="Denoising steps; more are slower and cleaner.")
    guidance: float = Field(
        3.0, ge=1, le=20, title="Guidance", description="How closely the prompt is followed; 1 switches it off."
    )
    negative_prompt: str = Field("", title="Negative prompt", description="What to steer away from; may stay empty.")
    width: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIDE,
        title="Width",
        description="Empty: the training size.",
        json_schema_extra={"unit": "px"},
    )
    height: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIDE,
        title="Height",
        description="Empty: the training size.",
        json_schema_extra={"unit": "px"},
    )
    fps: float | None = Field(
        None, gt=0, le=120, title="Frames a second", description="Empty: what the model was trained on."
    )
    shift: float | None = Field(
        None,
        ge=0.1,
        le=20,
        title="Time shift",
        description="Above 1 spends more steps at high noise; empty: the checkpoint's own schedule.",
    )

    alpha: float | None = Field(
        None, gt=0, le=1, title="Alpha", description="Factor on positive logits beyond the window; 1 changes nothing."
    )
    beta: float | None = Field(
        None, gt=0, le=1, title="Beta", description="Factor in the bands where the model repeats; below alpha."
    )
    gamma: float | None = Field(
        None,
        gt=0,
        le=64,
        title="Gamma",
        description="Half width of a band.",
        json_schema_extra={"unit": "latent frames"},
    )
    period: float | None = Field(
        None,
        gt=1,
        le=1000,
        title="Period",
        description="After how many latent frames the model repeats itself; RIFLEx finds its frequency by it.",
        json_schema_extra={"unit": "latent frames"},
    )
    window: float | None = Field(
        None,
        gt=0,
        le=1000,
        title="Window",
        description="Attention within half of this stays as it is; empty: the training length.",
        json_schema_extra={"unit": "latent frames"},
    )
    profile: Literal["constant", "linear", "parabolic"] = Field(
        "constant",
        title="Decay profile",
        description="Alpha everywhere, or from alpha at distance 0 to the far value at the video's length.",
    )
    far: float | None = Field(
        None, gt=0, le=1, title="Far value", description="Factor at the far end of the other profiles."
    )
    smooth_keys: bool = Field(
        True, title="Smooth keys", description="Subtract the mean key first, as the published code does."
    )
    riflex_k: int | None = Field(
        None, ge=1, le=64, title="RIFLEx frequency", description="Counted from 1; empty: the one with the period."
    )
    tasr_switch: float = Field(
        0.5, ge=0, le=1, title="TASR switch", description="Noise level at which TASR turns from interpolation to NTK."
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_model(cls, values: Any) -> Any:
        """Settings that are not given are the model's, and are stored, so that a result can always be repeated."""
        return with_settings(values, MODELS)


@dataclass(frozen=True)
class Length:
    """How long a video becomes."""

    latent_frames: int
    frames: int
    ratio: float  # latent frames over trained ones


def length_of(params: UltraVicoParams) -> Length:
    """Latent frames, frames and true ratio of a run."""
    model = MODELS[params.model]
    step = model.frames_per_latent
    if params.frames is not None:
        latent = (params.frames - 1) // step + 1
    else:
        latent = max(1, round(model.train_latent_frames * (params.ratio or 2.0)))
    return Length(latent, step * (latent - 1) + 1, latent / model.train_latent_frames)


def size_of(params: UltraVicoParams) -> tuple[int, int]:
    """(width, height) in pixels."""
    model = MODELS[params.model]
    return params.width or model.width, params.height or model.height


@dataclass(frozen=True)
class DecaySettings:
    """What the strength comes to: the constants of equation 6."""

    alpha: float
    beta: float | None
    gamma: float | None
    period: float | None


def decay_of(params: UltraVicoParams) -> DecaySettings:
    """Alpha and the bands of a run: the model's row for its ratio and strength, or what was asked for."""
    model = MODELS[params.model]
    row = model.row(length_of(params).ratio)
    standard = STRENGTHS.index("standard")
    if params.strength != "custom":
        alpha, beta = row.alphas[STRENGTHS.index(params.strength)], row.beta
        return DecaySettings(alpha, beta, *((model.gamma, model.period) if beta is not None else (None, None)))
    alpha = row.alphas[standard] if params.alpha is None else params.alpha
    if params.beta is None:
        return DecaySettings(alpha, None, None, None)
    return DecaySettings(alpha, params.beta, params.gamma or model.gamma, params.period or model.period)


def validate(params: UltraVicoParams) -> None:
    """Raise InvalidInput, with the field and what to do, for a run that cannot work."""
    check_prompt(params.prompt, "prompt", needed=True, remedy="Say what the video should show.")
    check_prompt(params.negative_prompt, "negative_prompt", needed=False)
    _check_methods(params)
    _check_length(params)
    _check_size(params)
    _check_image(params)
    _check_decay(params)
    _check_rules(params)


def _check_methods(params: UltraVicoParams) -> None:
    model = MODELS[params.model]
    if not params.methods:
        raise InvalidInput("No method is chosen.", "Choose at least one.", field="methods")
    if len(set(params.methods)) < len(params.methods):
        raise InvalidInput("A method is chosen twice.", "Name each method once.", field="methods")
    rotary = [METHODS[name].title for name in params.methods if METHODS[name].position != "pe"]
    if rotary and not model.rotary:
        raise InvalidInput(
            f"{model.title} adds fixed positions to its tokens instead of rotating them: there is no frequency that "
            f"{', '.join(rotary)} could change.",
            "Choose UltraViCo and direct sampling.",
            field="methods",
        )


def _check_length(params: UltraVicoParams) -> None:
    model = MODELS[params.model]
    step = model.frames_per_latent
    if params.frames is None:
        return
    if params.ratio is not None:
        raise InvalidInput(
            f"Both a length of {params.ratio:g} times and {params.frames} frames are given.",
            "Give one of them.",
            field="ratio",
        )
    if (params.frames - 1) % step:
        lower = (params.frames - 1) // step * step + 1
        raise InvalidInput(
            f"{params.frames} frames are not one more than a multiple of {step}.",
            f"Try {lower} or {lower + step}.",
            field="frames",
        )
    if not 1 <= length_of(params).ratio <= LARGEST_RATIO:
        low, high = (step * (round(model.train_latent_frames * ratio) - 1) + 1 for ratio in (1, LARGEST_RATIO))
        raise InvalidInput(
            f"{params.frames} frames are {length_of(params).ratio:.2g} times the training length of {model.title}.",
            f"Ask for {low} to {high} frames: 1 to {LARGEST_RATIO} times.",
            field="frames",
        )


def _check_size(params: UltraVicoParams) -> None:
    cell = MODELS[params.model].pixels_per_token
    for field, side in zip(("width", "height"), size_of(params), strict=True):
        if side % cell or side < 2 * cell:
            below = max(side // cell * cell, 2 * cell)
            raise InvalidInput(
                f"A {field} of {side} px is not a multiple of {cell} px of at least {2 * cell}.",
                f"Try {below} or {below + cell}.",
                field=field,
            )


def _check_image(params: UltraVicoParams) -> None:
    model = MODELS[params.model]
    if model.takes_image and params.image is None:
        raise InvalidInput(f"{model.title} starts from a picture.", "Upload one.", field="image")
    if params.image is not None and not model.takes_image:
        starts = next(preset.title for preset in MODELS.values() if preset.takes_image)
        raise InvalidInput(
            f"{model.title} does not start from a picture.", f"Choose {starts}, or leave it out.", field="image"
        )


def _check_decay(params: UltraVicoParams) -> None:
    if params.strength != "custom":
        given = next((name for name in OWN_DECAY if getattr(params, name) is not None), None)
        if given is not None:
            raise InvalidInput(
                f"{given.capitalize()} is only read with a custom strength.",
                "Choose the strength custom, or leave the field empty.",
                field=given,
            )
    if (params.far is None) != (params.profile == "constant"):
        what = (
            "A constant profile has no far value." if params.far else f"A {params.profile} profile needs a far value."
        )
        raise InvalidInput(what, "Give a far value with a linear or parabolic profile only.", field="far")
    own = decay_of(params)
    if own.beta is None and params.strength == "custom":
        stretched = any(METHODS[name].position == "riflex" for name in params.methods)  # by the period, bands or not
        shaping = ("gamma",) if stretched else ("gamma", "period")
        given = next((name for name in shaping if getattr(params, name) is not None), None)
        if given is not None:
            raise InvalidInput(f"{given.capitalize()} shapes bands, and there is no beta.", "Give beta.", field=given)
    if own.beta is not None and own.beta >= own.alpha:
        raise InvalidInput(
            f"Beta, {own.beta:g}, must be below alpha, {own.alpha:g}: bands are decayed more than the rest.",
            "Lower beta or leave it empty.",
            field="beta",
        )
    for name in ("gamma", "period"):
        if own.beta is not None and getattr(own, name) is None:
            raise InvalidInput(
                f"Bands need a {name}, and {MODELS[params.model].title} has none of its own.", "Give one.", field=name
            )


def _check_rules(params: UltraVicoParams) -> None:
    model = MODELS[params.model]
    if params.shift is not None and model.family == "cogvideox":
        raise InvalidInput(f"The schedule of {model.title} has no time shift.", "Leave it empty.", field="shift")
    if params.riflex_k is not None and params.riflex_k > model.frequencies:
        raise InvalidInput(
            f"{model.title} has no temporal frequency {params.riflex_k}.",
            f"Frequencies are counted from 1 to {model.frequencies}.",
            field="riflex_k",
        )


def job_of(params: UltraVicoParams) -> cost.Job:
    """The sizes that decide the cost of a run."""
    model = MODELS[params.model]
    width, height = size_of(params)
    length = length_of(params)
    return cost.Job(
        model=model,
        height=height,
        width=width,
        latent_frames=length.latent_frames,
        frames=length.frames,
        steps=params.steps,
        decays=tuple(METHODS[name].decays and length.ratio > 1 for name in params.methods),
        two_branches=model.two_branches and params.guidance > 1,
    )


def estimate(params: UltraVicoParams, facts: DeviceFacts) -> Estimate:
    """Seconds, bytes and plan; raises InvalidInput, naming the longest video that fits, if no plan does."""
    validate(params)
    job = job_of(params)
    budget = facts.memory_total * cost.DEVICE_SHARE
    plan = cost.fitting_plan(job, budget, facts.kind)
    if plan is None:
        raise _too_large(params, job, facts, budget)
    return Estimate(
        seconds=cost.seconds(job, facts.kind, facts.speed),
        memory_bytes=cost.memory(job, plan, facts.kind),
        work=cost.work(job, facts.kind),
        plan=plan,
        note=" ".join(_notes(params)),
    )


def _too_large(params: UltraVicoParams, job: cost.Job, facts: DeviceFacts, budget: float) -> InvalidInput:
    needed = cost.memory(job, cost.PLANS[-1], facts.kind)
    need, have = (size / 2**30 for size in (needed, facts.memory_total))
    field = "frames" if params.frames is not None else "ratio"
    what = (
        f"{job.frames} frames of {job.width} x {job.height} px with {job.model.title} need {need:.1f} GB; "
        f"{facts.name} has {have:.1f} GB."
    )
    fits = cost.longest_fitting(job, budget, facts.kind)
    if fits is None:
        return InvalidInput(what, "No length of this model fits: choose a smaller size or model.", field="model")
    frames = job.model.frames_per_latent * (fits - 1) + 1
    times = int(100 * fits / job.model.train_latent_frames) / 100
    return InvalidInput(what, f"The longest that fits is {times:g} times, {frames} frames.", field=field)


def _notes(params: UltraVicoParams) -> list[str]:
    model, length = MODELS[params.model], length_of(params)
    fps = params.fps or model.fps
    notes = [f"{length.frames} frames, {length.frames / fps:.1f} s at {fps:g} frames a second."]
    notes += word_notes(params.prompt, model)
    notes += [METHODS[name].note for name in params.methods if METHODS[name].note]
    if length.ratio == 1:
        notes.append("At the training length every method is the model as it is.")
    if length.ratio > model.reported:
        notes.append(f"Beyond {model.reported:g} times the training length nobody has reported results.")
    if model.untested:
        notes.append(model.untested)
    if model.distilled_guidance and params.negative_prompt.strip():
        notes.append(f"{model.title} has its guidance built in and does not read a negative prompt.")
    return notes


def model_key(params: UltraVicoParams) -> str:
    """What must be loaded for a run."""
    return f"ultravico/{params.model}"


BASELINES = ("direct", "pi", "ntk", "yarn", "tasr", "riflex")

PRESETS: dict[str, dict[str, Any]] = {
    "Pocket, twice as long": {"model": "pocket", "ratio": 2.0},
    "Pocket, four times as long": {"model": "pocket", "ratio": 4.0},
    "Pocket, all baselines": {"model": "pocket", "ratio": 2.0, "methods": ("ultravico", *BASELINES)},
    "Wan2.1 1.3B, three times, as published": {"model": "wan", "ratio": 3.0, **MODELS["wan"].settings},
    "HunyuanVideo, three times, as published": {"model": "hunyuan", "ratio": 3.0, **MODELS["hunyuan"].settings},
    "CogVideoX-5B, three times, as in the paper": {
        "model": "cogvideox",
        "ratio": 3.0,
        **MODELS["cogvideox"].settings,
    },
}

METRICS = {
    "no_repeat": Metric(
        "NoRepeat",
        "Share of frames that are no second showing of what came one period before; only videos that move have it.",
        "higher",
        "%",
    ),
    "static": Metric("Static", "Whether the video hardly moves, so that repetition cannot be judged."),
    "repetition": Metric(
        "Repetition", "How alike the places of the object are one period apart; 1 is a loop.", "lower"
    ),
    "mean_flow": Metric("Mean flow", "Optical flow of all pixels, mean over the video.", "", "px a frame"),
    "motion": Metric("Motion", "Mean of the fastest twentieth of the optical flow.", "higher", "px a frame"),
    "speed": Metric("Speed", "How far the centre of the object moves.", "", "px a frame"),
    "consistency": Metric(
        "Consistency",
        "How alike the colours of every frame are to the first frame and the one before; still videos score high.",
        "higher",
    ),
    "drift": Metric("Colour drift", "How much the background changes its colour over time; 0 is none.", "lower"),
    "survival": Metric("Object survival", "Share of frames in which exactly one object is seen.", "higher"),
    "harmonic_share": Metric(
        "Harmonic share", "What the strongest temporal frequency and its harmonics carry of the attention pattern."
    ),
    "dominant_period": Metric("Dominant period", "Of the strongest temporal frequency.", "", "latent frames"),
    "attention": Metric("Attention", "Which way decayed attention was computed."),
}

SPEC = EngineSpec(
    name="ultravico",
    title="UltraViCo",
    tagline="Videos two to four times longer than the model was trained for, that go on moving.",
    summary="A video diffusion transformer asked for a longer video than it was trained on loops, or slows down and "
    "fades. UltraViCo shrinks the attention that reaches beyond the training length, most where the model would "
    "repeat itself; nothing is trained.",
    paper=Paper(
        "UltraViCo: Breaking Extrapolation Limits in Video Diffusion Transformers",
        "Min Zhao et al.",
        2025,
        "https://arxiv.org/abs/2511.20123",
    ),
    licence="This implementation: Apache-2.0. Weights: "
    + "; ".join(f"{m.title}: {m.licence}" for m in MODELS.values())
    + ".",
    params=UltraVicoParams,
    accepts=("text", "image"),
    produces=("video", "image", "archive"),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    plans=cost.PLANS,
    presets=PRESETS,
    metrics=METRICS,
)

assert set(get_args(MethodName)) == set(METHODS)
assert set(get_args(ModelName)) == set(MODELS)
assert all(isinstance(model, ModelPreset) for model in MODELS.values())
