"""Drawing on every core: work that is cut into parts, done by processes of one thread each, in order.

What a part makes depends on the part alone, so the same parts make the same files on any number of cores. Processes
are started when they are needed first and stay for what is asked of them later. Knows nothing of what is drawn.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Made = TypeVar("Made")


def spread(work: Callable[[Part], Made], parts: Sequence[Part]) -> Iterator[Made]:
    """What `work` makes of every part, in their order; in this process where there is one core or one part.

    `work` is a function of a module, and what it makes is handed over by value: arrays rather than tensors, whose
    shared memory would have to be kept open by both sides.
    """
    crew = _crew() if len(parts) > 1 else None
    return crew.map(work, parts) if crew else map(work, parts)


def batches(first: int, count: int, size: int) -> list[range]:
    """The numbers from `first` on, in consecutive parts of at most `size`."""
    return [range(start, min(start + size, first + count)) for start in range(first, first + count, size)]


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _crew() -> ProcessPoolExecutor | None:
    """The processes, none where one core is all there is.

    Never forked from this one, which may hold threads and a GPU: where the system can, from one that has loaded what
    drawing needs and nothing else, so that sixteen start as fast as one.
    """
    if cores() == 1:
        return None
    preferred = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(preferred)
    context.set_forkserver_preload(["pocket.toypool", "pocket.people"])
    return ProcessPoolExecutor(cores(), context, torch.set_num_threads, (1,))
