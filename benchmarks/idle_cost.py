"""What an idle Atelier costs: CPU seconds a second of its server and of its worker, beside a bare Gradio app.

`python -m benchmarks.idle_cost --seconds 60` prints a table. Goal: supervisor and worker together at most 0.5 %
of a core. The supervisor is measured without pages too, because Gradio's own loop takes more than the difference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio.services import open_services
from studio.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SETTLE_S = 10.0
BARE = """
import gradio as gr
with gr.Blocks() as demo:
    gr.Markdown("bare")
demo.launch(server_name="127.0.0.1")
"""


@contextmanager
def running(command: list[str], sign: str, settings: Settings) -> Iterator[tuple[psutil.Process, str]]:
    """A server that has said `sign`, and the whole line in which it did."""
    environment = settings.child_environ() | {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while sign not in (line := process.stdout.readline()):
            assert process.poll() is None, f"{command} ended before it served"
        yield psutil.Process(process.pid), line
    finally:
        process.terminate()
        process.communicate(timeout=60)


def cost(processes: dict[str, psutil.Process], seconds: float) -> dict[str, float]:
    """CPU seconds a second of each process over `seconds`."""

    def spent(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    pause = threading.Event()
    pause.wait(SETTLE_S)
    before = {name: spent(process) for name, process in processes.items()}
    pause.wait(seconds)
    return {name: (spent(process) - before[name]) / seconds for name, process in processes.items()}


def worker_of(settings: Settings) -> psutil.Process:
    """The server's worker, once it has shown itself."""
    jobs, pause = open_services(settings).jobs, threading.Event()
    while not jobs.workers():
        pause.wait(0.1)
    return psutil.Process(jobs.workers()[0].pid)


def main() -> None:
    """Measure one after the other, then print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), devices=("cpu",))
        with running([sys.executable, "-c", BARE], "Running on", settings) as (bare, _):
            measured = cost({"bare Gradio": bare}, seconds)
        with running([sys.executable, "-m", "studio", "worker", "--all"], "Serving", settings) as (supervisor, _):
            measured |= cost({"supervisor alone": supervisor}, seconds)
        app = [sys.executable, "app.py", "--port", "0", "--home", home]
        with running(app, "Atelier is at", settings) as (server, _):
            measured |= cost({"Atelier's server": server, "idle worker": worker_of(settings)}, seconds)
    beyond = measured["supervisor alone"] + measured["idle worker"]
    print(f"{'process':20s} CPU of one core")
    for name, share in measured.items():
        print(f"{name:20s} {100 * share:6.2f} %")
    print(f"{'ours':20s} {100 * beyond:6.2f} %   (goal: at most 0.5 %)")


if __name__ == "__main__":
    main()
