"""RID as the house knows it: parameters with ranges and help, presets, validation and estimate. No torch.

Paper: "Real-time Identity Defenses against Malicious Personalization of Diffusion Models", arXiv 2412.09844.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from engines.rid.presets import MODELS, SURROGATES
from engines.shared.sources import with_settings
from studio.contract import DeviceFacts, EngineSpec, Estimate, FileRef, Metric, Paper, Params
from studio.errors import InvalidInput

__all__ = ["CONDITIONS", "MODELS", "SPEC", "RidParams"]

Condition = Literal["clean", "rid", "random", "cast", "pgd", "photoguard", "aspl"]
MOST_FILES = 2000
THIEF_PHOTOS = (4, 8)  # how many pictures of a person a thief needs, and uses at most
SQUARES = 3  # of a typical photo, which is no square: one in the middle, one on either side
START = 2.0  # seconds before anything is computed: counted as work, so that speeds of short runs hold for long ones
DRAWING_STEPS = 20
GFLOPS = {"cpu": 40.0, "cuda": 20_000.0}  # of one core or card, before the first timing
ACTIVATIONS = 0.6e9  # bytes, of a batch at 512 px
THIEF_ACTIVATIONS = 0.6e9  # bytes, of a thief's batch and of the judges
PROGRAM = 0.6e9  # bytes, of the libraries
CONDITIONS = {
    "clean": "The pictures as they are",
    "rid": "Protected by RID",
    "random": "Random noise of the same strength",
    "cast": "A plain colour cast of the same strength",
    "pgd": "Protected picture by picture (AdvDM)",
    "photoguard": "Protected picture by picture, against the autoencoder alone (after PhotoGuard)",
    "aspl": "Protected together, against a model that learns them meanwhile (ASPL)",
}
SEARCHES = {"photoguard": 60, "pgd": 100, "aspl": 200}  # training steps that take as long


class RidParams(Params):
    """Everything that decides a result."""

    images: tuple[FileRef, ...] = Field(
        (),
        title="Photos",
        description="Portraits as PNG, JPEG or WebP, as many as you like, or zip archives of them.",
        json_schema_extra={"accept": "image/*,.zip"},
    )
    task: Literal["protect", "thief"] = Field(
        "protect",
        title="Task",
        description="Protect the photos; or play the thief, who personalises a model on 4 to 8 of them.",
    )
    model: Literal["pocket", "published"] = Field(
        "pocket",
        title="Model",
        description="The pocket defender ships with Atelier: small, and trained on toy people. The published one, "
        "for Stable Diffusion, is a download.",
    )
    budget: int = Field(  # whole, since grey levels are: 3.6 would have to become 4, and more than was asked for
        16,
        ge=1,
        le=24,
        title="Strength",
        description="How far any colour of any pixel may move, of 255 levels. More protects better, and shows.",
        json_schema_extra={"unit": "grey levels"},
    )
    framing: Literal["keep", "crop"] = Field(
        "keep",
        title="Size",
        description="keep: every photo stays as large as it is; crop: a square as the authors evaluated it.",
    )
    keep_exif: bool = Field(
        False,
        title="Keep camera data",
        description="Off: place, time and camera are removed from the protected photo.",
    )
    differences: bool = Field(
        True, title="Difference pictures", description="What was changed, amplified, beside every photo."
    )
    conditions: tuple[Condition, ...] = Field(
        ("clean", "rid", "random"),
        title="What the thief gets",
        description="A thief is trained on each of these; noise and a cast show whether just any change would do.",
    )
    thief: Literal["full", "lora", "inversion"] = Field(
        "full",
        title="Way of stealing",
        description="Fine-tune the whole model, a LoRA of it, or only one word (textual inversion).",
    )
    thief_steps: int | None = Field(
        None, ge=1, le=10_000, title="Training steps of the thief", description="Empty: as many as that way takes."
    )
    generated: int = Field(8, ge=1, le=64, title="Pictures to generate", description="By each thief.")
    purify: Literal["none", "jpeg75", "jpeg50", "resize", "blur", "noise", "balance", "diffusion"] = Field(
        "none",
        title="Purification",
        description="What the thief does to the photos first, hoping to remove the protection.",
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_model(cls, values: Any) -> Any:
        """Settings that are not given are the model's, and are stored, so that a result can always be repeated."""
        return with_settings(values, MODELS)


def validate(params: RidParams) -> None:
    """Raise InvalidInput, with the field and what to do, for a run that cannot work."""
    if not params.images:
        raise InvalidInput("There is no photo yet.", "Add one, several, or a zip archive.", field="images")
    if len(params.images) > MOST_FILES:
        raise InvalidInput(
            f"{len(params.images)} files are too many at once.",
            f"Use at most {MOST_FILES}, or a zip archive.",
            field="images",
        )
    model = MODELS[params.model]
    if model.file_for(params.budget) is None:
        raise InvalidInput(
            f"{model.title} was trained for at most {model.largest:g} grey levels, not for {params.budget:g}.",
            f"Choose a strength up to {model.largest:g}.",
            field="budget",
        )
    if params.task == "thief":
        _check_thief(params)


def _check_thief(params: RidParams) -> None:
    least, _ = THIEF_PHOTOS
    if len(params.images) < least and not _zipped(params):
        raise InvalidInput(
            f"A thief needs at least {least} pictures of one person; here are {len(params.images)}.",
            "Add some more of the same person.",
            field="images",
        )
    if not params.conditions:
        raise InvalidInput("The thief gets nothing to learn from.", "Choose at least one.", field="conditions")
    if len(set(params.conditions)) < len(params.conditions):
        raise InvalidInput("Something is chosen twice.", "Name each once.", field="conditions")
    if "clean" not in params.conditions:
        raise InvalidInput(
            "Without the pictures as they are there is nothing to compare with.",
            "Choose them too.",
            field="conditions",
        )


def estimate(params: RidParams, facts: DeviceFacts) -> Estimate:
    """Seconds, bytes and work in GFLOP; archives count as one photo, as nobody has looked inside yet."""
    validate(params)
    model, usual = MODELS[params.model], GFLOPS.get(facts.kind, GFLOPS["cpu"])
    photos = len(params.images)
    held = model.memory
    work = START * usual
    if params.task == "protect":
        work += photos * (model.gflop * SQUARES + 2.0)
    else:
        surrogate = SURROGATES[model.surrogate]
        way = surrogate.ways[params.thief]
        learning = 3 * way["batch"] * (params.thief_steps or way["steps"])  # back is twice as far as forth
        drawing = 2 * DRAWING_STEPS * params.generated  # with and without the prompt
        searching = 3 * way["batch"] * sum(SEARCHES.get(name, 0) for name in params.conditions)
        work += surrogate.gflop * (len(params.conditions) * (learning + drawing) + searching)
        held = surrogate.theft_memory(params.thief) + THIEF_ACTIVATIONS
    rate = facts.speed or usual
    memory = held + ACTIVATIONS * (model.side / 512) ** 2 + PROGRAM
    if memory > facts.memory_total:
        raise InvalidInput(
            f"{model.title} needs {memory / 2**30:.1f} GB; {facts.name} has {facts.memory_total / 2**30:.1f} GB.",
            "Choose the pocket model.",
            field="model",
        )
    note = "Archives are counted as one photo each: it may take longer." if _zipped(params) else ""
    return Estimate(work / rate, int(memory), work, note=note)


def _zipped(params: RidParams) -> bool:
    return any(file.name.lower().endswith(".zip") for file in params.images)


def model_key(params: RidParams) -> str:
    """What must be loaded for a run."""
    trained, _ = MODELS[params.model].file_for(params.budget) or (params.budget, "")
    return f"rid/{params.model}/{trained:g}/{params.task}"


PRESETS: dict[str, dict[str, Any]] = {
    f"{name} ({level:g} grey levels)": {"model": "pocket", "budget": level}
    for name, level in MODELS["pocket"].strengths.items()
}
PRESETS["As published, 512 px crop"] = {"model": "published", "budget": 6.0, "framing": "crop"}

METRICS = {
    "max_change": Metric("Largest change", "The most that any colour of any pixel was moved.", "lower", "levels"),
    "mean_change": Metric("Mean change", "How far colours were moved on average.", "lower", "levels"),
    "psnr": Metric(
        "PSNR", "Closeness to the original; above 40 dB hardly anybody sees a difference.", "higher", "dB"
    ),
    "ssim": Metric("SSIM", "Likeness to the original as the eye weighs it; 1 is the same.", "higher"),
    "jpeg_energy": Metric("Left after JPEG 75", "Share of the protection's energy after saving as JPEG.", "higher"),
    "jpeg_correlation": Metric("Alike after JPEG 75", "How much what is left is what was put in.", "higher"),
    "kept": Metric(
        "Person kept",
        "Share of the generated pictures with a face that is taken for the person's; lower means better protected.",
        "lower",
    ),
    "kept_posted": Metric(
        "Person in the photos",
        "The same of the photos that were handed over: low, and it is the judge that is misled, not the thief.",
        "higher",
    ),
    "ism_posted": Metric("Identity in the photos", "Likeness of the faces handed over to the person.", "higher"),
    "ism": Metric(
        "Identity", "Likeness of the generated faces to the person; lower means better protected.", "lower"
    ),
    "fdfr": Metric("No face", "Share of the generated pictures that show no face at all.", "higher"),
    "fid": Metric(
        "Fréchet distance", "How far the generated pictures are from the person's; a trend only.", "higher"
    ),
    "brisque": Metric("BRISQUE", "How unnatural the generated pictures look.", "higher"),
}

SPEC = EngineSpec(
    name="rid",
    title="RID",
    tagline="Portraits that look nearly the same, made to be hard to learn a face from.",
    summary="A diffusion model personalised on a few photos of somebody draws that person in any scene. RID adds a "
    "faint pattern to photos before they are posted, found by one pass of a network instead of minutes of search for "
    "each picture, so that a model personalised on them should miss the face. The laboratory shows whether it does.",
    paper=Paper(
        "Real-time Identity Defenses against Malicious Personalization of Diffusion Models",
        "Hanzhong Guo et al.",
        2024,
        "https://arxiv.org/abs/2412.09844",
    ),
    licence="This implementation: Apache-2.0. Weights: "
    + "; ".join(f"{model.title}: {model.licence}" for model in MODELS.values())
    + ".",
    params=RidParams,
    accepts=("image",),
    produces=("image", "archive", "table"),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    presets=PRESETS,
    metrics=METRICS,
)
