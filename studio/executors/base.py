"""What an executor is: the place where workers live. Local processes are the default; others keep the same promises.

An executor never decides which job runs and never writes a result: workers claim jobs from the queue, and the queue's
leases say who owns what. An executor keeps workers alive, tells the queue when one is certainly dead, and kills one
whose job must stop. So what it must guarantee is small:

* Every device it was given has one living worker between `start` and `stop`; a worker that dies is replaced.
* A dead worker's jobs are handed back (`Jobs.reclaim`) as soon as its death is certain, and never before.
* A job that goes on for `settings.grace` seconds after its cancel (`Jobs.cancelling`) is ended by force, and counts
  as cancelled only once its process is dead.
* If the server itself dies, its workers end too, and what they still try to write is refused by their lost lease.
* `wake` and `interrupt` are hints that save waiting; losing one costs at most a poll of the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class WorkerFacts:
    """One worker as its executor sees it."""

    worker: str  # name in the store
    device: str  # "cpu", "cuda:0", ...
    pid: int  # 0 where there is no local process
    started: float  # seconds of the store's clock
    deaths: int  # how often this device's worker had to be replaced


class Executor(Protocol):
    """Workers for the jobs of one store."""

    def start(self) -> None:
        """Take back what workers of an earlier server held and bring up one for every device. Returns at once."""
        ...

    def stop(self, grace_s: float) -> None:
        """Let workers give their jobs back within `grace_s` seconds, then end them. Returns when all are dead."""
        ...

    def alive(self) -> list[WorkerFacts]:
        """The workers living now."""
        ...

    def wake(self) -> None:
        """There is a new job: look at the queue now."""
        ...

    def interrupt(self, job_id: str) -> None:
        """The owner of this running job wishes something: look at it now."""
        ...
