"""The command line: `python -m studio run | submit | jobs | users | models | worker | settings | sweep`.

Exit codes: 0 done, 1 a job or the store failed, 2 the input cannot be used, 130 stopped by hand. Reads flags and
hands over; imports no torch.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from studio import commands, logs, users
from studio.catalog import Catalog
from studio.contract import EngineSpec
from studio.errors import AtelierError, InvalidInput, NotFound
from studio.flags import add_flags, jobs_in, preset_values, seeds_of, values_of
from studio.settings import Settings, SettingsError, quiet_libraries

ROOT = Path(__file__).resolve().parents[1]
BAD_INPUT = 2
STOPPED = 130
SETTINGS_BYTES = 256 * 2**20  # of a file with settings; a long video has some ten million


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        settings = Settings.from_env()
        options, rest = _parser().parse_known_args(arguments)
        if options.command != "models" or options.action != "download":
            quiet_libraries()
        if options.command in ("run", "submit"):
            return _engine_command(settings, options, rest)
        if rest:
            raise InvalidInput(f"{rest[0]} is no flag of `{options.command}`.", "Add --help to see them.")
        return _store_command(settings, options)
    except (InvalidInput, NotFound) as error:
        print(commands.sentence(error), file=sys.stderr)
        return BAD_INPUT
    except SettingsError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except AtelierError as error:
        print(commands.sentence(error), file=sys.stderr)
        return 1


def _store_command(settings: Settings, options: argparse.Namespace) -> int:
    match options.command:
        case "jobs":
            return commands.jobs(settings, options)
        case "users":
            return users.users(settings, options)
        case "models":
            return commands.models(settings, options, ROOT)
        case "worker":
            return commands.worker(settings, options)
        case "backup":
            return commands.backup(settings, options)
        case "restore":
            return commands.restore(settings, options)
        case "settings":
            return commands.show_settings(settings)
        case _:
            return commands.sweep(settings)


def _engine_command(settings: Settings, options: argparse.Namespace, rest: list[str]) -> int:
    spec = Catalog(settings.engines).spec(options.engine)
    given = _engine_parser(spec, options.command).parse_args(rest)
    values = _values(spec, given)
    if options.command == "run" and given.resume and not any(values):
        values = _unfinished(settings, spec, given.out)
    if options.command == "submit":
        return commands.submit_job(settings, spec.name, values, given)
    return _run(settings, spec, values, given.out)


def _values(spec: EngineSpec, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The parameters of each job: a settings file first, then a preset, then the flags, then the seeds."""
    starts = [{}] if given.settings is None else _from_file(spec, given.settings)
    said = (preset_values(spec, given.preset) if given.preset is not None else {}) | values_of(given, spec)
    seeds = [{}] if given.seeds is None else [{"seed": seed} for seed in seeds_of(given.seeds)]
    return [start | said | seed for start in starts for seed in seeds]


def _unfinished(settings: Settings, spec: EngineSpec, out: Path) -> list[dict[str, Any]]:
    """The parameters of the jobs in a folder that have not succeeded. Raises NotFound if there are none."""
    from studio.batch import unfinished

    found = unfinished(spec.name, out, settings)
    if not found:
        raise NotFound(
            f"Nothing of {spec.title} is unfinished in {out}.", "Give settings to start, or more of them to extend."
        )
    return found


def _from_file(spec: EngineSpec, path: Path) -> list[dict[str, Any]]:
    """The parameters inside a result, or of every job of a manifest. Raises InvalidInput."""
    from studio.encoders import read_provenance

    try:
        with path.open("rb") as file:
            data = file.read(SETTINGS_BYTES + 1)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{path} cannot be read: {told}.", "Name another.", field="settings") from error
    if len(data) > SETTINGS_BYTES:
        raise InvalidInput(f"{path} is too large to hold settings.", "Name a result or a manifest.", field="settings")
    rows = jobs_in(data)
    found = rows if rows else [read_provenance(data) or {}]
    for row in found:
        if row.get("engine", spec.name) != spec.name:
            raise InvalidInput(
                f"{path} comes from {row['engine']!r}, not from {spec.name!r}.",
                f"Run: python -m studio run {row['engine']} --settings {path}",
                field="settings",
            )
    if not all(isinstance(row.get("params"), dict) for row in found):
        raise InvalidInput(f"{path} carries no settings.", "Use a result or a manifest of Atelier.", field="settings")
    return [dict(row["params"]) for row in found]


def _run(settings: Settings, spec: EngineSpec, values: list[dict[str, Any]], out: Path) -> int:
    from studio.batch import STORE, Batch
    from studio.console import Console

    logs.configure(out / STORE, "batch", errors_shown=False)
    batch = Batch(spec.name, values, out, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: batch.stop())
    try:
        with Console(batch, sys.stderr) as console:
            batch.run(console.ended)
        states = [job.state for job in batch.jobs()]
    finally:
        batch.close()
    if all(state == "succeeded" for state in states):
        print(out)
        return 0
    left = sum(state in ("queued", "paused", "running") for state in states)
    if batch.stopped:
        print(f"Stopped with {left} to go; the same command goes on from here.", file=sys.stderr)
        return STOPPED
    if left:
        print(f"{left} of {len(states)} were not run: the disk under {out} is nearly full.", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio", description="Atelier from the command line.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("run", "run an engine here and now, without a server; results go to --out"),
        ("submit", "queue a job for the server"),
    ):
        command = parsers.add_parser(name, help=text, add_help=False)
        command.add_argument("engine", help="name of an engine; `run ENGINE --help` shows its parameters")
    jobs = parsers.add_parser("jobs", help="list, show and steer the server's jobs")
    actions = ["list", "show", *commands.ACTIONS, "priority", "pause-queue", "resume-queue"]
    jobs.add_argument("action", nargs="?", default="list", choices=actions)
    jobs.add_argument("job", nargs="?", help="id of a job")
    jobs.add_argument("priority", nargs="?", type=int, default=0, help="for `priority`: -100 to 100")
    jobs.add_argument("--owner", help="only this owner's")
    jobs.add_argument("--state", action="append", help="only in this state; may be repeated")
    jobs.add_argument("--engine", help="only of this engine")
    jobs.add_argument("--limit", type=int, default=50)
    people = parsers.add_parser("users", help="who may log in: add, list, remove, passwd")
    people.add_argument("action", nargs="?", default="list", choices=["add", "list", "remove", "passwd"])
    people.add_argument("name", nargs="?", default="", help="the name of an account")
    people.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    models = parsers.add_parser("models", help="list the models on this machine, or download one")
    models.add_argument("action", nargs="?", default="list", choices=["list", "download"])
    models.add_argument("repo", nargs="?", default="", help="for `download`: owner/name on the hub")
    models.add_argument("--revision", help="commit or branch")
    models.add_argument("--every-file", action="store_true", help="pickled weights too; nothing needs them")
    worker = parsers.add_parser("worker", help="run a worker for the server's store")
    worker.add_argument("--device", default="cpu", help="cpu, cuda:0, ... [cpu]")
    worker.add_argument("--all", action="store_true", help="supervise one worker per device, without a page")
    worker.add_argument("--id", help=argparse.SUPPRESS)
    worker.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    for name, text in (
        ("backup", "write everything that cannot be made again to one new file, also while a server runs"),
        ("restore", "bring a backup into a home folder without a store"),
    ):
        parsers.add_parser(name, help=text).add_argument("file", type=Path, metavar="FILE")
    parsers.add_parser("settings", help="print every setting")
    parsers.add_parser("sweep", help="delete what is older than the retention time")
    return parser


def _engine_parser(spec: EngineSpec, command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m studio {command} {spec.name}", description=spec.summary)
    parser.add_argument("--seeds", help="several jobs: 0:64 for seeds 0 to 63, or 3,5,8")
    parser.add_argument("--preset", help=f"one of: {'; '.join(spec.presets)}".replace("%", "%%"))
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a result or manifest to repeat")
    if command == "run":
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
        parser.add_argument(
            "--resume", action="store_true", help="go on with what is unfinished in --out, from its newest checkpoint"
        )
    else:
        parser.add_argument("--owner", default=commands.OWNER, help="whose job it is")
        parser.add_argument("--priority", type=int, default=0, help="-100 to 100, larger is sooner")
    add_flags(parser, spec)
    return parser


if __name__ == "__main__":
    sys.exit(main())
