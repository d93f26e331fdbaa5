"""Every knob of ProlificDreamer: title, help, range, unit and default. Data only; imports no torch.

Defaults are those of the preview on the pocket model; other models in `presets.MODELS` and the spec's presets bring
others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from engines.prolificdreamer.presets import MODELS, POCKET
from engines.shared.sources import with_settings
from studio.contract import FileRef, Params

MethodName = Literal["vsd", "sds", "sds_50", "sds_100", "ancestral"]
StageName = Literal["nerf", "geometry", "texture"]
Format = Literal["glb", "obj", "ply", "video", "field", "training"]
Pair = tuple[float, float]
Schedule = tuple[float, ...]

_OURS = POCKET.settings
KNOTS = "One number; or value, value, step; or step, value, value, step and further pairs of value and step."


def _unit(name: str) -> dict[str, Any]:
    return {"unit": name}


class ProlificDreamerParams(Params):
    """Everything that decides a result; what is not given starts from the model's own settings."""

    # -- what ------------------------------------------------------------------------------------------------------
    prompt: str = Field("", title="Prompt", description="What the object should be.")
    task: Literal["object", "playground", "toy"] = Field(
        "object",
        title="Make",
        description="An object in three dimensions; pictures as particles, to compare the algorithms in a minute; "
        "or the toy in the plane, where every score is exact.",
    )
    model: Literal["pocket", "full", "sd15"] = Field(
        "pocket", title="Model", description="The pocket model ships with Atelier; the others are large downloads."
    )
    methods: tuple[MethodName, ...] = Field(
        ("vsd", "sds"), title="Methods", description="Each from the same seed, to be compared."
    )
    stages: tuple[StageName, ...] = Field(
        ("nerf",),
        title="Stages",
        description="A field always; then its surface refined; then its colours refined on that surface.",
    )
    particles: int = Field(
        1, ge=1, le=16, title="Particles", description="Variants that are distilled together: 1 to 4 objects."
    )
    negative_prompt: str = Field("", title="Negative prompt", description="What to steer away from; may stay empty.")
    scene: str = Field(
        _OURS["scene"],
        title="Words after the side",
        description="Said after the side, e.g. the background the model should draw.",
    )
    view_words: bool = Field(
        True,
        title="Say the side",
        description="Front, side, back or overhead view; without it objects get many faces.",
    )
    perp_neg: bool = Field(
        False, title="Perp-Neg", description="Push away from the sides that are not seen; costs two more predictions."
    )
    suppress_face: bool = Field(
        False,
        title="No face elsewhere",
        description="Adds 'face' to the negative prompt where the front is not seen.",
    )

    # -- guidance and times ----------------------------------------------------------------------------------------
    guidance: float = Field(
        _OURS["guidance"],
        ge=0,
        le=200,
        title="Guidance",
        description="Of VSD, and of SDS at the same guidance. Published: 7.5.",
    )
    weighting: Literal["sigma2", "uniform", "fantasia3d"] = Field(
        "sigma2", title="Weight of a timestep", description="sigma2 is published."
    )
    clip: float | None = Field(None, gt=0, le=1e6, title="Gradient clip", description="Largest value; empty: none.")
    t_min: float = Field(0.02, ge=0, lt=1, title="Least time", description="Share of the noise schedule.")
    t_max: float = Field(0.98, gt=0, le=1, title="Largest time", description="Share of the noise schedule, at first.")
    t_max_late: float = Field(
        _OURS["t_max_late"],
        gt=0,
        le=1,
        title="Largest time, late",
        description="After annealing: only details are changed then; published: 0.5.",
    )
    anneal: bool = Field(
        True,
        title="Anneal times",
        description="Off: the largest time stays, whatever the way of annealing. Some prompts like that.",
    )
    anneal_step: int | None = Field(
        None, ge=0, title="Anneal at step", description="Published: 5000 of 25000; empty: after three fifths."
    )
    time_mode: Literal["step", "ramp", "sqrt"] = Field(
        "step", title="Way of annealing", description="At once, linearly to the end, or one falling timestep (HiFA)."
    )

    # -- lengths ---------------------------------------------------------------------------------------------------
    iterations: int = Field(
        300, ge=1, le=1_000_000, title="Steps of the field", description="Published: 25000 a particle."
    )
    geometry_iterations: int = Field(
        100, ge=1, le=1_000_000, title="Steps of the surface", description="Published: 15000."
    )
    texture_iterations: int = Field(
        100, ge=1, le=1_000_000, title="Steps of the colours", description="Published: 15000 in effect."
    )
    playground_iterations: int = Field(
        300, ge=1, le=100_000, title="Steps of the playground", description="500 to 1500 for large models."
    )
    views: int = Field(4, ge=1, le=16, title="Views a step", description="Cameras around the object; published: 1.")

    # -- field -----------------------------------------------------------------------------------------------------
    levels: int = Field(3, ge=1, le=16, title="Levels of the hash grid", description="Published: 16.")
    features: int = Field(4, ge=1, le=8, title="Features a level", description="Published: 2.")
    base_resolution: int = Field(
        12, ge=2, le=64, title="Coarsest level", description="Published: 16.", json_schema_extra=_unit("cells")
    )
    finest_resolution: int = Field(
        48, ge=4, le=8192, title="Finest level", description="Published: 2048.", json_schema_extra=_unit("cells")
    )
    log2_table: int = Field(
        17, ge=4, le=22, title="Table size", description="2 to this many rows a level; published: 19."
    )
    interpolation: Literal["smoothstep", "linear"] = Field(
        "smoothstep", title="Interpolation", description="Between grid points; smoothstep is published."
    )
    hidden: int = Field(
        0, ge=0, le=256, title="Hidden units", description="Of the decoder; 0: one linear layer, as published."
    )
    bound: float = Field(
        _OURS["bound"], gt=0, le=10, title="Half side of the cube", description="In the unit of the cameras."
    )
    start: Literal["object", "scene", "centred"] = Field(
        "object", title="Start as", description="A ball, a hollow room, or a ball within a room."
    )
    blob_scale: float = Field(10.0, ge=0, le=100, title="Density of the start", description="Published: 10.")
    blob_radius: float = Field(
        0.5, gt=0, le=5, title="Radius of the start", description="Of the ball, in half sides; published: 0.5."
    )
    density_noise: bool = Field(False, title="Density noise", description="N(0, 1) in training, as published.")
    background: Literal["learned", "floor", "none", "black", "white"] = Field(
        _OURS["background"],
        title="Background",
        description="A network of the direction (published); one colour with a shadow on the ground; "
        "one colour; black; or white.",
    )
    backdrop: tuple[float, float, float] = Field(
        _OURS["backdrop"],
        title="Background colour",
        description="Red, green, blue in 0 to 1, for 'none' and for the start of 'floor'.",
    )
    random_background: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Random backgrounds",
        description="Share of the steps with a random colour behind; published: 0.5.",
    )
    random_background_step: int = Field(
        0, ge=0, title="Random backgrounds from step", description="Published: 2000. Without a share it says nothing."
    )

    # -- rendering -------------------------------------------------------------------------------------------------
    render_size: int = Field(
        64, ge=8, le=1024, title="Render size", description="Published: 512.", json_schema_extra=_unit("px")
    )
    render_size_early: int | None = Field(
        32, ge=8, le=1024, title="Render size at first", description="Empty: the same.", json_schema_extra=_unit("px")
    )
    grow_step: int | None = Field(
        None,
        ge=0,
        title="Full size from step",
        description="Empty: after half of the steps. Without another size at first it says nothing.",
    )
    samples: int = Field(32, ge=2, le=512, title="Samples a ray", description="Uniform; published: 64.")
    importance: int = Field(
        16, ge=0, le=256, title="Importance samples", description="More where something is; published: 32."
    )
    occupancy: int = Field(
        24,
        ge=0,
        le=128,
        title="Occupancy grid",
        description="Cells a side; empty samples are skipped. 0: off, as published.",
    )
    chunk: int = Field(
        16_384, ge=64, le=1_000_000, title="Rays at a time", description="Bounds memory; the result is the same."
    )

    # -- regularisers ----------------------------------------------------------------------------------------------
    entropy: Schedule = Field((1.0,), title="Entropy", description=f"Against fog; published 10. {KNOTS}")
    opacity: Schedule = Field((0.0,), title="Opacity", description=f"Squared opacity. {KNOTS}")
    sparsity: Schedule = Field((0.0,), title="Sparsity", description=f"threestudio: 10. {KNOTS}")
    opaque: Schedule = Field((0.0,), title="Opaque", description=f"All or nothing; threestudio: 1000 late. {KNOTS}")
    z_variance: Schedule = Field((0.0,), title="Variance of depth", description=f"HiFA. {KNOTS}")
    smoothness: Schedule = Field(
        _OURS["smoothness"], title="Smoothness", description=f"Total variation of the grid. {KNOTS}"
    )

    # -- rates -----------------------------------------------------------------------------------------------------
    rate_grid: float = Field(_OURS["rate_grid"], gt=0, le=1, title="Rate of the grid", description="Published: 0.01.")
    rate_decoder: float = Field(0.01, gt=0, le=1, title="Rate of the decoder", description="Published: 0.001.")
    rate_background: float = Field(0.01, gt=0, le=1, title="Rate of the background", description="Published: 0.001.")
    decay_share: float = Field(
        0.3, ge=0, le=1, title="Falling rates", description="Last share of the steps of the field; published: 0."
    )

    # -- phi -------------------------------------------------------------------------------------------------------
    estimator: Literal["copy", "lora", "lora_separate", "small"] = Field(
        _OURS["estimator"],
        title="Score estimator",
        description="A copy of the teacher; adapters on the teacher; adapters on a second model (published); "
        "or a small U-Net without text.",
    )
    phi_rate: float = Field(
        _OURS["phi_rate"], gt=0, le=1, title="Rate of the estimator", description="Published: 0.0001."
    )
    phi_warmup: int = Field(
        0, ge=0, le=100_000, title="Warm-up of the estimator", description="Steps; published: 500."
    )
    phi_steps: int = Field(1, ge=1, le=20, title="Estimator steps", description="After each step of the particles.")
    phi_every: int = Field(1, ge=1, le=100, title="Estimator every", description="So many steps of the particles.")
    phi_repeats: int = Field(1, ge=1, le=16, title="Noises a render", description="In a batch of the estimator.")
    phi_target: Literal["v_prediction", "epsilon"] = Field(
        "v_prediction", title="Estimator's error of", description="v weighs high noise more, which is published."
    )
    camera_drop: float = Field(0.1, ge=0, le=1, title="Poses dropped", description="Share the estimator is not told.")
    rank: int = Field(4, ge=1, le=128, title="Rank of adapters", description="Published: 4.")
    replay: int = Field(
        0,
        ge=0,
        le=4096,
        title="Replay",
        description="The estimator of the field learns from so many last renders; 0: the newest.",
    )

    # -- cameras ---------------------------------------------------------------------------------------------------
    radius: Pair = Field(
        _OURS["radius"], title="Camera distance", description="Least and largest; published: 1, 1.5."
    )
    fovy: Pair = Field(
        _OURS["fovy"],
        title="Field of view",
        description="Vertical; published: 40, 70.",
        json_schema_extra=_unit("degrees"),
    )
    theta: Pair = Field(
        _OURS["theta"],
        title="Polar angle",
        description="From straight above; published: 0, 120.",
        json_schema_extra=_unit("degrees"),
    )
    sphere_share: float = Field(
        _OURS["sphere_share"],
        ge=0,
        le=1,
        title="Cameras on the hemisphere",
        description="Share drawn there instead; published: 0.5.",
    )
    overhead_share: float = Field(
        _OURS["overhead_share"], ge=0, le=1, title="Cameras from above", description="Share that looks down steeply."
    )

    # -- surface and colours ---------------------------------------------------------------------------------------
    mesh_grid: int = Field(64, ge=8, le=256, title="Grid of the surface", description="Cells a side; published: 256.")
    threshold: float = Field(
        2.5,
        gt=0,
        le=1000,
        title="Density of the surface",
        description="Published: 2.5; raise it against floating bits.",
    )
    geometry_guidance: float = Field(
        100.0, ge=0, le=200, title="Guidance of the surface", description="Published: 100."
    )
    geometry_fovy: Pair | None = Field(
        None,
        title="Field of view of the surface",
        description="Published: 30, 60; empty: the same.",
        json_schema_extra=_unit("degrees"),
    )
    normal_weight: float = Field(5000.0, ge=0, le=1e6, title="Smooth normals", description="Published: 5000.")
    laplacian_weight: float = Field(0.5, ge=0, le=1e6, title="Laplacian", description="Published: 0.5.")
    rate_geometry: float = Field(5e-3, gt=0, le=1, title="Rate of the surface", description="Published: 0.005.")
    supersampling: int = Field(1, ge=1, le=4, title="Rays a pixel and axis", description="Averaged, for surfaces.")
    rasteriser: Literal["auto", "open3d", "nvdiffrast"] = Field(
        "auto", title="Rasteriser", description="Plain ray casting, or nvdiffrast where you have installed it."
    )
    clean: bool = Field(True, title="Clean the mesh", description="Drop small loose parts and doubled vertices.")
    most_faces: int = Field(20_000, ge=100, le=1_000_000, title="Most faces", description="Published: 100000.")
    texture_size: int = Field(
        256, ge=16, le=4096, title="Texture size", description="Published: 2048.", json_schema_extra=_unit("px")
    )

    # -- playground ------------------------------------------------------------------------------------------------
    playground_rate: float = Field(0.03, gt=0, le=1, title="Rate of pictures", description="Of the latents.")
    playground_start: float = Field(
        1.0, gt=0, le=10, title="Start of pictures", description="Deviation of the latents."
    )

    # -- results ---------------------------------------------------------------------------------------------------
    formats: tuple[Format, ...] = Field(
        ("glb", "video", "ply", "obj", "field"),
        title="Files",
        description="Mesh, turntable, coloured points, OBJ with texture, the field, and everything to train on from.",
    )
    frames: int = Field(48, ge=1, le=600, title="Turntable frames", description="Once around.")
    picture_size: int = Field(
        128, ge=16, le=1024, title="Turntable size", description="Also of the poster.", json_schema_extra=_unit("px")
    )
    preview_every: int = Field(25, ge=1, le=10_000, title="Preview every", description="So many steps.")
    checkpoint_every: int = Field(50, ge=1, le=10_000, title="Checkpoint every", description="So many steps.")
    start_from: FileRef | None = Field(
        None,
        title="Go on from",
        description="The training file of an earlier result. Give its method alone, and more steps than it has, or "
        "as many and later stages.",
        json_schema_extra={"accept": ".safetensors"},
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_model(cls, values: Any) -> Any:
        """Settings that are not given are the model's, and are stored, so that a result can always be repeated."""
        return with_settings(values, MODELS)


def knots(schedule: Schedule, times: int = 1) -> float | tuple[float, ...]:
    """A schedule as `schedules.scheduled_value` wants it: steps are whole numbers, here `times` as many."""
    if len(schedule) == 1:
        return schedule[0]
    first = 2 if len(schedule) == 3 else 3
    steps = {*range(first, len(schedule), 2)} | (set() if len(schedule) == 3 else {0})
    return tuple(times * round(value) if index in steps else value for index, value in enumerate(schedule))
