"""The fewest model loads any order of jobs could have, if none may be passed over more often than allowed.

Jobs of equal length wait from the start, every device keeps one model, devices take turns. A search over all orders,
step by step; where there are too many it keeps the most promising and says that its answer is only the best found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

KEPT = 2_000  # states kept after every step

# How many jobs of each model are done, and the model of each device.
State = tuple[tuple[int, ...], tuple[int, ...]]


def fewest_loads(order: Sequence[int], devices: int, most_passes: int, known: int) -> tuple[int, bool]:
    """(loads, whether no order can have fewer) for jobs of the models in `order`, 0, 1, 2 ...

    What cannot become better than `known`, the loads of some order, is not followed.
    """
    models = max(order) + 1
    places = [[place for place, model in enumerate(order) if model == wanted] for wanted in range(models)]
    before = [[0] * (len(order) + 1) for _ in range(models)]  # [model][place]: how many of it come before
    for wanted in range(models):
        for place, model in enumerate(order):
            before[wanted][place + 1] = before[wanted][place] + (model == wanted)
    states: dict[State, int] = {((0,) * models, (-1,) * devices): 0}
    exact = True
    for step in range(len(order)):
        device, after = step % devices, dict[State, int]()
        for (done, held), cost in states.items():
            for model in _allowed(done, places, before, step, most_passes):
                state = (
                    (*done[:model], done[model] + 1, *done[model + 1 :]),
                    (*held[:device], model, *held[device + 1 :]),
                )
                spent = cost + (held[device] != model)
                to_come = sum(
                    count < len(line) and wanted not in state[1]
                    for wanted, (count, line) in enumerate(zip(state[0], places, strict=True))
                )
                if spent + to_come < known and spent < after.get(state, known):
                    after[state] = spent
        if len(after) > KEPT:
            exact = False
            # Among equal costs the one that is furthest with some models: what is over needs no load any more.
            ranked = sorted(after.items(), key=lambda item: (item[1], -max(item[0][0])))
            after = dict(ranked[:KEPT])
        states = after
    return min([known, *states.values()]), exact


def _allowed(
    done: Sequence[int], places: Sequence[Sequence[int]], before: Sequence[Sequence[int]], step: int, most: int
) -> Iterator[int]:
    """Models whose next job may be next: none that was passed over `most` times is passed over again.

    Jobs of one model are done in their order, which costs nothing.
    """
    heads = {model: line[done[model]] for model, line in enumerate(places) if done[model] < len(line)}
    full = [
        head
        for head in heads.values()
        if step - sum(min(count, before[model][head]) for model, count in enumerate(done)) >= most
    ]
    last = min(full, default=len(before[0]))
    return (model for model, head in heads.items() if head <= last)
