"""Hostile input: thousands of made-up files and parameters through every door, in this process and without torch.

    python -m benchmarks.hostile_input [--cases 10000] [--seed 0] [--out hostile.jsonl]

Case number n is the same whenever it is run again (`--only n`). With `--out` a run that was stopped goes on where it
stood. Doors: uploads and JSON through /api, uploads to pages and their handlers, pictures through
the decoder, and the command line. Whatever comes in, the answer must be a result or a sentence: no crash, no 5xx, no
traceback; and the memory that any one case takes must stay below a bound.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.hostile_files import FAMILIES, NAMES, hostile_json
from benchmarks.in_process import Answer, Application
from benchmarks.rows import read_rows
from engines import NAMES as METHODS
from studio.errors import InvalidInput, TooLarge
from studio.services import Services, open_services
from studio.settings import Settings

UPLOAD_BYTES = 8 * 2**20
PIXELS = 4_000_000
BOUND = 128 * 2**20  # bytes that one case may take on top of what the process has
ENGINES = (*METHODS, "quick_engine")
# What must never reach a person.
TRACE = re.compile(r"Traceback|File \"|site-packages|\b[A-Za-z]+(Error|Exception)\b|<class |object at 0x|\.py\b")
# The last character of a sentence; a quotation may end with one.
END = (".", "!", "?", ":")

WORDS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 0.5, 1e308, -1e308,
    float("nan"), float("inf"), "", " ", "\0", "x" * 5000, "\ud800", "😀" * 200, "\u202e", "../../etc/passwd",
    "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://127.0.0.1}", "'; DROP TABLE job; --", "%s%n", "NaN",
    "１２", "0x10", "1e999", "null", [], {}, [None], [[]] * 50, {"a": {"b": {}}}, [1, "a", None], "0" * 64, "a" * 64,
    ["method"] * 500, "a red ring under a pale sky",
)  # fmt: skip


@dataclass
class Outcome:
    """What one case came to."""

    door: str
    family: str
    accepted: bool = False
    fault: str = ""  # why this is not how it should be
    grown: int = 0  # bytes
    seconds: float = 0.0


@dataclass
class Ground:
    """Where the cases run: one application and its store, and a folder for files."""

    house: Application
    services: Services
    folder: Path
    cookies: dict[str, str]
    handlers: list[dict[str, Any]] = field(default_factory=list)  # of the pages: id, inputs, takes a file


# -- judging --------------------------------------------------------------------------------------------------------


def judge(answer: Answer) -> str:
    """Why an answer is not good enough; "" if it is."""
    if answer.crash is not None:
        return f"crash: {answer.crash!r}"[:300]
    if not 200 <= answer.status < 500:
        return f"status {answer.status}: {answer.body[:200]!r}"
    text = answer.body.decode("utf-8", "replace")
    if answer.status < 400:
        return "" if not re.search(r"Traceback|site-packages", text) else f"a trace in {text[:300]}"
    try:
        told = json.loads(text)["error"]
        said = f"{told['message']} {told['remedy']}".strip()
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status} without a sentence: {text[:200]}"
    return sentence_fault(said)


def sentence_fault(text: str) -> str:
    """Why a text is no sentence for a person."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|“[^”]*”", "''", text)  # what was sent may be quoted
    if not text or len(text) > 1500:
        return f"a sentence of {len(text)} characters: {text[:200]}"
    if found := TRACE.search(bare):
        return f"{found.group()!r} in: {text[:300]}"
    return (
        "" if text.rstrip().endswith(END) or not bare.rstrip().endswith((",", "(")) else f"unfinished: {text[:200]}"
    )


def peak() -> int:
    """The most memory the process has had since `forget_peak`, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Begin anew; the memory the process has now."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


# -- doors ----------------------------------------------------------------------------------------------------------


def through_upload(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """A file to /api/uploads, under a name that plays tricks."""
    family = chance.choice(list(FAMILIES))
    name = quote(chance.choice(NAMES).encode("utf-8", "surrogatepass"))
    answer = ground.house.ask(
        "POST", f"/api/uploads?name={name}", cookies=ground.cookies, body=FAMILIES[family](chance)
    )
    return family, answer.status == 201, judge(answer)


def through_decoder(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """A file to the function that gives an engine its picture."""
    from studio.uploads import open_picture

    family = chance.choice(list(FAMILIES))
    try:
        image = open_picture(FAMILIES[family](chance), max_bytes=UPLOAD_BYTES, max_pixels=PIXELS)
    except (InvalidInput, TooLarge) as error:
        return family, False, sentence_fault(str(error))
    if image.mode not in ("RGB", "RGBA") or image.width * image.height > PIXELS:
        return family, True, f"a picture of mode {image.mode} and size {image.size}"
    return family, True, ""


def through_page_file(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """A file dropped on a page, and the page's handler that reads settings from it."""
    family = chance.choice(list(FAMILIES))
    edge = "edge1f00d"
    name = chance.choice(NAMES).replace('"', "%22").replace("\r\n", "%0D%0A").encode("utf-8", "replace")
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n' % (edge.encode(), name)
    body = head + FAMILIES[family](chance) + f"\r\n--{edge}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={edge}"}
    answer = ground.house.ask("POST", "/gradio_api/upload", cookies=ground.cookies, body=body, headers=headers)
    if answer.status != 200:
        return family, False, judge(answer)
    handler = chance.choice([each for each in ground.handlers if each["file"]])
    named = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
    given = {"fn_index": handler["id"], "data": [named], "session_hash": "s"}
    answer = ground.house.ask("POST", "/gradio_api/run/predict", cookies=ground.cookies, data=given)
    return family, "are in the fields" in answer.body.decode("utf-8", "replace"), judge(answer)


def through_page(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """Values no widget would send, to a handler of the pages."""
    handler = chance.choice(ground.handlers)
    data = [chance.choice(WORDS) if chance.random() < 0.5 else plain for plain in handler["values"]]
    family = "wrong values"
    if chance.random() < 0.2:
        family, data = (
            "wrong number of values",
            data[: chance.randrange(len(data) + 1)] + [None] * chance.randint(0, 3),
        )
    body: Any = {"fn_index": handler["id"], "data": data, "session_hash": "s"}
    if chance.random() < 0.1:
        family = "wrong body"
        body = chance.choice([None, [], {}, {"fn_index": -1, "data": []}, {"fn_index": "x"}, {**body, "data": "x"}])
    target = "/gradio_api/run/predict?job=" + quote(str(chance.choice(NAMES)).encode("utf-8", "replace"))
    sent = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    answer = ground.house.ask("POST", target, cookies=ground.cookies, body=sent, headers=headers)
    return family, answer.status == 200, judge(answer)


def through_jobs(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """Parameters of a job, or their estimate, as JSON."""
    engine = chance.choice(ENGINES)
    path = chance.choice(["/api/jobs", "/api/estimate"])
    headers = {"content-type": "application/json"}
    if chance.random() < 0.15:
        answer = ground.house.ask("POST", path, cookies=ground.cookies, body=hostile_json(chance), headers=headers)
        return "hostile JSON", answer.status < 300, judge(answer)
    body: dict[str, Any] = {"engine": engine, "params": parameters(ground, engine, chance)}
    family = "wrong values"
    if chance.random() < 0.2:
        family = "wrong body"
        body[chance.choice(["engine", "params", "token", "priority", "extra", "\ud800"])] = chance.choice(WORDS)
    answer = ground.house.ask("POST", path, cookies=ground.cookies, body=json.dumps(body).encode(), headers=headers)
    return family, answer.status < 300, judge(answer)


def parameters(ground: Ground, engine: str, chance: random.Random) -> dict[str, Any]:
    """Some parameters of an engine with values it does not expect, and some it does not have."""
    fields = ground.services.catalog.spec(engine).params.model_fields
    names = chance.sample(list(fields), chance.randint(0, min(4, len(fields))))
    made = {name: chance.choice(WORDS) for name in names}
    if chance.random() < 0.15:
        made[chance.choice(["", "__class__", "ＰＲＯＭＰＴ", "x" * 500, "\0"])] = chance.choice(WORDS)
    return made


def through_queries(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """Lists, ids, tokens and names in addresses."""

    def word() -> str:
        text = chance.choice([*NAMES, *(str(value) for value in WORDS)])
        return quote(text.encode("utf-8", "surrogatepass"), safe="") or "%20"

    method, target = chance.choice(
        [
            ("GET", f"/api/jobs?q={word()}&engine={word()}&limit={word()}"),
            ("GET", f"/api/jobs?state={word()}&before={word()}"),
            ("GET", f"/api/jobs?q={word()}"),
            ("GET", f"/api/jobs/{word()}"),
            ("GET", f"/api/jobs/{word()}/events?after={word()}&limit={word()}"),
            ("GET", f"/api/jobs/{word()}/previews/{word()}"),
            ("GET", f"/api/lists/{word()}?q={word()}&before={word()}"),
            ("GET", f"/api/lists/jobs?q={word()}"),
            ("GET", f"/api/engines/{word()}"),
            ("GET", f"/files/{word()}?t={word()}&download={word()}"),
            ("GET", f"/r/{word()}"),
            ("GET", f"/r/{word()}/previews/{word()}"),
            ("GET", f"/atelier/{word()}/{word()}"),
            ("GET", f"/account?next={word()}"),
            ("POST", f"/api/jobs/{word()}/{chance.choice(['cancel', 'pause', 'retry', 'again', 'shares'])}"),
            ("DELETE", f"/api/shares/{word()}"),
            ("GET", f"/gradio_api/file={word()}"),
        ]
    )
    cookies = dict(ground.cookies)
    if chance.random() < 0.1:
        cookies["atelier_session"] = word()
    headers = {"range": chance.choice(["bytes=0-", "bytes=9-1", "bytes=-9999999999999999999", "x", "bytes=a-b"])}
    answer = ground.house.ask(method, target, cookies=cookies, headers=headers if chance.random() < 0.2 else {})
    family = target.split("?")[0].split("/")[1]
    fault = judge(answer)
    if answer.header("content-type").startswith("text/html") and answer.status < 500:
        fault = "" if "Traceback" not in answer.body.decode("utf-8", "replace") else "a trace on a page"
    return family, answer.status < 300, fault


def through_command(ground: Ground, chance: random.Random) -> tuple[str, bool, str]:
    """The command line, in this process, with arguments as the system would pass them."""
    from studio.__main__ import main

    family, arguments, typed = command(ground, chance)
    said, told = io.StringIO(), io.StringIO()
    before = sys.stdin
    try:
        sys.stdin = io.StringIO(typed)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            code = main(arguments)
    except SystemExit as stop:  # argparse's way to refuse
        code = stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        return family, False, f"crash of {arguments!r}: {error!r}"[:400]
    finally:
        sys.stdin = before
    if code == 0:
        return family, True, ""
    text = told.getvalue()
    if code not in (1, 2, 130) or not text.strip():
        return family, False, f"exit code {code} of {arguments!r} with: {text[:200]}"
    return family, False, text[:300] if re.search(r"Traceback|File \"|site-packages", text) else ""


def command(ground: Ground, chance: random.Random) -> tuple[str, list[str], str]:
    """(family, arguments, standard input)."""

    def word() -> str:
        text = chance.choice([*NAMES, *(str(value) for value in WORDS)])
        return text.replace("\0", "").encode("utf-8", "replace").decode()  # no system passes others

    engine = chance.choice(ENGINES)
    kind = chance.choice(["settings", "flags", "jobs", "users", "submit"])
    if kind == "settings":
        family = chance.choice(list(FAMILIES))
        path = ground.folder / "given"
        path.write_bytes(FAMILIES[family](chance))
        return f"settings: {family}", ["submit", engine, "--settings", str(path)], ""
    if kind == "flags":
        fields = list(ground.services.catalog.spec(engine).params.model_fields)
        flags = [text for name in chance.sample(fields, 2) for text in (f"--{name.replace('_', '-')}", word())]
        return "flags", ["submit", engine, *flags], ""
    if kind == "jobs":
        action = chance.choice(["list", "show", "cancel", "priority", word()])
        return "jobs", ["jobs", action, word(), *chance.choice([[], ["--limit", word()], ["--state", word()]])], ""
    if kind == "users":
        action = chance.choice(["remove", "passwd", "add"])
        typed = "short\n" if action == "add" else word() + "\n"  # a good password would cost a second of hashing
        return "users", ["users", action, word(), "--password-stdin"], typed
    return "submit", ["submit", word(), "--seeds", word(), "--owner", word()], ""


DOORS: dict[str, tuple[int, Callable[[Ground, random.Random], tuple[str, bool, str]]]] = {
    "/api/uploads": (28, through_upload),
    "decoder": (12, through_decoder),
    "file on a page": (10, through_page_file),
    "page handlers": (14, through_page),
    "/api/jobs": (18, through_jobs),
    "addresses": (10, through_queries),
    "command line": (8, through_command),
}


# -- the run --------------------------------------------------------------------------------------------------------


def one(ground: Ground, seed: int, number: int) -> Outcome:
    """Case `number`: the same whenever it is run."""
    chance = random.Random(f"{seed}:{number}")
    door = chance.choices(list(DOORS), [weight for weight, _ in DOORS.values()])[0]
    before, begun = forget_peak(), time.perf_counter()
    try:
        family, accepted, fault = DOORS[door][1](ground, chance)
    except Exception as error:  # a fault of this harness, or of a function called without a door
        family, accepted, fault = "?", False, f"crash: {error!r}"[:400]
    grown, seconds = peak() - before, time.perf_counter() - begun
    if grown > BOUND and not fault:
        fault = f"{grown / 2**20:.0f} MB of memory"
    return Outcome(door, family, accepted, fault, grown, seconds)


def prepare(house: Application, services: Services, folder: Path) -> Ground:
    """A visitor with a cookie, and what the handlers of the pages take."""
    cookies = house.ask("GET", "/api/jobs").cookies
    pages = house.ask("GET", "/config").json()
    parts = {part["id"]: part for part in pages["components"]}
    handlers = []
    for entry in pages["dependencies"]:
        inputs = [parts[number] for number in entry["inputs"]]
        if entry["backend_fn"]:
            file = [part["type"] for part in inputs] == ["file"]
            values = [part["props"].get("value") for part in inputs]
            handlers.append({"id": entry["id"], "values": values, "file": file})
    return Ground(house, services, folder, cookies, handlers)


@contextlib.contextmanager
def ground(home: Path) -> Iterator[Ground]:
    """An application of its own in this process."""
    from app import create_app

    settings = Settings(
        home=home,
        engines=("tests.quick_engine",),
        disk_reserve=0,
        rate_per_minute=10**9,
        waiting_cap=10**7,
        upload_bytes=UPLOAD_BYTES,
        upload_pixels=PIXELS,
    )
    before = {name: os.environ.get(name) for name in settings.environ()}
    services = open_services(settings)
    try:
        os.environ.update(settings.environ())  # for the command line
        with Application(create_app(services)) as house:
            yield prepare(house, services, home)
    finally:
        services.close()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def table(outcomes: list[Outcome]) -> str:
    """For people: a row per door and family."""
    rows: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.door, outcome.family].append(outcome)
    head = f"{'door':16s} {'family':26s} {'cases':>6s} {'taken':>6s} {'refused':>8s} {'faults':>7s} {'most MB':>8s}"
    lines = [head]
    for (door, family), group in sorted(rows.items()):
        count = Counter("fault" if item.fault else "taken" if item.accepted else "refused" for item in group)
        most = max(item.grown for item in group) / 2**20
        lines.append(
            f"{door:16s} {family:26s} {len(group):6d} {count['taken']:6d} {count['refused']:8d} "
            f"{count['fault']:7d} {most:8.1f}"
        )
    faults = [item for item in outcomes if item.fault]
    total = sum(item.seconds for item in outcomes)
    lines.append(f"{len(outcomes)} cases in {total:.0f} s, {len(faults)} faults")
    return "\n".join(lines)


def main() -> int:
    """Run, print the table; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and say what it came to")
    parser.add_argument("--out", type=Path, help="a line of JSON for each case; an old file is gone on with")
    options = parser.parse_args()
    outcomes = [Outcome(**row) for row in read_rows(options.out)]
    numbers = range(len(outcomes), options.cases) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory() as home, ground(Path(home)) as place:
        with options.out.open("a") if options.out else contextlib.nullcontext() as kept:
            for number in numbers:
                outcome = one(place, options.seed, number)
                outcomes.append(outcome)
                if kept:
                    print(json.dumps(vars(outcome)), file=kept, flush=True)
                if outcome.fault:
                    print(f"case {number}: {outcome.door}, {outcome.family}: {outcome.fault}", flush=True)
    print(table(outcomes))
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
