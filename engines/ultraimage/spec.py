"""UltraImage as the house knows it: parameters with ranges and help, presets, validation and estimate. No torch.

Paper: "UltraImage: Rethinking Resolution Extrapolation in Image Diffusion Transformers", arXiv 2512.04504.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from engines.shared.prompt import check_prompt, length_notes, unknown_words, vocabulary, word_notes
from engines.shared.sources import with_settings
from engines.ultraimage import estimate as cost
from engines.ultraimage.presets import METHODS, MODELS, ModelPreset
from studio.contract import DeviceFacts, EngineSpec, Estimate, Metric, Paper, Params
from studio.errors import InvalidInput

__all__ = ["METHODS", "MODELS", "SPEC", "UltraImageParams", "target_size", "unknown_words", "vocabulary"]

MethodName = Literal[
    "ultraimage",
    "direct",
    "frequency_only",
    "concentration_only",
    "pi",
    "ntk",
    "yarn",
    "entropy_scale",
    "dype",
]
LARGEST_SIDE = 8192  # pixels; beyond it a single PNG is no longer a sensible result


class UltraImageParams(Params):
    """Everything that decides a result; what is not given starts from the model's own settings."""

    prompt: str = Field("", title="Prompt", description="What the picture should show.")
    model: Literal["pocket", "flux", "qwen"] = Field(
        "pocket", title="Model", description="The pocket model ships with Atelier; the others are large downloads."
    )
    scenario: Literal["direct", "guided_resolution", "guided_view"] = Field(
        "direct",
        title="Scenario",
        description="Sample at the target size at once; let a small picture guide the large one; "
        "or paint outwards from a small picture.",
    )
    methods: tuple[MethodName, ...] = Field(
        ("ultraimage", "direct"),
        title="Methods",
        description="Each is sampled from the same seed and noise, to be compared.",
    )
    scale: float | None = Field(
        None,
        ge=1,
        le=8,
        title="Scale",
        description="Target side over training side; 2 if no size is given.",
        json_schema_extra={"unit": "times"},
    )
    width: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIDE,
        title="Width",
        description="Instead of a scale.",
        json_schema_extra={"unit": "px"},
    )
    height: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIDE,
        title="Height",
        description="Instead of a scale.",
        json_schema_extra={"unit": "px"},
    )
    steps: int = Field(16, ge=1, le=200, title="Steps", description="Denoising steps; more are slower and cleaner.")
    guidance: float = Field(
        2.0, ge=1, le=20, title="Guidance", description="How closely the prompt is followed; 1 switches it off."
    )
    negative_prompt: str = Field("", title="Negative prompt", description="What to steer away from; may stay empty.")

    margin: float = Field(
        0.9,
        gt=0,
        le=1,
        title="Margin",
        description="The corrected period is the target length divided by this (published for Flux: 0.85).",
    )
    correction: Literal["single_period", "interpolate"] = Field(
        "interpolate",
        title="Correction rule",
        description="Set the frequency to one period over the target (Flux) or divide it by the scale (Qwen-Image).",
    )
    indices: tuple[int, ...] | None = Field(
        None, title="Corrected frequencies", description="0-based indices; empty for the paper's rule."
    )
    lambda_preset: Literal["paper", "code"] = Field(
        "paper",
        title="Entropy scale",
        description="paper: exact entropy, range taken over all heads; code: 128-token blocks and published range.",
    )
    lambda_min: float = Field(
        1.0, ge=0.5, le=3, title="Least sharpening", description="For heads that look everywhere."
    )
    lambda_max: float = Field(
        1.15, ge=0.5, le=3, title="Most sharpening", description="For heads that look at little; published: 1.3."
    )
    gamma: float = Field(
        2.0, gt=0, le=10, title="Focus exponent", description="p of the paper: larger sharpens fewer heads."
    )
    reuse_calibration: bool = Field(
        True,
        title="Reuse calibration",
        description="Measure heads once per model and size, on a fixed prompt; off: anew with this prompt and seed.",
    )
    shift: float | None = Field(
        2.0,
        ge=0.1,
        le=20,
        title="Time shift",
        description="Above 1 spends more steps at high noise; empty: the checkpoint's own schedule.",
    )

    guide_guidance: float = Field(
        3.0, ge=1, le=20, title="Guidance of the small picture", description="For the guided scenarios."
    )
    prompt_high: str = Field(
        "", title="Prompt of the large picture", description="Guided view only; empty: the same prompt."
    )
    lowpass_level: int = Field(
        1, ge=1, le=5, title="Low-pass level", description="Cells of 2^level latent pixels are guided together."
    )
    patch_shift: bool = Field(
        True, title="Shift patches", description="Guided resolution: move patch borders at every other step."
    )
    view_mode: Literal["paste", "masked", "velocity"] = Field(
        "paste", title="Guided view by", description="Pasting the small picture, blending it, or guiding its window."
    )
    view_y: float = Field(0.5, ge=0, le=1, title="View centre, down", description="0 top, 1 bottom.")
    view_x: float = Field(0.5, ge=0, le=1, title="View centre, across", description="0 left, 1 right.")
    view_share: float = Field(
        0.37, ge=0, le=1, title="Guided share", description="Part of the steps in which the view is held (11 of 30)."
    )
    inner_ratio: float = Field(
        0.6,
        ge=0,
        le=1,
        title="Mask core",
        description="Part of the half side that is pasted fully; 1 is a hard edge.",
    )
    weight_schedule: Literal["cosine", "linear", "exp", "power", "logistic"] = Field(
        "cosine", title="Weight schedule", description="How the pull of the view fades, when guiding by velocity."
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_model(cls, values: Any) -> Any:
        """Settings that are not given are the model's, and are stored, so that a result can always be repeated."""
        return with_settings(values, MODELS)


def target_size(params: UltraImageParams) -> tuple[int, int]:
    """(width, height) in pixels that a run will produce."""
    if params.width is not None and params.height is not None:
        return params.width, params.height
    model = MODELS[params.model]
    cells = round(model.train_pixels * (params.scale or 2.0) / model.pixels_per_token)
    return (cells * model.pixels_per_token,) * 2


def validate(params: UltraImageParams) -> None:
    """Raise InvalidInput, with the field and what to do, for a run that cannot work."""
    guided_view = params.scenario == "guided_view"
    check_prompt(params.prompt, "prompt", needed=True, remedy="Say what the picture should show.")
    check_prompt(params.negative_prompt, "negative_prompt", needed=False)
    check_prompt(params.prompt_high, "prompt_high", needed=False)
    if params.prompt_high.strip() and not guided_view:
        raise InvalidInput(
            "A prompt of its own for the large picture exists in the guided view only.",
            "Choose that scenario or leave the field empty.",
            field="prompt_high",
        )
    _check_methods(params)
    _check_size(params)
    _check_correction(params)


def _check_methods(params: UltraImageParams) -> None:
    if not params.methods:
        raise InvalidInput("No method is chosen.", "Choose at least one.", field="methods")
    if len(set(params.methods)) < len(params.methods):
        raise InvalidInput("A method is chosen twice.", "Name each method once.", field="methods")
    if params.lambda_min > params.lambda_max:
        raise InvalidInput(
            f"The least sharpening, {params.lambda_min:g}, is above the most, {params.lambda_max:g}.",
            "Swap them.",
            field="lambda_min",
        )


def _check_size(params: UltraImageParams) -> None:
    model = MODELS[params.model]
    cell = model.pixels_per_token
    if (params.width is None) != (params.height is None):
        missing = "width" if params.width is None else "height"
        raise InvalidInput(f"The {missing} is missing.", "Give width and height, or a scale.", field=missing)
    if params.width is not None and params.scale is not None:
        raise InvalidInput(
            f"Both a scale of {params.scale:g} and a size in pixels are given.", "Give one of them.", field="scale"
        )
    least = 4 * cell
    for field, side in zip(("width", "height"), target_size(params), strict=True):
        shown = field if params.width is not None else "scale"
        if side % cell:
            below = max(side // cell * cell, least)
            raise InvalidInput(
                f"A {field} of {side} px is not a multiple of {cell} px.",
                f"Try {below} or {below + cell}.",
                field=shown,
            )
        if side < least:
            raise InvalidInput(f"A {field} of {side} px is too small.", f"Use at least {least} px.", field=shown)
        if side > LARGEST_SIDE:
            raise InvalidInput(
                f"A {field} of {side} px is too large.", f"Use at most {LARGEST_SIDE} px.", field=shown
            )
    if params.scenario != "direct" and (min(target_size(params)) < model.base_pixels or not _enlarges(params)):
        raise InvalidInput(
            f"The guided scenarios enlarge a picture of {model.base_pixels} px a side.",
            "Choose a larger size, or direct sampling.",
            field="scale" if params.width is None else "width",
        )


def _enlarges(params: UltraImageParams) -> bool:
    return max(target_size(params)) > MODELS[params.model].base_pixels


def _check_correction(params: UltraImageParams) -> None:
    count = MODELS[params.model].axes[1] // 2
    for index in params.indices or ():
        if not 0 <= index < count:
            raise InvalidInput(
                f"There is no frequency {index}.", f"Indices run from 0 to {count - 1}.", field="indices"
            )


def job_of(params: UltraImageParams) -> cost.Job:
    """The sizes that decide the cost of a run."""
    model = MODELS[params.model]
    width, height = target_size(params)
    return cost.Job(
        model=model,
        height=height,
        width=width,
        steps=params.steps,
        methods=params.methods,
        guided=params.scenario != "direct",
        two_branches=not model.distilled_guidance and params.guidance > 1,
    )


def estimate(params: UltraImageParams, facts: DeviceFacts) -> Estimate:
    """Seconds, bytes and plan; raises InvalidInput, naming the largest size that fits, if none does."""
    validate(params)
    job = job_of(params)
    budget = facts.memory_total * cost.DEVICE_SHARE
    plan = cost.fitting_plan(job, budget)
    if plan is None:
        raise _too_large(params, job, facts, budget)
    return Estimate(
        seconds=cost.seconds(job, facts.kind, facts.speed),
        memory_bytes=cost.memory(job, plan),
        work=cost.work(job),
        plan=plan,
        note=" ".join(_notes(params, job.model)),
    )


def _too_large(params: UltraImageParams, job: cost.Job, facts: DeviceFacts, budget: float) -> InvalidInput:
    need, have = (size / 2**30 for size in (cost.memory(job, cost.PLANS[-1]), facts.memory_total))
    what = (
        f"{job.width} x {job.height} px with {job.model.title} needs {need:.1f} GB; {facts.name} has {have:.1f} GB."
    )
    fits = cost.largest_fitting(job, budget)
    if fits is None:
        return InvalidInput(what, "No size of this model fits: choose a smaller model.", field="model")
    return InvalidInput(
        what,
        f"The largest that fits is {fits[0]} x {fits[1]} px.",
        field="scale" if params.width is None else "width",
    )


def _notes(params: UltraImageParams, model: ModelPreset) -> list[str]:
    notes = word_notes(params.prompt, model) + length_notes(params.prompt, model, model.text_tokens)
    notes += [METHODS[name].note for name in params.methods if METHODS[name].note]
    if model.distilled_guidance and params.negative_prompt.strip():
        notes.append(f"{model.title} has its guidance built in and does not read a negative prompt.")
    return notes


def model_key(params: UltraImageParams) -> str:
    """What must be loaded for a run."""
    return f"ultraimage/{params.model}"


PRESETS: dict[str, dict[str, Any]] = {
    "Pocket, twice the size": {"model": "pocket", "prompt": "a red ring under a pale sky", "scale": 2.0},
    "Pocket, three times the size": {"model": "pocket", "prompt": "a red ring under a pale sky", "scale": 3.0},
    "FLUX.1-dev, 3600 px as published": {
        "model": "flux",
        "width": 3600,
        "height": 3600,
        "lambda_preset": "code",
        "lambda_min": 1.1,
        **MODELS["flux"].settings,
    },
    "Qwen-Image, 4096 px as published": {
        "model": "qwen",
        "width": 4096,
        "height": 4096,
        "lambda_preset": "code",
        **MODELS["qwen"].settings,
    },
}

METRICS = {
    "objects": Metric(
        "Objects", "Separate saturated things in the picture; more than asked for means repetition.", "one"
    ),
    "expected_objects": Metric("Asked for", "Things the prompt names."),
    "exact": Metric("Right number", "Whether as many things are there as the prompt names."),
    "horizons": Metric("Horizons", "Borders between sky and ground on the way down; a true picture has one.", "one"),
    "recognised": Metric("Recognised", "Share of the things asked for that a small classifier finds.", "higher"),
    "seen": Metric("Seen", "What the classifier takes the things for."),
    "vividness": Metric("Vividness", "97th percentile of saturation; falls when attention is diluted.", "higher"),
    "seam": Metric("Seams", "Step across patch borders over step inside patches; 1 is seamless.", "lower"),
}

SPEC = EngineSpec(
    name="ultraimage",
    title="UltraImage",
    tagline="Pictures far larger than the model was trained for, without repetition.",
    summary="A diffusion transformer asked for a picture larger than its training size repeats objects and horizons "
    "and washes out. UltraImage finds the one rotary frequency that repeats and slows it down, and sharpens the "
    "attention heads that look at little; nothing is trained.",
    paper=Paper(
        "UltraImage: Rethinking Resolution Extrapolation in Image Diffusion Transformers",
        "Min Zhao et al.",
        2025,
        "https://arxiv.org/abs/2512.04504",
    ),
    licence="This implementation: Apache-2.0. Weights: "
    + "; ".join(f"{m.title}: {m.licence}" for m in MODELS.values())
    + ".",
    params=UltraImageParams,
    accepts=("text",),
    produces=("image",),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    plans=cost.PLANS,
    presets=PRESETS,
    metrics=METRICS,
)

assert set(get_args(MethodName)) == set(METHODS)
