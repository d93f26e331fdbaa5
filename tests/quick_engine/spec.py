"""The quick engine's parameters: a picture in some steps, a barrier to hold it, and faults to order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.contract import DeviceFacts, EngineSpec, Estimate, FileRef, Metric, Paper, Params
from studio.errors import InvalidInput

Fault = Literal["", "raise", "refuse", "memory", "memory_always", "hang", "seize", "die", "unasked", "poison"]


class QuickParams(Params):
    """A picture of `size` pixels a side after `steps` steps."""

    prompt: str = Field("a grey square", title="Prompt", description="Any words; 100 at most.")
    steps: int = Field(4, ge=1, le=1000, title="Steps", description="How many steps are computed.")
    size: int = Field(16, ge=1, le=256, title="Size", description="Pixels a side.", json_schema_extra={"unit": "px"})
    methods: tuple[Literal["method", "plain"], ...] = Field(
        ("method",), title="Methods", description="Which pictures are made."
    )
    makes: tuple[Literal["picture", "clip", "mesh"], ...] = Field(
        ("picture",), title="Makes", description="Which kinds of results are saved."
    )
    seeds: int = Field(1, ge=1, le=4, title="Seeds", description="How many seeds one job goes through.")
    frames: int = Field(12, ge=1, le=63, title="Frames", description="Of a clip; the plain one has half of them.")
    model: str = Field("one", title="Model", description="Whatever must be loaded.")
    picture: str = Field(
        "", title="Picture", description="The hash of an uploaded file, to be copied into the result."
    )
    files: tuple[FileRef, ...] = Field(
        (),
        title="Files",
        description="Pictures, to be added to the result.",
        json_schema_extra={"accept": "image/*,.zip"},
    )
    barrier: str = Field("", title="Barrier", description="A file: the run waits at `hold_at` until it exists.")
    hold_at: int = Field(0, ge=0, title="Hold at", description="The step that waits for the barrier.")
    pause: float = Field(
        0.0, ge=0.0, le=1.0, title="Pause", description="How long a step waits.", json_schema_extra={"unit": "s"}
    )
    deaf: bool = Field(False, title="Deaf", description="Do not look at wishes while waiting.")
    keep: bool = Field(True, title="Keep", description="Write checkpoints.")
    keep_every: int = Field(1, ge=1, title="Keep every", description="Steps between two checkpoints.")
    early: bool = Field(False, title="Early", description="Save what there is when the owner has enough.")
    trace: str = Field("", title="Trace", description="A file to which every computed step is added.")
    fault: Fault = Field("", title="Fault", description="What goes wrong at `fault_at`.")
    fault_at: int = Field(1, ge=0, title="Fault at", description="The step at which it goes wrong.")


def validate(params: QuickParams) -> None:
    """Long prompts are refused."""
    if len(params.prompt) > 100:
        raise InvalidInput("The prompt is longer than 100 characters.", "Shorten it.", field="prompt")


def estimate(params: QuickParams, facts: DeviceFacts) -> Estimate:
    """A megabyte a pixel, so that every device has a size that does not fit."""
    need = params.size**2 * 2**20
    if need > facts.memory_total:
        largest = int((facts.memory_total / 2**20) ** 0.5)
        raise InvalidInput(f"{params.size} px do not fit.", f"The largest that fits is {largest} px.", field="size")
    work = float(params.steps * params.size**2)
    return Estimate(seconds=work / (facts.speed or 1e6), memory_bytes=need, work=work, plan="fast")


def model_key(params: QuickParams) -> str:
    """Jobs of one model share what is loaded."""
    return f"quick/{params.model}"


SPEC = EngineSpec(
    name="quick_engine",
    title="Quick",
    tagline="A grey square that takes as long as it is told to.",
    summary="For tests of queues, workers, pages and commands.",
    paper=Paper("None", "Nobody", 2026, "https://example.org"),
    licence="Apache-2.0",
    params=QuickParams,
    accepts=("text",),
    produces=("image", "video", "mesh"),
    estimate=estimate,
    validate=validate,
    model_key=model_key,
    plans=("fast", "thrifty"),
    presets={"Long": {"steps": 50}},
    metrics={"mean": Metric("Mean grey", "The mean of all pixels, from 0 to 255.", "higher")},
)
