"""The devices of this machine and what is free on them, without waking torch in a process that does not use it.

GPUs are counted by the driver's own list, memory by psutil (within the limits of a container) or, where torch is
already loaded, by CUDA itself. This module knows no engine and no queue.
"""

from __future__ import annotations

import platform
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from studio.contract import DeviceFacts

MIB = 2**20
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CONTAINER_USE = Path("/sys/fs/cgroup/memory.current")
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
# Another thread must not ask torch while the first one still imports it.
_torch_settled = threading.Event()


def device_kind(device: str) -> str:
    """ "cuda:1" is of kind "cuda"."""
    return device.partition(":")[0]


def expand(devices: Sequence[str], gpus: Callable[[], int] | None = None) -> tuple[str, ...]:
    """The devices of `ATELIER_DEVICES` by name: `auto` is every GPU the driver lists, else the CPU."""
    found: list[str] = []
    for device in devices:
        if device == "auto":
            count = (gpus or count_gpus)()
            found += [f"cuda:{number}" for number in range(count)] or ["cpu"]
        else:
            found.append(device)
    return tuple(dict.fromkeys(found))


def count_gpus() -> int:
    """How many GPUs torch would see; 0 without a driver or with a torch built for the CPU.

    Where a driver lists GPUs, a short process asks torch itself, so that masks of visible devices count too.
    """
    if not _torch_has_cuda() or not _answer("nvidia-smi", "-L"):
        return 0
    count = _answer(sys.executable, "-c", "import torch; print(torch.cuda.device_count())").strip()
    return int(count) if count.isdigit() else 0


def facts(device: str, evictable: int = 0) -> DeviceFacts:
    """Name and memory of `device`; `evictable` bytes of cached models count as free."""
    if device_kind(device) == "cpu":
        total, free = _cpu_memory()
        name = platform.processor() or platform.machine()
        return DeviceFacts("cpu", name, total, min(total, free + evictable))
    number = int(device.partition(":")[2] or 0)
    name, total, free = _gpu_from_torch(device) if _torch_settled.is_set() else _gpu_from_driver(number)
    return DeviceFacts("cuda", name, total, min(total, free + evictable))


def free_bytes(device: str) -> int:
    """Bytes that can really be had on `device` now."""
    return facts(device).memory_free


def worker_threads(threads: int, workers: int) -> int:
    """CPU threads of one worker: as set, or the machine's cores shared equally."""
    return threads or max(1, (psutil.cpu_count() or 1) // max(1, workers))


def settle_torch(threads: int) -> None:
    """Make torch repeatable, once an engine has loaded it: the same parameters shall give the same bytes."""
    if "torch" not in sys.modules:
        return
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Repeatable without it: no engine reads memory it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    _torch_settled.set()


class PeakMemory:
    """The most memory a run needs, from its making to each call of `bytes`.

    On a GPU by torch's own count; on the CPU by the kernel's high-water mark, which is reset where the kernel allows
    it (Linux) and elsewhere covers the process's whole life.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device if device_kind(device) == "cuda" and "torch" in sys.modules else None
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            _reset_high_water()

    def bytes(self) -> int:
        """The peak so far."""
        if self._cuda:
            import torch

            return int(torch.cuda.max_memory_allocated(self._cuda))
        return _high_water()


def _cpu_memory() -> tuple[int, int]:
    """(total, available) bytes: the machine's, or the container's where that is less."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit = _read_number(_CONTAINER_LIMIT)
    if limit is not None and limit < total:
        used = _read_number(_CONTAINER_USE) or 0
        total, free = limit, max(0, min(free, limit - used))
    return total, free


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None


def _gpu_from_torch(device: str) -> tuple[str, int, int]:
    """(name, total, free) bytes; what torch holds in reserve without using it is free for the next job too."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    slack = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.get_device_name(device), total, free + slack


@cache
def _gpu_from_driver(number: int) -> tuple[str, int, int]:
    query = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
    name, *numbers = _answer("nvidia-smi", f"--id={number}", *query).strip().split(", ")
    if len(numbers) != 2 or not all(text.isdigit() for text in numbers):
        return name or "GPU", 0, 0
    return name, int(numbers[0]) * MIB, int(numbers[1]) * MIB


def _answer(*command: str) -> str:
    """What a command prints, "" if there is no such command or it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, by its version's suffix: importing it would take seconds."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def _reset_high_water() -> None:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _high_water() -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
