"""The command line: results in a folder, sweeps that go on after a kill, sentences and exit codes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from studio.__main__ import main
from studio.batch import STORE, _free_name
from studio.services import Services, open_services
from studio.settings import Settings
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATELIER_ENGINES", "tests.quick_engine")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def signals() -> None:
    """`run` takes the signals of its process; a test gives them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(out: Path, *flags: str) -> int:
    return main(["run", "quick_engine", "--out", str(out), *flags])


def store_of(out: Path) -> Services:
    """The private store of a run that has just begun."""
    until((out / STORE / "atelier.db").exists)
    return open_services(Settings(home=out / STORE))


def listed(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def test_a_parameter_called_like_a_flag_of_the_command_has_another(tmp_path: Path):
    assert run(tmp_path / "out", "--seeds", "3,4", "--param-seeds", "2", "--steps", "1") == 0
    assert [job["params"]["seeds"] for job in listed(tmp_path / "out")["jobs"]] == [2, 2]


def test_a_run_leaves_pictures_and_one_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert run(out, "--steps", "3", "--seed", "7", "--method", "method", "--method", "plain") == 0
    assert sorted(path.name for path in out.iterdir()) == [".atelier", "manifest.json", "method-7.png", "plain-7.png"]
    manifest = listed(out)
    assert manifest["complete"]
    (job,) = manifest["jobs"]
    assert job["params"]["steps"] == 3
    assert job["metrics"] == {"pictures": 2}
    for file in job["files"]:
        assert hashlib.sha256((out / file["file"]).read_bytes()).hexdigest() == file["sha256"]
        assert "mean" in file["metrics"]
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "[1/1] seed 7 succeeded" in said.err


def test_a_sweep_is_not_run_twice(tmp_path: Path):
    out, trace = tmp_path / "out", tmp_path / "trace"
    flags = ("--seeds", "0:3", "--steps", "1", "--trace", str(trace))
    assert run(out, *flags) == 0
    assert run(out, *flags) == 0
    assert [line.split()[0] for line in trace.read_text().splitlines()] == ["0", "1", "2"]
    assert [job["seed"] for job in listed(out)["jobs"]] == [0, 1, 2]
    assert run(out, "--seeds", "2:4", *flags[2:]) == 0
    assert [line.split()[0] for line in trace.read_text().splitlines()] == ["0", "1", "2", "3"]


def test_files_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path):
    assert _free_name("table.csv", 4, {"table.csv"}) == "table-4.csv"
    assert _free_name("table.csv", 4, {"table.csv", "table-4.csv"}) == "table-4-1.csv"
    assert _free_name("../../etc/passwd", 1, set()) == "passwd"


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path):
    out, trace, barrier = tmp_path / "out", tmp_path / "trace", tmp_path / "barrier"
    flags = ["--seeds", "0:2", "--steps", "3", "--trace", str(trace), "--barrier", str(barrier), "--hold-at", "2"]
    command = [sys.executable, "-m", "studio", "run", "quick_engine", "--out", str(out), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    store = until(
        lambda: (out / ".atelier" / "atelier.db").exists() and open_services(Settings(home=out / ".atelier"))
    )
    first = until(lambda: (jobs := store.jobs.list(states=["running"])) and jobs[0])
    until(lambda: len([e for e in store.jobs.events(first.id) if e.kind == "checkpoint"]) == 2)
    process.kill()
    process.wait()
    barrier.touch()
    assert run(out, *flags) == 0
    lines = [line.split() for line in trace.read_text().splitlines()]
    assert [line[0] + line[2] for line in lines] == ["00", "01", "02", "10", "11", "12"]
    assert listed(out)["jobs"][0]["resumed_from_step"] == 2


def test_ctrl_c_keeps_what_was_done(tmp_path: Path):
    out, barrier = tmp_path / "out", tmp_path / "barrier"
    flags = ["--steps", "3", "--barrier", str(barrier), "--hold-at", "1"]
    command = [sys.executable, "-m", "studio", "run", "quick_engine", "--out", str(out), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    store = until(
        lambda: (out / ".atelier" / "atelier.db").exists() and open_services(Settings(home=out / ".atelier"))
    )
    until(lambda: (jobs := store.jobs.list()) and "checkpoint" in [e.kind for e in store.jobs.events(jobs[0].id)])
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "goes on from here" in said
    assert "Traceback" not in said
    barrier.touch()
    assert run(out, *flags) == 0


def test_resume_takes_the_settings_from_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, trace, barrier = tmp_path / "out", tmp_path / "trace", tmp_path / "barrier"
    flags = ["--steps", "3", "--trace", str(trace), "--barrier", str(barrier), "--hold-at", "1"]
    assert run(out, "--resume") == 2
    assert "Nothing of Quick is unfinished" in capsys.readouterr().err
    command = [sys.executable, "-m", "studio", "run", "quick_engine", "--out", str(out), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    store = store_of(out)
    until(lambda: (jobs := store.jobs.list()) and "checkpoint" in [e.kind for e in store.jobs.events(jobs[0].id)])
    process.kill()
    process.wait()
    barrier.touch()
    assert run(out, "--resume") == 0
    assert [line.split()[2] for line in trace.read_text().splitlines()] == ["0", "1", "2"]
    assert listed(out)["jobs"][0]["resumed_from_step"] == 1
    assert run(out, "--resume") == 2
    assert run(out, *flags, "--resume") == 0  # with its settings it is the same job, and finished


def test_two_runs_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    holder = open_services(Settings(home=out / ".atelier"), exclusive=True)
    assert run(out) == 1
    assert "Another Atelier is using" in capsys.readouterr().err
    holder.close()
    assert run(out, "--steps", "1") == 0


def test_a_failed_job_is_code_1_and_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert run(out, "--fault", "refuse") == 1
    assert "Nobody can draw that." in capsys.readouterr().err
    assert listed(out)["jobs"][0]["error"]["code"] == "invalid_input"
    assert not listed(out)["complete"]
    assert run(out, "--fault", "refuse") == 1
    assert "Nobody can draw that." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--steps", "0"], "Steps cannot be '0'."),
        (["--seeds", "a:b"], "--seeds cannot be 'a:b'."),
        (["--seeds", "5:5"], "--seeds 5:5 names 0 seeds."),
        (["--preset", "Short"], "Quick has no preset 'Short'."),
        (["--settings", "/nonexistent.png"], "/nonexistent.png cannot be read"),
        (["--method", "magic"], "Methods cannot be 'magic'."),
    ],
)
def test_bad_input_is_code_2_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
):
    assert run(tmp_path / "out", *flags) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_engine_is_code_2(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "paint", "--out", "x"]) == 2
    assert "There is no engine named 'paint'." in capsys.readouterr().err


def test_a_bad_setting_is_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("ATELIER_LEASE", "soon")
    assert main(["settings"]) == 2
    assert "ATELIER_LEASE='soon': expected a number" in capsys.readouterr().err


def test_a_result_repeats_itself(tmp_path: Path):
    assert run(tmp_path / "a", "--steps", "3", "--seed", "9") == 0
    for source in ("method-9.png", "manifest.json"):
        out = tmp_path / source
        assert run(out, "--settings", str(tmp_path / "a" / source)) == 0
        assert (out / "method-9.png").read_bytes() == (tmp_path / "a" / "method-9.png").read_bytes()


def test_a_manifest_repeats_its_whole_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(tmp_path / "a", "--steps", "1", "--seeds", "3:6") == 0
    manifest = tmp_path / "a" / "manifest.json"
    assert run(tmp_path / "b", "--settings", str(manifest), "--steps", "2") == 0
    assert [job["params"]["seed"] for job in listed(tmp_path / "b")["jobs"]] == [3, 4, 5]
    assert {job["params"]["steps"] for job in listed(tmp_path / "b")["jobs"]} == {2}
    assert main(["run", "ultraimage", "--settings", str(manifest), "--out", str(tmp_path / "c")]) == 2
    assert "comes from 'quick_engine'" in capsys.readouterr().err
    manifest.write_text("{}")
    assert run(tmp_path / "d", "--settings", str(manifest)) == 2


def test_presets_are_a_start_that_flags_change(tmp_path: Path):
    assert run(tmp_path / "out", "--preset", "long", "--size", "2", "--no-keep") == 0
    params = listed(tmp_path / "out")["jobs"][0]["params"]
    assert (params["steps"], params["size"], params["keep"]) == (50, 2, False)


def test_jobs_are_submitted_listed_and_steered(capsys: pytest.CaptureFixture[str]):
    def said(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    first, second = said("submit", "quick_engine", "--seeds", "1,2").split()
    assert [line.split()[:2] for line in said("jobs").splitlines()] == [[second, "queued"], [first, "queued"]]
    assert "cancelled" in said("jobs", "cancel", first)
    assert "queued" in said("jobs", "retry", first)
    assert "paused" in said("jobs", "pause", first)
    assert "queued" in said("jobs", "resume", first)
    assert " 7 " in said("jobs", "priority", first, "7")
    assert "seed = 1" in said("jobs", "show", first)
    assert "is paused" in said("jobs", "pause-queue")
    assert "runs" in said("jobs", "resume-queue")
    assert said("jobs", "--state", "running") == ""
    assert main(["jobs", "show", "nobody"]) == 2
    assert main(["jobs", "cancel"]) == 2
    assert main(["jobs", "--colour"]) == 2


def test_settings_models_and_sweep_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "home" / "weights" / "owner--name").mkdir(parents=True)
    assert main(["settings"]) == 0
    assert f"ATELIER_HOME={tmp_path / 'home'}" in capsys.readouterr().out
    assert main(["models"]) == 0
    assert "Shipped with Atelier:" in capsys.readouterr().out
    assert main(["sweep"]) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["run", "ultraimage", "--help"], ["jobs", "--help"]])
def test_help_wakes_no_torch(arguments: list[str]):
    code = (
        "import sys; from studio.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'gradio', 'huggingface_hub'} & set(sys.modules), 'too much imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python -m studio" in done.stdout
