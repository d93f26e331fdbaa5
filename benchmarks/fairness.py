"""Who waits for whom: the real queue under a simulated clock, with many owners, models and devices.

    python -m benchmarks.fairness [--jobs 3000] [--orders 20] [--devices 1,2,4,8] [--seed 1]

Every claim is the house's own code on a store of its own; only time and work are simulated, and every device keeps
one model. Goals: while an owner's only job waits, no other owner is served twice, and nobody with a hundred jobs more
often than there are devices; model loads at most 1.5 times the fewest possible; nobody is passed over more than 32
times for models; nobody has more running than allowed; age makes up for priority.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fewest_loads import fewest_loads
from studio.claims import AGE_S
from studio.db import Database
from studio.jobs import Jobs
from studio.placement import MAX_SKIPS
from studio.settings import Settings

OWNERS, MODELS = 50, 8
LOAD_S, SHORT_S, LONG_S = 20.0, 5.0, 60.0  # of loading a model, and of a job
NEVER_S = 1e9


@dataclass(frozen=True)
class Wanted:
    """A job that will be submitted at `time`."""

    time: float
    owner: str
    model: str
    priority: int = 0
    seconds: float = SHORT_S


@dataclass
class Started:
    """A job that was started; times in seconds of the simulated clock."""

    wanted: Wanted
    seq: int  # order of submission
    order: int  # of starting
    time: float
    device: int
    loaded: bool  # its model had to be loaded


@dataclass
class World:
    """Devices that take jobs from one queue until all are done."""

    jobs: Jobs
    devices: int
    now: float = 0.0
    started: list[Started] = field(default_factory=list)
    most_running: Counter[str] = field(default_factory=Counter)

    def run(self, wanted: Iterable[Wanted]) -> list[Started]:
        """Submit all at their times, run all; in the order of starting."""
        coming = sorted(wanted, key=lambda job: job.time)
        known: dict[str, Wanted] = {}
        model: list[str | None] = [None] * self.devices
        busy: list[tuple[float, int, str]] = []  # end, device, job
        free = list(range(self.devices))
        while coming or busy:
            self.now = min([job.time for job in coming[:1]] + [end for end, _, _ in busy[:1]])
            while busy and busy[0][0] <= self.now:
                _, device, job_id = heapq.heappop(busy)
                self.jobs.succeed(job_id, f"w{device}")
                free.append(device)
            while coming and coming[0].time <= self.now:
                job = coming.pop(0)
                made = self.jobs.submit("e", {}, owner=job.owner, model_key=job.model, priority=job.priority)
                known[made.id] = job
            for device in list(free):
                warm = [held] if (held := model[device]) else []
                claimed = self.jobs.claim(f"w{device}", "cuda", warm)
                if claimed is None:
                    break
                loaded = claimed.model_key != model[device]
                model[device] = claimed.model_key
                job = known[claimed.id]
                self.started.append(Started(job, claimed.seq, len(self.started), self.now, device, loaded))
                heapq.heappush(busy, (self.now + job.seconds + LOAD_S * loaded, device, claimed.id))
                free.remove(device)
                running = sum(known[other].owner == job.owner for _, _, other in busy)
                self.most_running[job.owner] = max(self.most_running[job.owner], running)
        return self.started

    @property
    def loads(self) -> int:
        """How often a model was loaded."""
        return sum(job.loaded for job in self.started)


class Worlds:
    """Makes worlds with fresh stores below one folder."""

    def __init__(self, folder: Path, *, running_cap: int = 1_000) -> None:
        self._folder, self._made = folder, 0
        self._settings = Settings(lease=NEVER_S, waiting_cap=1_000_000, running_cap=running_cap)

    def new(self, devices: int) -> World:
        """An empty queue and idle devices."""
        self._made += 1
        world: World | None = None

        def now() -> float:
            return 0.0 if world is None else world.now

        db = Database(self._folder / f"{self._made}.db", clock=now, durable=False)
        world = World(Jobs(db, clock=now, settings=self._settings), devices)
        return world


def crowd(chance: random.Random, count: int, devices: int) -> list[Wanted]:
    """`count` jobs of a few greedy owners and many modest ones, coming a little faster than they can be done."""
    greedy = [f"greedy{number}" for number in range(OWNERS // 10)]
    modest = [f"modest{number}" for number in range(OWNERS - len(greedy))]
    pace = (SHORT_S + LONG_S) / 2 / devices
    time, wanted = 0.0, []
    while len(wanted) < count:
        time += chance.expovariate(1 / pace)
        batch = chance.randint(20, 100) if chance.random() < 0.03 else 1
        owner = chance.choice(greedy if batch > 1 else modest)
        for _ in range(min(batch, count - len(wanted))):
            model = f"m{chance.randrange(MODELS)}"
            wanted.append(Wanted(time, owner, model, 0, chance.uniform(SHORT_S, LONG_S)))
    return wanted


def overtaken(started: Sequence[Started]) -> int:
    """The most jobs of any one other owner that began while an owner's only job waited."""
    lines: dict[str, list[Started]] = {}
    for job in started:
        lines.setdefault(job.wanted.owner, []).append(job)
    worst = 0
    for line in lines.values():
        for job in line:
            waiting = [o for o in line if o.wanted.time <= job.time and o.time >= job.wanted.time]
            if len(waiting) == 1:
                since = [o.wanted.owner for o in started[: job.order] if o.time >= job.wanted.time]
                worst = max([worst, *Counter(since).values()])
    return worst


def passed_over(started: Sequence[Started]) -> int:
    """The most jobs of the same owner and priority that were queued later than another one and began before it."""
    worst = 0
    lines: dict[tuple[str, int], list[Started]] = {}
    for job in started:
        lines.setdefault((job.wanted.owner, job.wanted.priority), []).append(job)
    for line in lines.values():
        for place, job in enumerate(line):
            worst = max(worst, sum(other.seq > job.seq for other in line[:place]))
    return worst


def behind_a_hundred(worlds: Worlds, devices: int, chance: random.Random) -> int:
    """How many jobs of an owner with a hundred begin after another owner's only job came, and before it begins."""
    greedy = [Wanted(0.0, "greedy", f"m{chance.randrange(MODELS)}", 0, chance.uniform(5, 60)) for _ in range(100)]
    modest = Wanted(chance.uniform(1.0, 500.0 / devices), "modest", f"m{chance.randrange(MODELS)}")
    started = worlds.new(devices).run([*greedy, modest])
    mine = next(job for job in started if job.wanted is modest)
    return sum(modest.time < job.time <= mine.time and job.order < mine.order for job in started)


def loads(worlds: Worlds, order: Sequence[int], devices: int) -> int:
    """Model loads for one owner's jobs, all waiting from the start, of equal length."""
    world = worlds.new(devices)
    world.run([Wanted(0.0, "one", f"m{model}", 0, NEVER_S / 1e3) for model in order])
    return world.loads


def ageing(worlds: Worlds, priority: int) -> float:
    """Seconds a job of priority 0 waits behind an unending stream of its owner's jobs of `priority`."""
    length = 10.0
    stream = [Wanted(number * length, "one", "m", priority, length) for number in range(int(priority * 100))]
    patient = Wanted(0.0, "one", "m", 0, length)
    started = worlds.new(1).run([*stream, patient])
    return next(job.time for job in started if job.wanted is patient)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    devices = [int(number) for number in options.devices.split(",")]
    with tempfile.TemporaryDirectory(prefix="atelier-fair-") as folder:
        worlds = Worlds(Path(folder))
        print(f"{options.jobs} jobs of {OWNERS} owners over {MODELS} models")
        print("devices  overtaken by one owner  passed over  running at most (cap 4)  loads  claims  median wait s")
        for count in devices:
            capped = Worlds(Path(folder) / f"capped{count}", running_cap=4)
            world = capped.new(count)
            started = world.run(crowd(random.Random(f"{options.seed}-{count}"), options.jobs, count))
            waits = [job.time - job.wanted.time for job in started]
            print(
                f"{count:7d} {overtaken(started):23d} {passed_over(started):12d} "
                f"{max(world.most_running.values()):24d} {world.loads:6d} {len(started):7d} "
                f"{statistics.median(waits):14.0f}",
                flush=True,
            )
        print("\nAn only job behind a hundred of another owner: jobs that began before it, the most of all orders")
        for count in devices:
            chance = random.Random(f"behind-{options.seed}-{count}")
            most = max(behind_a_hundred(worlds, count, chance) for _ in range(options.orders))
            print(f"{count:7d} devices: {most}", flush=True)
        print(f"\nModel loads, mean of {options.orders} random orders of one owner's jobs")
        print("jobs  models  devices  loads  fewest possible  ratio  search")
        for jobs, models, count in CASES:
            _loads_row(worlds, jobs, models, count, options)
        print("\nA job of priority 0 behind an endless stream of its owner's jobs of priority p waits, in seconds")
        for priority in (1, 5):
            print(f"p = {priority}: {ageing(worlds, priority):.0f} (p * {AGE_S:.0f} s = {priority * AGE_S:.0f})")
    print(f"\nGoals: 1, {MAX_SKIPS}, 4; 1 per device; 1.5")


# Jobs, models, devices.
CASES = (
    (32, 8, 1),
    (32, 8, 4),
    (60, 3, 1),
    (60, 3, 2),
    (100, 4, 1),
    (100, 4, 2),
    (200, 8, 1),
    (200, 8, 4),
    (200, 8, 8),
)


def _loads_row(worlds: Worlds, jobs: int, models: int, devices: int, options: argparse.Namespace) -> None:
    mine, best, exact = [], [], True
    for number in range(options.orders):
        chance = random.Random(f"{options.seed}-{jobs}-{models}-{devices}-{number}")
        order = [chance.randrange(models) for _ in range(jobs)]
        mine.append(loads(worlds, order, devices))
        fewest, whole = fewest_loads(order, devices, MAX_SKIPS, mine[-1])
        best.append(fewest)
        exact &= whole
    search = "exact" if exact else "best found"
    print(
        f"{jobs:4d} {models:7d} {devices:8d} {statistics.mean(mine):6.2f} {statistics.mean(best):16.2f} "
        f"{sum(mine) / sum(best):6.2f}  {search}",
        flush=True,
    )


if __name__ == "__main__":
    main()
