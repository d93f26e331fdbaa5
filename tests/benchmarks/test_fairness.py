"""A short run of the fairness harness: the goals hold on small crowds, and the search for fewest loads is right."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from benchmarks.fairness import Wanted, Worlds, ageing, behind_a_hundred, crowd, loads, overtaken, passed_over
from benchmarks.fewest_loads import fewest_loads
from studio.claims import AGE_S
from studio.placement import MAX_SKIPS


@pytest.mark.parametrize("devices", [1, 3])
def test_a_crowd_is_served_fairly(tmp_path: Path, devices: int):
    world = Worlds(tmp_path, running_cap=2).new(devices)
    wanted = crowd(random.Random(5), 200, devices)
    started = world.run(wanted)
    assert sorted(id(job.wanted) for job in started) == sorted(id(job) for job in wanted), "each once"
    assert overtaken(started) <= 1
    assert passed_over(started) <= MAX_SKIPS
    assert max(world.most_running.values()) == min(devices, 2)


def test_an_only_job_behind_a_hundred_is_next(tmp_path: Path):
    worlds, chance = Worlds(tmp_path), random.Random(7)
    assert behind_a_hundred(worlds, 1, chance) <= 1
    assert behind_a_hundred(worlds, 4, chance) <= 4


def test_the_harness_sees_unfairness(tmp_path: Path):
    wanted = [Wanted(0.0, "greedy", "m") for _ in range(5)] + [Wanted(0.0, "modest", "m")]
    started = Worlds(tmp_path).new(1).run(wanted)
    modest = next(job for job in started if job.wanted.owner == "modest")
    started.remove(modest)
    started.append(modest)
    for order, job in enumerate(started):
        job.order, job.time = order, max(job.time, 10.0 * order)
    assert overtaken(started) == 5
    first = started.pop(0)
    started.insert(4, first)
    assert passed_over(started) == 4


def test_models_are_loaded_little_more_than_needed(tmp_path: Path):
    worlds, mine, fewest = Worlds(tmp_path), 0, 0
    for seed, devices in itertools.product(range(4), (1, 2)):
        chance = random.Random(seed)
        order = [chance.randrange(3) for _ in range(40)]
        mine += (known := loads(worlds, order, devices))
        fewest += fewest_loads(order, devices, MAX_SKIPS, known)[0]
    assert mine <= 1.5 * fewest


@pytest.mark.parametrize("most_passes", [0, 1, 3, 8])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_search_finds_what_trying_everything_finds(most_passes: int, devices: int):
    order = [0, 1, 0, 2, 1, 0, 1]

    def cost(way: tuple[int, ...]) -> int:
        for place, job in enumerate(way):
            if sum(later > job for later in way[:place]) > most_passes:
                return 99
        held, spent = [-1] * devices, 0
        for step, job in enumerate(way):
            spent += held[step % devices] != order[job]
            held[step % devices] = order[job]
        return spent

    everything = min(cost(way) for way in itertools.permutations(range(len(order))))
    assert fewest_loads(order, devices, most_passes, 99) == (everything, True)


def test_age_makes_up_for_priority(tmp_path: Path):
    assert ageing(Worlds(tmp_path), 1) == pytest.approx(AGE_S, abs=30)
