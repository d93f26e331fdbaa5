"""What must be true of a store after any crash, read from its rows and files alone.

Each check returns sentences about what is wrong; none is what it should return. Knows no process and no fault.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from studio.jobs import FINAL, LEGAL, Event, Job
from studio.services import Services

TWO_DAYS_S = 2 * 86_400.0
# Which state an event of a transition leaves behind.
STATES = {
    "submitted": "queued",
    "claimed": "running",
    "retry": "queued",
    "resumed": "queued",
    "paused": "paused",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
QUIET = Mapping[str, str]  # name of a result -> sha256 of its bytes in an undisturbed run


def job_faults(services: Services, job: Job, seen: Sequence[Event], quiet: QUIET) -> list[str]:
    """Everything that is wrong with one job that should have ended; `seen` is what a reader saw on the way."""
    events = services.jobs.events(job.id, limit=1_000_000)
    faults = [*history_faults(job, events), *checkpoint_faults(events)]
    if [event for event in seen if event not in events]:
        faults.append("events: some that were seen are gone")
    if job.state == "succeeded":
        faults += result_faults(services, job, quiet)
    return [f"{job.id}: {fault}" for fault in faults]


def history_faults(job: Job, events: Sequence[Event]) -> list[str]:
    """The events have no gap, tell of legal transitions only, and end once, with the state of the row."""
    faults = []
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        faults.append("events: a gap in the numbers")
    states = [STATES[event.kind] for event in events if event.kind in STATES]
    if states[:1] != ["queued"]:
        faults.append(f"events: begin with {states[:1]}")
    for before, after in itertools.pairwise(states):
        if after not in LEGAL[before]:  # type: ignore[index]
            faults.append(f"events: {before} -> {after}")
    if job.state not in FINAL:
        return [*faults, f"lost: still {job.state}"]
    if states[-1:] != [job.state] or events[-1].kind not in STATES:
        faults.append(f"events: end with {events[-1].kind}, the row says {job.state}")
    if sum(state in FINAL for state in states) != 1:
        faults.append("ended more than once")
    return faults


def checkpoint_faults(events: Iterable[Event]) -> list[str]:
    """No step that was kept is computed again: then at most one interval between checkpoints is ever lost.

    Steps of one picture rise; a picture begins anew only after the one before was saved.
    """
    faults, last = [], 0
    for event in events:
        if event.kind == "saved":
            last = 0
        elif event.kind == "checkpoint":
            step = int(event.payload["step"])
            if step <= last:
                faults.append(f"lost work: step {step} was kept again after {last}")
            last = step
    return faults


def result_faults(services: Services, job: Job, quiet: QUIET) -> list[str]:
    """A succeeded job has its manifest, its rows and its bytes, and they are those of an undisturbed run."""
    artifacts = services.artifacts
    manifest = artifacts.manifest(job.id)
    if manifest is None:
        return ["half-written: no manifest"]
    told = {file["name"]: file["sha256"] for file in manifest["files"]}
    rows = {output.name: output.sha for output in artifacts.outputs(job.id)}
    faults = []
    if told != rows:
        faults.append(f"half-written: manifest {sorted(told)} but rows {sorted(rows)}")
    if told != dict(quiet):
        faults.append("result: not that of an undisturbed run")
    for name, sha in told.items():
        path = artifacts.home / "files" / sha[:2] / sha
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha:
            faults.append(f"half-written: {name} is not what its hash says")
    return faults


def store_faults(services: Services) -> list[str]:
    """The file is sound, and the counters of owners are what their jobs say."""
    with services.db.read() as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        faults += [f"a row without its parent in {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
        wrong = connection.execute(
            "SELECT owner FROM owner AS o WHERE (waiting, paused, running) <> (SELECT TOTAL(state = 'queued'), "
            "TOTAL(state = 'paused'), TOTAL(state = 'running') FROM job WHERE job.owner = o.owner)"
        ).fetchall()
    return faults + [f"counters of {row['owner']} are wrong" for row in wrong]


def orphans(services: Services) -> list[str]:
    """Files of a store at rest that belong to nothing, after a sweep that takes everything for old."""
    services.artifacts.sweep(services.clock() + TWO_DAYS_S)
    home = services.settings.home
    with services.db.read() as connection:
        states = {row["id"]: row["state"] for row in connection.execute("SELECT id, state FROM job")}
        blobs = {row["sha"] for row in connection.execute("SELECT sha FROM blob")}
        used = {row["sha"] for row in connection.execute("SELECT sha FROM output UNION SELECT sha FROM upload")}
    faults = [f"a file without a row: {path.name}" for path in _files(home / "files") if path.name not in blobs]
    faults += [f"a row without its file: {sha}" for sha in used if not (home / "files" / sha[:2] / sha).is_file()]
    faults += [f"a leftover: {path.relative_to(home)}" for path in home.rglob("*.part")]
    for kind in ("results", "previews", "checkpoints"):
        for folder in sorted((home / kind).glob("*")):
            state = states.get(folder.name, "gone")
            # What did not succeed may be tried again, and goes on from its checkpoint.
            kept = {"results": ("succeeded",), "previews": (), "checkpoints": ("failed", "cancelled")}[kind]
            if state not in kept and any(folder.iterdir()):
                faults.append(f"{kind} of a job that is {state}")
    return faults


def digest(services: Services, job_id: str) -> dict[str, str]:
    """Name -> sha256 of the results of a job."""
    return {output.name: output.sha for output in services.artifacts.outputs(job_id)}


def key_of(params: Mapping[str, object]) -> str:
    """Equal for jobs that must give equal bytes."""
    return json.dumps(params, sort_keys=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
