"""What an engine is to the rest of the house, and what the house is to an engine.

An engine publishes one `EngineSpec` (in its `spec.py`, which imports no torch) and one function `run(ctx, params)`.
It sees the world only through `Context`. Pages, HTTP and the command line see an engine only through its spec.
This module knows no engine, no store and no page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

ArtifactKind = Literal["image", "video", "mesh", "splats", "table", "archive", "data"]

MAX_SEED = 2**63 - 1


class Params(BaseModel):
    """Base of every engine's parameters: frozen, closed, and complete enough to repeat a run.

    Subclasses add fields with `title` and `description` (the help under the widget), ranges and units. A value that
    no range expresses is refused by the spec's `validate` with an `InvalidInput` that names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(
        0, ge=0, le=MAX_SEED, title="Seed", description="The same seed and settings give the same result."
    )


class FileRef(BaseModel):
    """A file that a parameter refers to: uploaded before, found by its hash, called as its owner calls it.

    A field of type `FileRef`, `FileRef | None` or `tuple[FileRef, ...]` is a place to drop files on a page and a path
    on the command line; `json_schema_extra={"accept": "image/*"}` says what a browser offers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str = Field("", max_length=200)


@dataclass(frozen=True)
class ModelKey:
    """What makes a loaded component the same component; equal keys are shared between engines and jobs."""

    preset: str  # "pocket", "full", ... as the engine names it
    repo: str  # hub id or folder
    revision: str  # commit of the hub, or "sha256:..." of a local folder's weight files
    component: str  # "transformer", "vae", "text_encoder", ...
    dtype: str = "float32"
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:19]}/{self.component}:{self.dtype}@{self.device}"


class Models(Protocol):
    """The shared model cache as an engine sees it."""

    def borrow(self, key: ModelKey, load: Callable[[], Any]) -> AbstractContextManager[Any]:
        """The component under `key`, loaded by `load` if no one has; never evicted while borrowed."""
        ...


class Context(Protocol):
    """Everything an engine may touch while it runs. One context belongs to one attempt at one job."""

    models: Models
    device: str  # "cpu", "cuda:0", ...
    plan: str  # one of the spec's memory plans
    weights: Path | None  # folder with published checkpoints as owner--name; None: only the hub's own cache

    def progress(self, step: int, total: int, message: str, preview: Any | None = None) -> None:
        """Report step `step` of `total`; `preview` is a PIL image (throttled, shown while the job runs)."""
        ...

    def check(self) -> None:
        """Raise `Cancelled` or `Paused` if the owner asked for it. Call it at every step."""
        ...

    def enough(self) -> bool:
        """Whether the owner wants what there is, now: then leave the loop and save it as if it were finished.

        For engines whose unfinished result is worth something. Once it was called, `check` no longer raises for this
        wish; without it a job that is stopped keeps what it saved, or else its newest preview.
        """
        ...

    def generator(self, seed: int) -> Any:
        """A torch.Generator on the CPU, so that a seed means the same noise on every device."""
        ...

    def input(self, sha: str) -> bytes:
        """The bytes of an uploaded file the job's owner may use. Raises `NotFound`."""
        ...

    def input_state(self, sha: str) -> dict[str, Any]:
        """What a file saved as .safetensors holds; the job's owner may use it. Raises NotFound or InvalidInput."""
        ...

    def save(
        self,
        name: str,
        kind: ArtifactKind,
        value: Any,
        **attributes: Any,
    ) -> str:
        """Store one result durably under `name` (a file name with extension) and return its sha256.

        image: PIL image or uint8 [H, W, 3|4]; video: uint8 [T, H, W, 3] with attribute `fps`; mesh: trimesh object;
        splats: PLY bytes; table, archive, data: bytes, str or JSON-able value, a .zip as its files by name, a .ply
        as a trimesh object, a .safetensors as nested tensors and values. Provenance is embedded. Saving a name again
        replaces it. `attributes` are kept beside the file, e.g. role="method" or "baseline", method, seed.
        `carries` names what of a PIL image's `info` goes into the file: "icc_profile", "exif". `withholds` names
        parameters that the provenance inside the file leaves out, for files that are meant to be published.
        """
        ...

    def done(self, name: str) -> bool:
        """Whether an earlier attempt at this job already saved `name`."""
        ...

    def metrics(self, name: str, /, **values: Any) -> None:
        """Attach numbers to the artifact `name` (or to the whole job with name "")."""
        ...

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep `state` (tensors and JSON-able values) durably; only the newest is kept. Raises as `check` does."""
        ...

    def resume(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint of an earlier attempt, or None."""
        ...

    def cache(self, key: str) -> dict[str, Any] | None:
        """Small tensors an earlier job stored under `key`, e.g. a calibration; None if there are none."""
        ...

    def store_cache(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep small tensors for later jobs under `key`. Must not change any result, only its cost."""
        ...


@dataclass(frozen=True)
class DeviceFacts:
    """What is known of the device a job would run on, from the worker's heartbeat; enough for an estimate."""

    kind: str = "cpu"  # "cpu" or "cuda"
    name: str = "CPU"
    memory_total: int = 8 * 2**30  # bytes a job may use on the device
    memory_free: int = 8 * 2**30  # bytes
    speed: float | None = None  # work units a second, from stored timings of this engine; None before the first


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, said before it is submitted."""

    seconds: float
    memory_bytes: int
    work: float  # engine's own unit (e.g. TFLOP); the worker divides it by the time to calibrate `DeviceFacts.speed`
    plan: str = "default"  # the memory plan that fits
    note: str = ""  # one sentence, if there is something to say


@dataclass(frozen=True)
class Paper:
    title: str
    authors: str
    year: int
    link: str  # DOI or arXiv page, shown as a link, never fetched


@dataclass(frozen=True)
class Metric:
    """What a number under a result means, in one sentence a newcomer understands."""

    title: str
    help: str
    better: Literal["", "higher", "lower", "one"] = ""  # which way is good; "one": the nearer to 1
    unit: str = ""


@dataclass(frozen=True)
class EngineSpec:
    """One published method as the house knows it. Data only; imports no torch."""

    name: str  # folder under engines/
    title: str  # "UltraImage"
    tagline: str  # one sentence a newcomer understands
    summary: str  # a short paragraph: what it does and what the baseline does wrong
    paper: Paper
    licence: str  # of the method's code or weights, as shown beside the result
    params: type[Params]
    accepts: tuple[str, ...]  # kinds of input: "text", "image", "video"
    produces: tuple[ArtifactKind, ...]
    estimate: Callable[[Any, DeviceFacts], Estimate]  # (params, facts)
    validate: Callable[[Any], None]  # (params) raises InvalidInput with the field
    model_key: Callable[[Any], str]  # (params) what must be loaded; equal keys make a device "warm"
    plans: tuple[str, ...] = ("default",)  # memory plans, fastest first, thriftiest last
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> parameter values
    metrics: Mapping[str, Metric] = field(default_factory=dict)  # name as in `ctx.metrics` -> its meaning

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"engine name {self.name!r}: lower-case letters, digits and _ only")
        if not self.plans:
            raise ValueError(f"engine {self.name}: at least one memory plan is needed")


Run = Callable[[Context, Any], None]
