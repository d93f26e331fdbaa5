"""ProlificDreamer as the house knows it: presets, validation, estimate and what its numbers mean. No torch.

Paper: "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation", arXiv
2305.16213. The parameters are in `params.py`.
"""

from __future__ import annotations

import math
from typing import Any, get_args

from engines.prolificdreamer import estimate as cost
from engines.prolificdreamer.params import MethodName, ProlificDreamerParams, Schedule
from engines.prolificdreamer.presets import INSIDE, METHODS, MODELS
from engines.shared.prompt import check_prompt, length_notes, unknown_words, vocabulary, word_notes
from studio.contract import DeviceFacts, EngineSpec, Estimate, Metric, Paper
from studio.errors import InvalidInput

__all__ = ["METHODS", "MODELS", "SPEC", "ProlificDreamerParams", "known_words", "validate"]

MOST_OBJECTS = 4  # particles that are fields
MOST_WEIGHT = 1e6  # of a regulariser
SCHEDULES = ("entropy", "opacity", "sparsity", "opaque", "z_variance", "smoothness")
RANGES = {"radius": (0.05, 100.0), "fovy": (1.0, 170.0), "theta": (0.0, 180.0), "geometry_fovy": (1.0, 170.0)}


def validate(params: ProlificDreamerParams) -> None:
    """Raise InvalidInput, with the field and what to do, for a run that cannot work."""
    for name, value in params:
        if isinstance(value, tuple) and any(isinstance(x, float) and not math.isfinite(x) for x in value):
            raise _refuse("Not all of these are numbers.", "Give numbers only.", name)
    if params.task != "toy":
        check_prompt(params.prompt, "prompt", needed=True)
        check_prompt(params.negative_prompt, "negative_prompt", needed=False)
        check_prompt(params.scene, "scene", needed=False)
        _check_methods(params)
        _check_words(params)
        _check_sides(params)
        _check_times(params)
        _check_estimator(params)
    if params.task == "object":
        _check_ranges(params)
        _check_object(params)
    elif params.start_from:
        raise _refuse("A training file is of an object.", "Choose an object, or no file.", "start_from")


def _refuse(what: str, remedy: str, field: str) -> InvalidInput:
    return InvalidInput(what, remedy, field=field)


def _check_methods(params: ProlificDreamerParams) -> None:
    if not params.methods:
        raise _refuse("No method is chosen.", "Choose at least one.", "methods")
    if len(set(params.methods)) < len(params.methods):
        raise _refuse("A method is chosen twice.", "Name each method once.", "methods")
    for method in params.methods:
        if METHODS[method].playground_only and params.task == "object":
            raise _refuse(
                f"{METHODS[method].title} are pictures, not objects.",
                "Choose the playground, or drop them.",
                "methods",
            )
    if params.task == "object" and params.particles > MOST_OBJECTS:
        raise _refuse(
            f"{params.particles} particles are more than can be distilled as objects.",
            f"Use 1 to {MOST_OBJECTS}; the playground takes more.",
            "particles",
        )


def _check_words(params: ProlificDreamerParams) -> None:
    """A model with a word list must know what it is told."""
    teacher = MODELS[params.model].teacher
    known = vocabulary(teacher)
    for field in ("prompt", "negative_prompt", "scene"):
        strange = unknown_words(getattr(params, field) or "", teacher)
        if known is not None and strange:
            shown = ", ".join(sorted(word for word in known if word.isalpha()))
            raise _refuse(
                f"The {teacher.title.lower()} does not know: {', '.join(strange)}.", f"It knows: {shown}.", field
            )


def _check_sides(params: ProlificDreamerParams) -> None:
    """What is done by sides needs sides that are told."""
    for name, title in (("perp_neg", "Perp-Neg"), ("suppress_face", "No face elsewhere")):
        if getattr(params, name) and (params.task == "playground" or not params.view_words):
            what = "Pictures of the playground have no sides" if params.task == "playground" else "No side is said"
            raise _refuse(f"{what}, and {title} works by sides.", f"Switch {title} off, or say the side.", name)


def _steps(params: ProlificDreamerParams) -> int:
    """Of the field, or of the playground."""
    return params.playground_iterations if params.task == "playground" else params.iterations


def _check_times(params: ProlificDreamerParams) -> None:
    if params.t_min >= params.t_max:
        raise _refuse(
            f"The least time, {params.t_min:g}, is not below the largest, {params.t_max:g}.", "Swap them.", "t_min"
        )
    if round(1000 * (params.t_max - params.t_min)) < 1:
        raise _refuse(
            f"Between {params.t_min:g} and {params.t_max:g} there is no timestep of a thousand.",
            "Raise the largest time.",
            "t_max",
        )
    if params.anneal and params.t_min >= params.t_max_late:
        raise _refuse(
            f"The least time, {params.t_min:g}, is not below the late largest, {params.t_max_late:g}.",
            "Raise the late largest time, or switch annealing off.",
            "t_max_late",
        )
    steps = _steps(params)
    if params.anneal and params.anneal_step is not None and params.time_mode == "sqrt":
        raise _refuse(
            f"A single falling timestep falls from the first step on, not from step {params.anneal_step}.",
            "Leave the step empty, or choose another way of annealing.",
            "anneal_step",
        )
    if params.anneal and params.anneal_step is not None and params.anneal_step >= steps:
        raise _refuse(
            f"Times would be annealed at step {params.anneal_step}, after the end at {steps}.",
            f"Use a step below {steps}, or switch annealing off.",
            "anneal_step",
        )


def _check_estimator(params: ProlificDreamerParams) -> None:
    model = MODELS[params.model]
    steps = _steps(params)
    if "vsd" in params.methods and 1 < steps <= params.phi_every:
        raise _refuse(
            f"Every {params.phi_every} steps, of {steps}, the estimator learns once and never again.",
            f"Use less than {steps}.",
            "phi_every",
        )
    if params.estimator == "lora_separate" and model.estimator is None and "vsd" in params.methods:
        raise _refuse(
            f"{model.title} has no second model for the estimator.",
            "Choose adapters on the teacher, a copy or the small network.",
            "estimator",
        )


def _check_ranges(params: ProlificDreamerParams) -> None:
    for name, (least, most) in RANGES.items():
        pair = getattr(params, name)
        if pair is None:
            continue
        low, high = pair
        if low > high:
            raise _refuse(f"The range {low:g} to {high:g} is upside down.", "Swap them.", name)
        if low < least or high > most:
            raise _refuse(f"{low:g} to {high:g} is out of range.", f"Use values from {least:g} to {most:g}.", name)
    for name in SCHEDULES:
        _check_schedule(getattr(params, name), name)
    if not all(0 <= level <= 1 for level in params.backdrop):
        raise _refuse("A colour is out of range.", "Use red, green and blue from 0 to 1.", "backdrop")
    if params.sphere_share + params.overhead_share > 1:
        raise _refuse("Shares of cameras add up to more than 1.", "Lower one of them.", "overhead_share")
    if params.finest_resolution <= params.base_resolution and params.levels > 1:
        raise _refuse(
            f"The finest level, {params.finest_resolution}, is no finer than the coarsest, {params.base_resolution}.",
            "Raise it.",
            "finest_resolution",
        )
    if params.start == "object" and params.radius[0] < params.bound * 0.2:
        raise _refuse(
            f"A camera at {params.radius[0]:g} stands inside the object.",
            "Move the cameras away, or start as a scene.",
            "radius",
        )


def _check_schedule(schedule: Schedule, name: str) -> None:
    count = len(schedule)
    if count not in (1, 3) and (count < 4 or count % 2):
        raise _refuse(f"A schedule of {count} numbers.", "Give 1, 3, 4 or any larger even count of numbers.", name)
    given = [schedule[2]] if count == 3 else [schedule[0], *schedule[3::2]] if count >= 4 else []
    ends = [round(end) for end in given]  # steps are whole numbers, see `params.knots`
    if any(b <= a for a, b in zip(ends, ends[1:], strict=False)) or any(end < 0 for end in ends):
        raise _refuse("The steps of the schedule do not rise.", "Put whole numbers in order.", name)
    weights = schedule[:2] if count == 3 else schedule[:1] if count == 1 else (schedule[1], *schedule[2::2])
    if not all(0 <= weight <= MOST_WEIGHT for weight in weights):
        raise _refuse("A weight is out of range.", f"Use weights from 0 to {MOST_WEIGHT:g}.", name)
    if count == 3 and ends[0] == 0:
        raise _refuse("The schedule ends at step 0.", "Give a later step, or one number.", name)


def _check_object(params: ProlificDreamerParams) -> None:
    if "nerf" not in params.stages:
        raise _refuse("The later stages need a field.", "Choose the field too.", "stages")
    if len(set(params.stages)) < len(params.stages):
        raise _refuse("A stage is chosen twice.", "Name each stage once.", "stages")
    if params.start != "object" and len(params.stages) > 1:
        raise _refuse(
            "A scene has no surface that could be refined: cameras stand inside it.",
            "Choose the field alone, or start as an object.",
            "stages",
        )
    wall = params.bound * (1.0 if params.start == "scene" else INSIDE)  # of the room, where there is one
    if params.start != "object" and params.radius[1] >= wall:
        raise _refuse(
            f"A camera at {params.radius[1]:g} stands outside the room, whose wall is at {wall:.3g}.",
            "Let cameras stand within it, or enlarge the cube.",
            "radius",
        )
    if not params.formats:
        raise _refuse("No file is chosen.", "Choose at least one.", "formats")
    if params.start_from and len(params.methods) > 1:
        raise _refuse(
            "A training file belongs to one method, and several are chosen.",
            "Choose the one it came from.",
            "methods",
        )
    if params.grow_step is not None and params.render_size_early and params.grow_step > params.iterations:
        raise _refuse(
            f"Renders would grow at step {params.grow_step}, after the end at {params.iterations}.",
            "Use an earlier step.",
            "grow_step",
        )


def known_words(model: str) -> list[str]:
    """What a model with a word list understands; nothing for one that reads any text."""
    return sorted(word for word in vocabulary(MODELS[model].teacher) or () if word.isalpha())


def estimate(params: ProlificDreamerParams, facts: DeviceFacts) -> Estimate:
    """Seconds, bytes and plan; raises InvalidInput if no plan fits."""
    validate(params)
    plan = cost.fitting_plan(params, facts.memory_total * cost.DEVICE_SHARE, facts.kind)
    if plan is None:
        need, have = cost.memory(params, cost.PLANS[-1], facts.kind) / 2**30, facts.memory_total / 2**30
        raise InvalidInput(
            f"This run needs {need:.1f} GB; {facts.name} has {have:.1f} GB.",
            "Use fewer views, a coarser grid of the surface, or a smaller model.",
            field="model",
        )
    return Estimate(
        seconds=cost.seconds(params, facts.kind, facts.speed),
        memory_bytes=cost.memory(params, plan, facts.kind),
        work=cost.work(params),
        plan=plan,
        note=" ".join(_notes(params)),
    )


def _notes(params: ProlificDreamerParams) -> list[str]:
    if params.task == "toy":
        return ["The toy needs no prompt and no model."]
    model = MODELS[params.model]
    notes = word_notes(params.prompt, model.teacher)
    notes += length_notes(params.prompt, model.teacher, model.text_tokens)
    if params.task == "object" and not params.view_words:
        notes.append("Without words for the side objects often get several fronts.")
    if params.start != "object" and params.task == "object":
        notes.append("Of a scene there will be pictures and a field; a mesh of it is of little use.")
    return notes


def model_key(params: ProlificDreamerParams) -> str:
    """What must be loaded for a run."""
    return "none" if params.task == "toy" else f"prolificdreamer/{params.model}"


# The released configuration for one particle (thu-ml/prolificdreamer).
PUBLISHED: dict[str, Any] = {
    "guidance": 7.5,
    "iterations": 25_000,
    "geometry_iterations": 15_000,
    "texture_iterations": 15_000,
    "anneal_step": 5000,
    "views": 1,
    "levels": 16,
    "features": 2,
    "base_resolution": 16,
    "finest_resolution": 2048,
    "log2_table": 19,
    "density_noise": True,
    "background": "learned",
    "random_background": 0.5,
    "random_background_step": 2000,
    "render_size": 512,
    "render_size_early": None,
    "samples": 64,
    "importance": 32,
    "occupancy": 0,
    "entropy": (10.0,),
    "rate_grid": 0.01,
    "rate_decoder": 0.001,
    "rate_background": 0.001,
    "decay_share": 0.0,
    "phi_rate": 1e-4,
    "phi_warmup": 500,
    "mesh_grid": 256,
    "geometry_fovy": (30.0, 60.0),
    "most_faces": 100_000,
    "texture_size": 2048,
    "frames": 100,
    "picture_size": 800,
    "preview_every": 250,
    "checkpoint_every": 500,
}

TO_GO_ON = (*ProlificDreamerParams.model_fields["formats"].default, "training")  # of runs worth more steps

PRESETS: dict[str, dict[str, Any]] = {
    "preview": {"task": "object", "model": "pocket", "prompt": "a red car", "methods": ("vsd", "sds")},
    "quality": {
        "task": "object",
        "model": "pocket",
        "prompt": "a red car",
        "methods": ("vsd", "sds", "sds_50", "sds_100"),
        "stages": ("nerf", "geometry", "texture"),
        "iterations": 1200,
        "geometry_iterations": 200,
        "texture_iterations": 400,
        "samples": 48,
        "importance": 24,
        "levels": 4,
        "finest_resolution": 96,
        "log2_table": 20,
        "mesh_grid": 96,
        "texture_size": 512,
        "frames": 96,
        "picture_size": 256,
        "checkpoint_every": 100,
        "formats": TO_GO_ON,
    },
    "paper": {
        **PUBLISHED,
        "task": "object",
        "model": "full",
        "prompt": "a pineapple",
        "methods": ("vsd",),
        "stages": ("nerf", "geometry", "texture"),
        "estimator": "lora_separate",
        "scene": "",
        "formats": TO_GO_ON,
    },
    "scene": {  # as published: one stage, cameras inside a hollow room
        **PUBLISHED,
        "task": "object",
        "model": "full",
        "prompt": "inside of a smart home, realistic detailed photo",
        "methods": ("vsd",),
        "stages": ("nerf",),
        "estimator": "lora_separate",
        "scene": "",
        "start": "scene",
        "bound": 5.0,
        "radius": (0.1, 2.3),
        "view_words": False,
        "anneal_step": 10_000,
        "entropy": (0.0,),
        "z_variance": (1.0,),
        "formats": ("video", "field", "training"),
    },
    "playground": {
        "task": "playground",
        "model": "pocket",
        "prompt": "a red car",
        "methods": ("vsd", "sds", "sds_50", "ancestral"),
        "particles": 8,
        "guidance": 1.0,
        "phi_rate": 1e-3,
    },
    "toy": {"task": "toy", "model": "pocket"},
}

METRICS = {
    "iou": Metric("Silhouette", "Overlap of the outline with the true toy's, from 8 sides; 1 is the same.", "higher"),
    "rmse": Metric("Colour error", "Distance to the true toy over mid-grey at 32 px, from 8 sides.", "lower"),
    "side_error": Metric(
        "Side error", "Median angle between a view and the true side it looks most like.", "lower", "degrees"
    ),
    "consistent": Metric("Consistent", "Whether the side error is at most 30 degrees: one front, not several."),
    "sharpness": Metric("Sharpness", "Mean slope of brightness on the object; compare with the true toy's."),
    "true_sharpness": Metric("Sharpness of the true toy", "What the line above should come near to."),
    "clipped": Metric("Clipped", "Share of colour values beyond black or white.", "lower"),
    "vividness": Metric("Vividness", "97th percentile of saturation; high guidance overdoes it."),
    "variety": Metric("Variety", "Mean difference of pairs of particles after averaging to 8 x 8 pixels.", "higher"),
    "least_variety": Metric(
        "Least variety", "Smallest difference of a pair: near 0 where particles have collapsed.", "higher"
    ),
    "saturation": Metric("Saturation", "Mean over the pictures."),
    "distance": Metric("Distance to the truth", "Of each picture to the nearest true one of the prompt.", "lower"),
    "faces": Metric("Faces", "Triangles of the mesh."),
    "variance_vsd": Metric("Variance, VSD", "Of the particles, along both axes."),
    "variance_sds": Metric("Variance, SDS", "Of the particles, along both axes; near 0 where they have collapsed."),
    "true_variance": Metric("True variance", "Of the Gaussian that is imitated."),
    "variance_off": Metric("VSD off by", "Largest relative error of VSD's variance.", "lower"),
}

SPEC = EngineSpec(
    name="prolificdreamer",
    title="ProlificDreamer",
    tagline="An object in three dimensions from a sentence, by a model that only knows pictures.",
    summary="A text-to-image model judges renders of a field from all sides until they look right. Score "
    "distillation (SDS), the baseline, seeks the one likeliest picture: smooth, over-saturated, every seed the same. "
    "Variational score distillation (VSD) subtracts what a second network knows of the renders themselves, so that "
    "they spread like samples instead.",
    paper=Paper(
        "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation",
        "Zhengyi Wang et al.",
        2023,
        "https://arxiv.org/abs/2305.16213",
    ),
    licence="This implementation: Apache-2.0. Weights: "
    + "; ".join(f"{m.title}: {m.teacher.licence}" for m in MODELS.values())
    + ".",
    params=ProlificDreamerParams,
    accepts=("text",),
    produces=("mesh", "video", "image", "data", "archive", "table"),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    plans=cost.PLANS,
    presets=PRESETS,
    metrics=METRICS,
)

assert set(get_args(MethodName)) == set(METHODS)
