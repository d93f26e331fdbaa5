"""The Pocket lab as the house knows it: parameters with ranges and help, presets, validation and estimate. No torch.

Paper: "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, arXiv 2112.10752.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from engines.shared.prompt import check_prompt, length_notes, unknown_words, vocabulary
from engines.shared.sources import with_settings
from engines.text2image import estimate as cost
from engines.text2image.presets import MODELS, SAMPLERS
from engines.text2image.prompt import check_words
from studio.contract import DeviceFacts, EngineSpec, Estimate, Metric, Paper, Params
from studio.errors import InvalidInput

__all__ = ["MODELS", "SAMPLERS", "SPEC", "Text2ImageParams", "unknown_words", "vocabulary"]

SamplerName = Literal["dpm", "ddim", "unipc"]
MOST = 16  # pictures of one job


class Text2ImageParams(Params):
    """Everything that decides a result; what is not given starts from the model's own settings."""

    prompt: str = Field(
        "",
        title="Prompt",
        description="A toy with a colour, a side to be seen from, and a place: a red car, side view, on sand under "
        "a dusky sky.",
    )
    model: Literal["pocket", "pocket_b", "sd15", "sd21"] = Field(
        "pocket", title="Model", description="The pocket models ship with Atelier; the others are large downloads."
    )
    methods: tuple[Literal["model", "world"], ...] = Field(
        ("model", "world"),
        title="Show",
        description="What the model draws, and what the world that it was trained on shows for the same words.",
    )
    count: int = Field(
        1,
        ge=1,
        le=MOST,
        title="Pictures",
        description="How many; each has its own seed, counted on from the one below.",
    )
    steps: int = Field(20, ge=1, le=200, title="Steps", description="Denoising steps; more are slower and cleaner.")
    guidance: float = Field(
        5.0, ge=1, le=20, title="Guidance", description="How closely the prompt is followed; 1 switches it off."
    )
    sampler: SamplerName = Field("dpm", title="Sampler", description="How the way from noise to a picture is taken.")
    negative_prompt: str = Field("", title="Negative prompt", description="What to steer away from; may stay empty.")
    layers: bool = Field(
        True,
        title="Layers of the world",
        description="Depth, normals, place on the toy and paints of the world's picture.",
    )
    nearest: bool = Field(
        True,
        title="Nearest training pictures",
        description="Those of its training that a picture resembles most, and how far they are.",
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_model(cls, values: Any) -> Any:
        """Settings that are not given are the model's, and are stored, so that a result can always be repeated."""
        return with_settings(values, MODELS)


def validate(params: Text2ImageParams) -> None:
    """Raise InvalidInput, with the field and what to do, for a run that cannot work."""
    model = MODELS[params.model]
    remedy = "Say what the picture should show."
    for field, needed in (("prompt", True), ("negative_prompt", False)):
        check_prompt(getattr(params, field), field, needed=needed, remedy=remedy)
        check_words(getattr(params, field), field, model)
    if not params.methods:
        raise InvalidInput("Nothing is to be shown.", "Choose the model, the world or both.", field="methods")
    if len(set(params.methods)) < len(params.methods):
        raise InvalidInput("Something is chosen twice.", "Name each once.", field="methods")
    if params.nearest and not model.index:
        raise InvalidInput(
            f"The training pictures of {model.title} are not here.", "Switch this off.", field="nearest"
        )
    if params.seed + params.count - 1 > 2**63 - 1:
        raise InvalidInput(
            f"There are not {params.count} seeds from {params.seed} on.", "Choose a smaller seed.", field="seed"
        )


def seeds_of(params: Text2ImageParams) -> range:
    """The seed of every picture."""
    return range(params.seed, params.seed + params.count)


def estimate(params: Text2ImageParams, facts: DeviceFacts) -> Estimate:
    """Seconds and bytes; raises InvalidInput if the device is too small."""
    validate(params)
    model = MODELS[params.model]
    need = cost.memory(model, facts.kind)
    if need > facts.memory_total:
        need_gb, have_gb = need / 2**30, facts.memory_total / 2**30
        raise InvalidInput(
            f"{model.title} needs {need_gb:.1f} GB; {facts.name} has {have_gb:.1f} GB.",
            "Choose a pocket model.",
            field="model",
        )
    work = cost.work(model, params)
    notes = length_notes(params.prompt, model, model.text_tokens)
    return Estimate(cost.seconds(work, facts), need, work, note=" ".join(notes))


def model_key(params: Text2ImageParams) -> str:
    """What must be loaded for a run."""
    return f"text2image/{params.model}"


PRESETS: dict[str, dict[str, Any]] = {
    "One toy": {"model": "pocket", "prompt": "a red car, side view, on sand under a dusky sky"},
    "A pair": {"model": "pocket", "prompt": "two blue ducks, on grass under a pale sky"},
    "From above": {"model": "pocket", "prompt": "a yellow house, overhead view"},
    "Stable Diffusion 1.5": {
        "model": "sd15",
        "prompt": "a photograph of a red toy car on a beach",
        **MODELS["sd15"].settings,
    },
    "Stable Diffusion 2.1": {
        "model": "sd21",
        "prompt": "a photograph of a red toy car on a beach",
        **MODELS["sd21"].settings,
    },
}

METRICS = {
    "kind": Metric("Kind", "Whether a small classifier sees the toy that was asked for.", "higher"),
    "colour": Metric("Colour", "Whether it sees it in the colour that was asked for.", "higher"),
    "view": Metric(
        "View", "Whether it sees it from the side that was asked for; only for toys whose sides differ.", "higher"
    ),
    "number": Metric("Number", "Whether it sees as many as were asked for.", "higher"),
    "seen": Metric("Seen", "What the classifier takes the picture for."),
    "clip": Metric(
        "CLIP score", "Cosine between picture and words in a small model that was trained to match them.", "higher"
    ),
    "distance": Metric(
        "Nearest training picture",
        "Root mean square difference to it, in grey levels; 0 would be a copy.",
        unit="levels",
    ),
    "caption": Metric("Caption", "Whether the world's grammar reads the prompt, which the rest depends on."),
}

SPEC = EngineSpec(
    name="text2image",
    title="Pocket lab",
    tagline="What the small models know: a world of toys, and a model that draws it from words.",
    summary="The small models of this studio were trained on a world of toys that is drawn from seeds. Here are both "
    "for the same words: what the world itself shows, with everything that is true of it, and what a latent "
    "diffusion model of a few megabytes has learned to draw, beside the training pictures it comes nearest to.",
    paper=Paper(
        "High-Resolution Image Synthesis with Latent Diffusion Models",
        "Robin Rombach et al.",
        2022,
        "https://arxiv.org/abs/2112.10752",
    ),
    licence="This implementation: Apache-2.0. Weights: "
    + "; ".join(f"{m.title}: {m.licence}" for m in MODELS.values())
    + ".",
    params=Text2ImageParams,
    accepts=("text",),
    produces=("image",),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    presets=PRESETS,
    metrics=METRICS,
)

assert set(get_args(SamplerName)) == set(SAMPLERS)
