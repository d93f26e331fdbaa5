"""A worker that kills itself at a random one of its own file operations, or a moment after it.

    python -m benchmarks.fragile MEAN worker --device cpu ...

Started by the crash trials in place of `python -m studio`. Kills from outside rarely meet the microseconds between a
rename and the row that tells of it; this one dies there, without a changed line in the house: Python itself reports
every opening, renaming and removing to an audit hook. `MEAN` is how many operations it survives on average.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading

from studio.__main__ import main

WATCHED = {"os.rename", "os.remove", "os.mkdir", "shutil.rmtree"}
LATE_S = 0.003  # at most this long after the operation


def arm(mean: float, chance: random.Random) -> None:
    """From now on count this process's operations on files, and die at one of them."""
    left = [chance.expovariate(1 / mean)]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event not in WATCHED and not (event == "open" and _writes(args)):
            return
        left[0] -= 1
        if -1 < left[0] <= 0:
            if chance.random() < 0.5:
                die()
            threading.Timer(chance.uniform(0, LATE_S), die).start()

    sys.addaudithook(hook)


def _writes(args: tuple[object, ...]) -> bool:
    """Whether an opening was for writing; `args` are path, mode and flags."""
    flags = args[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    if float(sys.argv[1]) > 0:
        arm(float(sys.argv[1]), random.SystemRandom())
    sys.exit(main(sys.argv[2:]))
