"""The context of one attempt at one job: what `studio.contract.Context` promises an engine, carried out.

Everything durable goes through compare-and-set on the lease, so that an attempt whose job has become another's writes
nothing more. Progress and previews are throttled here. This module knows no method and catches no engine's errors.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from studio import bundle, encoders
from studio.artifacts import write_metrics, write_output
from studio.atomic import read_file, remove_file, write_file
from studio.canonical import plain
from studio.contract import ArtifactKind, ModelKey, Models
from studio.errors import Cancelled, Conflict, InvalidInput, NotFound, Paused, StoreUnavailable
from studio.jobs import Job
from studio.models import ModelCache
from studio.progress import Progress
from studio.provenance import merge_models, model_row, provenance
from studio.pulse import Pulse

if TYPE_CHECKING:
    from studio.services import Services

log = logging.getLogger(__name__)

PREVIEW_SIDE = 512  # pixels
UNFINISHED = "unfinished.png"  # the newest preview, where nothing better was there when the job was stopped


class LeaseLost(Cancelled):
    """The job has become another worker's; this attempt ends and writes nothing more."""

    code: ClassVar[str] = "lease_lost"


class Kept(Cancelled):
    """The owner stopped the job and wants what there is."""

    code: ClassVar[str] = "kept"


class Stopping(Cancelled):
    """This worker is asked to end; the job goes back to the queue and no attempt is counted."""

    code: ClassVar[str] = "stopping"


class BorrowedModels:
    """The model cache as one attempt sees it: notes what was used and how long loading took."""

    def __init__(self, cache: ModelCache, clock: Callable[[], float]) -> None:
        self._cache, self._clock = cache, clock
        self.keys: set[ModelKey] = set()
        self.loading_s = 0.0

    def borrow(self, key: ModelKey, load: Callable[[], Any]) -> AbstractContextManager[Any]:
        """See `studio.contract.Models`."""
        return self._borrowed(key, load)

    @contextmanager
    def _borrowed(self, key: ModelKey, load: Callable[[], Any]) -> Iterator[Any]:
        begun = self._clock()
        with self._cache.borrow(key, load) as value:
            self.loading_s += self._clock() - begun
            self.keys.add(key)
            yield value


class JobContext:
    """One attempt at one job. See `studio.contract.Context` for what each method promises."""

    def __init__(
        self,
        job: Job,
        services: Services,
        cache: ModelCache,
        pulse: Pulse,
        *,
        worker: str,
        device: str,
        plan: str,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device, self.plan, self.weights = device, plan, services.settings.weights
        self.borrowed = BorrowedModels(cache, steady)
        self.models: Models = self.borrowed
        self.resumed_from: int | None = None
        self.seconds_before = 0.0  # spent by the attempt whose checkpoint was resumed
        self._job, self._services, self._pulse, self._worker = job, services, pulse, worker
        self._jobs, self._artifacts, self._steady = services.jobs, services.artifacts, steady
        self._begun = steady()
        self._checkpointed = False
        self.stopped_at: dict[str, int] | None = None  # step and total at which the owner had enough
        self._asks = False  # the engine asks by itself whether it is enough
        self._unkept = False  # something was computed that no checkpoint has
        self._models_before = _models_of(services, job.id)
        self._saved = {output.name for output in self._artifacts.outputs(job.id)}
        self._progress = Progress(steady, first_preview=int((job.progress or {}).get("preview") or 0) + 1)

    @property
    def model_rows(self) -> list[dict[str, str]]:
        """All models that went into the job so far, earlier attempts' included."""
        return merge_models(self._models_before, (model_row(key) for key in self.borrowed.keys))

    @property
    def stages(self) -> list[dict[str, Any]]:
        """Message and seconds of each stage of this attempt."""
        return self._progress.stages()

    def progress(self, step: int, total: int, message: str, preview: Any | None = None) -> None:
        """Report a step; events at most four a second, previews at most two, the last one never lost."""
        payload = self._progress.report(step, total, message)
        self._unkept = True
        try:
            if preview is not None and self._progress.preview_due():
                with self._owned():
                    sequence = self._progress.next_preview()
                    self._artifacts.save_preview(self._job.id, sequence, _small_png(preview))
            if self._progress.event_due():
                self._write_progress(payload)
        except StoreUnavailable as error:
            # Nothing is lost but a look: the next report tells it again.
            log.warning("progress is not shown: %s", error, extra={"job": self._job.id})

    def flush(self) -> None:
        """Write the newest report if throttling held it back."""
        pending = self._progress.pending()
        if pending is not None:
            self._write_progress(pending)

    def check(self) -> None:
        """Raise what ends this attempt: a cancel, a pause, a stopping worker, or a lost lease."""
        if self._pulse.lost:
            raise LeaseLost("The job has been given to another worker.")
        if self._pulse.wish == "cancel":
            raise Cancelled("The job was cancelled.")
        if self._pulse.wish == "keep" and not self._asks:
            raise Kept("The job was stopped; what there is is kept.")
        if self._pulse.wish == "pause":
            raise Paused("The job was paused.")
        if self._pulse.stopping.is_set() and not self._worth_going_on():
            raise Stopping("The worker is stopping.", "The job goes on when a worker is back.")

    def enough(self) -> bool:
        """Whether to leave off and save what there is."""
        self._asks = True
        if self._pulse.wish == "keep" and self.stopped_at is None:
            self.stopped_at = self._progress.reached
        return self.stopped_at is not None

    def keep(self) -> bool:
        """The engine was stopped by `Kept`: keep what it saved, or else its newest preview; whether there is any."""
        self.stopped_at = self._progress.reached
        if not self._saved and (seq := self._progress.shown) is not None:
            with suppress(NotFound), Image.open(self._artifacts.preview_path(self._job.id, seq)) as preview:
                self.save(UNFINISHED, "image", preview, role="unfinished", title="Unfinished")
        return bool(self._saved)

    def generator(self, seed: int) -> Any:
        """A torch.Generator on the CPU with this seed."""
        import torch

        return torch.Generator("cpu").manual_seed(seed)

    def input(self, sha: str) -> bytes:
        """The bytes of a file the job's owner may read; who that is changes when somebody logs in meanwhile."""
        if not self._artifacts.may_read(sha, self._jobs.get(self._job.id).owner):
            raise NotFound(f"There is no file {sha[:16]!r} of yours.", "Upload it again.")
        return self._artifacts.path(sha).read_bytes()

    def input_state(self, sha: str) -> dict[str, Any]:
        """The tensors and values in a file the job's owner may read."""
        try:
            return bundle.unpack(self.input(sha))
        except ValueError as error:
            raise InvalidInput(
                f"The file {sha[:16]!r} holds no state.", "Use a .safetensors file that a result here came with."
            ) from error

    def save(self, name: str, kind: ArtifactKind, value: Any, **attributes: Any) -> str:
        """Encode, store and announce one result; its provenance is inside."""
        with self._owned():
            told = {name: v for name, v in self._job.params.items() if name not in attributes.get("withholds", ())}
            source = provenance(self._job.engine, told, self.model_rows, self.device)
            if self.stopped_at is not None:  # these parameters alone would give another result
                source["stopped_at"] = self.stopped_at
            data, media_type = encoders.encode(kind, value, name, source, attributes)
            sha = self._artifacts.put(data, media_type=media_type)
            payload = {"name": name, "kind": kind, "sha": sha, "models": self.model_rows}
            with self._jobs.telling(self._job.id, self._worker, "saved", payload) as connection:
                write_output(connection, self._job.id, name, kind, sha, plain(attributes))
        self._saved.add(name)
        return sha

    def done(self, name: str) -> bool:
        """Whether this job already saved `name`."""
        return name in self._saved

    def metrics(self, name: str, /, **values: Any) -> None:
        """Attach numbers to one result, or with name "" to the job."""
        numbers = plain(values)
        with self._owned():
            told = {"name": name, "values": numbers}
            with self._jobs.telling(self._job.id, self._worker, "metric", told) as connection:
                write_metrics(connection, self._job.id, name, numbers)

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep `state` durably and drop the older ones."""
        spent = self.seconds_before + self._steady() - self._begun
        data = bundle.pack({"step": step, "state": state, "models": self.model_rows, "seconds": spent})
        with self._owned():
            self._jobs.wish(self._job.id, self._worker)
            self._checkpointed = True
            path = self._artifacts.checkpoint_path(self._job.id, step)
            write_file(path, data)
            for older in path.parent.glob("*.safetensors"):
                if older != path:
                    remove_file(older)
            self._jobs.event(self._job.id, self._worker, "checkpoint", {"step": step})
        self._unkept = False
        self.check()

    def resume(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint that can be read; a damaged one is as good as none."""
        path = self._artifacts.newest_checkpoint(self._job.id)
        if path is None or self._checkpointed:
            return None  # what this attempt wrote itself is nothing to go back to
        try:
            kept = bundle.unpack(path.read_bytes())
        except ValueError:
            log.warning("a checkpoint is damaged and is left aside", extra={"job": self._job.id})
            return None
        self._models_before = merge_models(self._models_before, kept["models"])
        self.seconds_before = float(kept["seconds"])
        self.resumed_from = int(kept["step"])
        return self.resumed_from, kept["state"]

    def cache(self, key: str) -> dict[str, Any] | None:
        """Small tensors an earlier job of the same engine kept under `key`."""
        data = read_file(self._cache_path(key))
        try:
            return None if data is None else bundle.unpack(data)
        except ValueError:
            log.warning("a cached bundle is damaged and is left aside", extra={"job": self._job.id})
            return None

    def store_cache(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep small tensors for later jobs of the same engine."""
        write_file(self._cache_path(key), bundle.pack(state))

    def _worth_going_on(self) -> bool:
        """Whether this attempt, which a stopping worker must end soon, may yet reach a checkpoint or its end."""
        left = self._pulse.grace_left
        if left <= 0 or not self._unkept:
            return False
        eta = self._progress.eta
        return self._checkpointed or eta is None or eta <= left

    def _write_progress(self, payload: dict[str, Any]) -> None:
        with self._owned():
            self._jobs.progress(self._job.id, self._worker, payload)
        self._progress.written()

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """What is written inside belongs to an attempt that still holds the job; raises LeaseLost otherwise.

        Files and rows come before the event that tells of them, and `Jobs.wish` before both: it is refused to whoever
        has lost the lease.
        """
        if self._pulse.lost:
            raise LeaseLost("The job has been given to another worker.")
        try:
            yield
        except Conflict as error:
            self._pulse.lost = True
            raise LeaseLost("The job has been given to another worker.") from error

    def _cache_path(self, key: str) -> Path:
        name = hashlib.sha256(f"{self._job.engine}\n{key}".encode()).hexdigest()
        return self._services.settings.home / "cache" / f"{name}.safetensors"


def _models_of(services: Services, job_id: str) -> list[dict[str, str]]:
    """The models that went into what earlier attempts saved: a result names them however often it was begun."""
    if not services.artifacts.outputs(job_id):
        return []
    saved = (event for event in services.jobs.events(job_id, limit=1_000_000) if event.kind == "saved")
    return merge_models(*(event.payload.get("models", []) for event in saved))


def _small_png(image: Any) -> bytes:
    """A PIL image as a PNG of at most PREVIEW_SIDE pixels a side."""
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
