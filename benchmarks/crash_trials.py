"""Crash trials: jobs of several owners, while workers and servers are killed and the disk is spoiled at random.

    python -m benchmarks.crash_trials --trials 950 --out runs/crash [--real] [--seed 1] [--part 0/2]

Each trial submits a few jobs, kills and spoils by a plan drawn from its number, brings up what was killed, waits, and
checks every invariant from store and artifacts (benchmarks.crash_checks). One row a trial is appended to
`OUT/trials.jsonl`; the same command goes on where it was stopped and prints the table at the end. `--real` takes the
engines of the house instead of the quick one, which imports no torch. Two processes share the work with `--part 0/2`
and `--part 1/2`: trials wait more than they compute. A store that broke a rule is kept under OUT.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.crash_checks import digest, job_faults, key_of, orphans, store_faults
from benchmarks.crash_house import ROOT, House, small_disk, wait_until
from benchmarks.rows import read_rows
from studio.errors import AtelierError, StoreUnavailable
from studio.jobs import FINAL, Event, Job
from studio.requests import parse, submit
from studio.services import open_services
from studio.settings import Settings
from studio.worker import Worker

OWNERS = ("ann", "bob", "cy", "dee", "eve")
SHAPES: tuple[dict[str, Any], ...] = (
    {"steps": 8, "pause": 0.03},
    {"steps": 5, "pause": 0.02, "methods": ("method", "plain"), "size": 32},
    {"steps": 12, "pause": 0.01, "size": 64, "model": "two"},
    {"steps": 2, "model": "three"},
    {"steps": 6, "pause": 0.02, "fault": "memory", "fault_at": 3},
    {"steps": 6, "pause": 0.02, "fault": "raise", "fault_at": 3},
    {"steps": 4, "fault": "die", "fault_at": 2},
)
WEIGHTS = (6, 6, 4, 4, 2, 1, 1)
# How a job of the quick engine ends if nobody cancels it.
ENDS = {"raise": "engine_failed", "die": "worker_died"}
REAL: dict[str, dict[str, Any]] = {
    "text2image": {
        "prompt": "a red car, side view, on sand under a dusky sky",
        "methods": ["model"],
        "steps": 8,
        "count": 2,
        "nearest": False,
    },
    "ultraimage": {"prompt": "a red ring under a pale sky", "scale": 1.25, "steps": 6, "methods": ["ultraimage"]},
    "ultravico": {"prompt": "a small red ball moving right", "ratio": 1.25, "steps": 6, "methods": ["ultravico"]},
    "prolificdreamer": {
        "prompt": "a red car",
        "methods": ["vsd"],
        "iterations": 12,
        "checkpoint_every": 3,
        "mesh_grid": 24,
        "texture_size": 64,
        "frames": 8,
        "formats": ["glb", "video"],
    },
}
STORE_TRIALS = 20  # that share a store
DISK_MB = {False: 64, True: 1024}  # of the quick engine's store and of a real one, whose checkpoints are larger
LENGTH_S = {False: 1.5, True: 12.0}  # of the quick jobs and of real ones, about, on one core
WAIT_S = 1200.0  # a crowded machine may start workers slowly


@dataclass
class Plan:
    """What happens in one trial; moments in seconds after the first job was claimed, or if `eager` submitted."""

    jobs: list[tuple[str, str, dict[str, Any], int]]  # owner, engine, values, priority
    acts: list[tuple[float, str, Any]]  # moment, verb, object
    server: str = "plain"
    eager: bool = False


@dataclass
class Trial:
    """One trial under way: what was submitted, what a reader saw, what was done."""

    number: int
    jobs: list[str] = field(default_factory=list)
    seen: dict[str, list[Event]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def draw(number: int, seed: int, *, real: bool, length: float) -> Plan:
    """The plan of trial `number`; `length` is about how many seconds its jobs take undisturbed."""
    chance = random.Random(f"{seed}-{number}")
    jobs = []
    for _ in range(1 if real else chance.randint(2, 5)):
        engine = chance.choice(sorted(REAL)) if real else "quick_engine"
        values = dict(REAL[engine]) if real else dict(chance.choices(SHAPES, WEIGHTS)[0])
        values["seed"] = chance.randrange(4)
        jobs.append((chance.choice(OWNERS), engine, values, chance.choice((0, 0, 0, 5))))
    acts: list[tuple[float, str, Any]] = []
    for _ in range(chance.choice((1, 1, 1, 2))):
        target = chance.choices(("worker", "workers", "server", "everything"), (5, 2, 2, 2))[0]
        acts.append((chance.uniform(0, length), "kill", target))
    if not real and chance.random() < 0.3:
        moment, how = chance.uniform(0, length / 2), chance.choice(("full", "frozen", "mute"))
        acts += [(moment, "spoil", how), (moment + chance.uniform(0.2, 1.2), "mend", None)]
    for index in range(len(jobs)):
        if not real and chance.random() < 0.25:
            verb = chance.choice(("cancel", "pause", "resume", "again"))
            acts.append((chance.uniform(0, length), verb, index))
    server = "pages" if chance.random() < (0.2 if real else 0.08) else "plain"
    return Plan(jobs, sorted(acts, key=lambda act: act[0]), server, chance.random() < 0.25)


class Driver:
    """Runs trials one after the other in one house."""

    def __init__(self, house: House, quiet: Callable[[str, dict[str, Any]], dict[str, str]]) -> None:
        self.house, self.quiet = house, quiet
        self.jobs = house.services.jobs

    def run(self, number: int, plan: Plan) -> dict[str, Any]:
        """One trial; its row."""
        trial = Trial(number)
        self._up(plan.server, trial)
        begun = time.monotonic()
        self._submit(trial, plan)
        if not plan.eager:
            wait_until(lambda: self._look(trial) or self._claimed(trial))
        self._act(trial, plan, time.monotonic())
        self.house.mend()
        self._up(plan.server, trial)
        acted = time.monotonic()
        self._settle(trial)
        rows = [self.jobs.get(job_id) for job_id in trial.jobs]
        for job in rows:
            self._judge(trial, job)
        trial.faults += store_faults(self.house.services)
        return {
            "trial": number,
            "server": plan.server,
            "done": dict(trial.done),
            "jobs": len(rows),
            "ends": dict(Counter(_end(job) for job in rows)),
            "attempts": sum(job.attempts for job in rows),
            "seconds": round(time.monotonic() - begun, 2),
            "recovery": round(time.monotonic() - acted, 2),
            "faults": trial.faults,
        }

    def _up(self, kind: str, trial: Trial) -> None:
        if not self.house.living:
            self.house.stop()
            self.house.start(kind)
            trial.done[f"start {kind}"] += 1

    def _submit(self, trial: Trial, plan: Plan) -> None:
        for index, (owner, engine, values, priority) in enumerate(plan.jobs):
            job = submit(
                self.house.services,
                engine,
                values,
                owner=owner,
                priority=priority,
                token=f"{trial.number}-{index}",
            )
            trial.jobs.append(job.id)

    def _act(self, trial: Trial, plan: Plan, begun: float) -> None:
        for moment, verb, what in plan.acts:
            wait_until(lambda moment=moment: self._look(trial) or time.monotonic() - begun >= moment)
            if verb == "kill":
                self._kill(trial, what)
            elif verb == "spoil":
                trial.done[what if self.house.spoil(what) else f"no {what}"] += 1
            elif verb == "mend":
                self.house.mend()
            else:
                self._wish(trial, plan, verb, what)

    def _kill(self, trial: Trial, target: str) -> None:
        house = self.house
        if target in ("worker", "workers"):
            crew = house.workers()
            killed = house.kill(crew[:1] if target == "worker" else crew)
        else:
            killed = house.kill_server(with_workers=target == "everything")
        trial.done[target] += killed > 0
        if not house.living:
            # While the disk is spoiled no server comes up; then it comes up after.
            with contextlib.suppress(StoreUnavailable):
                house.start()

    def _wish(self, trial: Trial, plan: Plan, verb: str, index: int) -> None:
        job_id = trial.jobs[index]
        owner, engine, values, priority = plan.jobs[index]
        try:
            if verb == "again":
                token = f"{trial.number}-{index}"
                again = submit(self.house.services, engine, values, owner=owner, priority=priority, token=token)
                if again.id != job_id:
                    trial.faults.append(f"duplicated: {job_id} and {again.id}")
            else:
                getattr(self.jobs, verb)(job_id)
        except AtelierError:
            return  # it has ended, or the disk is full
        if verb == "cancel":
            trial.cancelled.add(job_id)
        trial.done[verb] += 1

    def _look(self, trial: Trial) -> None:
        """Read on in every job's events, as a page would."""
        for job_id in trial.jobs:
            seen = trial.seen.setdefault(job_id, [])
            seen += self.jobs.events(job_id, after=len(seen))

    def _claimed(self, trial: Trial) -> bool:
        return any(event.kind == "claimed" for seen in trial.seen.values() for event in seen)

    def _settle(self, trial: Trial) -> None:
        """Wait until all jobs have ended, letting paused ones go on."""

        def ended() -> bool:
            self._look(trial)
            states = {job_id: self.jobs.get(job_id).state for job_id in trial.jobs}
            for job_id, state in states.items():
                if state == "paused":
                    with contextlib.suppress(AtelierError):
                        self.jobs.resume(job_id)
            if not self.house.living:
                self.house.start()
            return set(states.values()) <= FINAL

        wait_until(ended, WAIT_S)

    def _judge(self, trial: Trial, job: Job) -> None:
        expected = ENDS.get(job.params.get("fault", ""), "succeeded")
        allowed = {expected, "worker_died"} | ({"cancelled"} if job.id in trial.cancelled else set())
        if _end(job) not in allowed:
            trial.faults.append(f"{job.id}: ended {_end(job)} instead of {expected}")
        if _end(job) == "worker_died" and job.attempts < self.house.settings.max_attempts:
            trial.faults.append(f"{job.id}: given up after {job.attempts} attempts")
        quiet = self.quiet(job.engine, job.params) if job.state == "succeeded" else {}
        trial.faults += job_faults(self.house.services, job, trial.seen.get(job.id, []), quiet)


def _end(job: Job) -> str:
    return str(job.error["code"]) if job.error else job.state


class Quiet:
    """Undisturbed runs of the same parameters, each done once, here and without a server."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._services = open_services(settings.replace(home=folder))
        self._worker_of = Worker(self._services, worker="quiet", device="cpu")
        self._known: dict[str, dict[str, str]] = {}

    def __call__(self, engine: str, params: dict[str, Any]) -> dict[str, str]:
        key = key_of({"engine": engine, **params})
        if key not in self._known:
            values = parse(self._services.catalog.spec(engine), params).model_dump(mode="json")
            job = self._services.jobs.submit(engine, values, owner="quiet")
            Worker(self._services, worker="quiet", device="cpu", cache=self._worker_of.bench.cache).run(
                until_empty=True
            )
            assert self._services.jobs.get(job.id).state == "succeeded"
            self._known[key] = digest(self._services, job.id)
        return self._known[key]


@contextlib.contextmanager
def opened(settings: Settings, mean: float, megabytes: int, *, mount: bool) -> Iterator[House]:
    """A fresh house on a small disk of its own, if that is allowed here."""
    with small_disk(megabytes, allowed=mount) as (folder, mounted):
        house = House(settings.replace(home=folder / "home"), mean=mean, disk=mounted)
        try:
            yield house
        finally:
            house.mend()
            house.stop()
            house.services.close()


def settings_of(*, real: bool, home: Path) -> Settings:
    """For the quick engine two workers and quick signs of life, so that a trial takes seconds."""
    common = Settings(home=home, threads=1, disk_reserve=2 * 2**20)
    if real:
        return common.replace(devices=("cpu",), grace=5.0)  # loading torch may keep a worker silent for a while
    return common.replace(
        devices=("cpu:0", "cpu:1"),
        engines=("tests.quick_engine",),
        lease=20.0,
        heartbeat=0.5,
        grace=2.0,
        poll=0.1,
    )


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Do the trials that are not done yet; all rows."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "trials.jsonl"
    rows = read_rows(path)
    done = {row["trial"] for row in rows}
    part, parts = options.part
    stores = [range(options.trials)[first : first + STORE_TRIALS] for first in range(0, options.trials, STORE_TRIALS)]
    batches = [[number for number in store if number not in done] for store in stores[part::parts]]
    settings = settings_of(real=options.real, home=Path())
    quiet = Quiet(options.out / f"quiet-{part}", settings)
    length = options.length or LENGTH_S[options.real]
    version = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    for batch in filter(None, batches):
        # Half of the stores have fragile workers, which die by themselves besides, and half only one worker.
        chance = random.Random(f"{options.seed}-{batch[0]}")
        mean, crew = chance.choice((0.0, 120.0)), chance.choice((1, 2))
        mine = settings if options.real else settings.replace(devices=settings.devices[:crew])
        fragility = 0.0 if options.real else mean
        with opened(mine, fragility, DISK_MB[options.real], mount=options.mount) as house:
            driver = Driver(house, quiet)
            for number in batch:
                plan = draw(number, options.seed, real=options.real, length=length)
                about = {"fragile": house.mean > 0, "devices": len(mine.devices), "version": version}
                rows.append(driver.run(number, plan) | about)
                if number == batch[-1]:
                    house.stop()
                    rows[-1]["faults"] += orphans(house.services)
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                if rows[-1]["faults"]:
                    print(rows[-1], flush=True)
                    shutil.copytree(house.settings.home, options.out / f"broken-{number}", dirs_exist_ok=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """What was done, how jobs ended, and what was broken."""
    done, ends = Counter[str](), Counter[str]()
    for row in rows:
        done.update(row["done"])
        ends.update(row["ends"])
    faults = [fault for row in rows for fault in row["faults"]]
    kinds = Counter(next((word for word in RULES if word in fault), "other") for fault in faults)
    recovery = sorted(row["recovery"] for row in rows)
    lines = [
        f"trials {len(rows)}, jobs {sum(row['jobs'] for row in rows)}, attempts {sum(r['attempts'] for r in rows)}",
        "done:   " + ", ".join(f"{what} {count}" for what, count in sorted(done.items())),
        "ends:   " + ", ".join(f"{what} {count}" for what, count in sorted(ends.items())),
        "broken: " + ", ".join(f"{rule} {kinds[rule]}" for rule in (*RULES, "other")),
        f"recovery after the last kill: median {recovery[len(recovery) // 2]:.1f} s, longest {recovery[-1]:.1f} s",
    ]
    return "\n".join(lines)


# Each begins the sentences about one rule.
RULES = ("lost:", "ended", "duplicated", "half-written", "result", "lost work", "events", "leftover", "without")


def _part(text: str) -> tuple[int, int]:
    """ "1/2" as (1, 2)."""
    part, parts = (int(number) for number in text.split("/"))
    if not 0 <= part < parts:
        raise argparse.ArgumentTypeError(f"{text}: the first number must be below the second")
    return part, parts


def main() -> None:
    """Run what is left of the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=950)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", action="store_true", help="the engines of the house instead of the quick one")
    parser.add_argument("--no-mount", dest="mount", action="store_false", help="no small disk, which needs root")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=_part, default=(0, 1), help="K/N: the Kth of N shares, counted from 0")
    parser.add_argument("--length", type=float, default=None, help="seconds within which kills fall")
    options = parser.parse_args()
    psutil.Process().nice(max(5, psutil.Process().nice()))
    run(options)
    print(table(read_rows(options.out / "trials.jsonl")))


if __name__ == "__main__":
    main()
