"""Who may see what: every route of the application, tried by everybody it is not meant for.

    python -m benchmarks.access_matrix [--seed 0] [--rounds 1] [--most 10000] [--out matrix.jsonl]

The routes are read from the application itself, pages' framework included, so that a new one cannot be forgotten: a
part of a path that this file does not know stops it. Ada has jobs in every state, files, previews, links and an
upload to a page; each of them carries a mark nobody can guess. Everybody else calls every route with her ids, in many
spellings. A leak is an answer with one of her marks; an effect is any row of hers that has changed. First Ada calls
them herself: a route that should show her something and does not would prove nothing, and is listed. With `--out` a
run that was stopped goes on where it stood, with an Ada of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from benchmarks.in_process import Answer, Application
from benchmarks.rows import append_row, read_rows
from studio.identity import COOKIE, SESSION_COOKIE, AnonymousCookie, load_secret
from studio.services import Services, open_services
from studio.settings import Settings

ENGINE = "quick_engine"
WRITES = ("POST", "PUT", "PATCH", "DELETE")
EVENTS = {"accept": "text/event-stream"}
# Endless or slow by design, and with nothing of anybody in them: one call each tells as much as a thousand.
ONCE = re.compile(r"heartbeat|upload_progress|dev/reload")


@dataclass(frozen=True)
class Route:
    """One way into the application."""

    method: str
    template: str

    @property
    def parts(self) -> list[str]:
        """Names of the variable parts of the path."""
        return [name.partition(":")[0] for name in re.findall(r"{(.+?)}", self.template)]

    def filled(self, values: dict[str, str]) -> str:
        """The path with the parts filled in."""
        return re.sub(r"{(\w+)(?::\w+)?}", lambda found: values[found[1]], self.template)


def routes_of(app: Any, prefix: str = "") -> Iterator[Route]:
    """Every route of an application and of those mounted in it."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, Mount):
            yield from routes_of(route.app, prefix + route.path)
            continue
        for method in sorted(getattr(context, "methods", None) or getattr(route, "methods", None) or ["GET"]):
            yield Route(method, prefix + (context.path or ""))


@dataclass
class Person:
    """Somebody who sends requests."""

    name: str
    cookies: dict[str, str] = field(default_factory=dict)


@dataclass
class Stage:
    """The application with Ada's things in it, and what would give them away."""

    house: Application
    services: Services
    ada: Person
    others: list[Person]
    values: dict[str, list[str]]  # part of a path -> what others try for it
    marks: dict[str, bytes]  # what it is -> bytes that must not reach anybody else
    pages: dict[str, Any]  # configuration of the pages' framework
    revoked: str = ""
    foreign_link: str = ""  # a link of another job, which opens that job and nothing else

    def seen(self, answer: Answer, target: str) -> list[str]:
        """The marks in an answer, except those the request itself named."""
        text = answer.body + "\n".join(f"{name}: {value}" for name, value in answer.headers).encode()
        asked = target + unquote(target)
        return [what for what, mark in self.marks.items() if mark in text and mark.decode() not in asked]

    def snapshot(self) -> dict[str, Any]:
        """Every row that is Ada's."""
        owner = self.owner
        tables = {
            "job": "SELECT * FROM job WHERE owner = ? ORDER BY seq",
            "event": "SELECT event.* FROM event JOIN job ON job.id = job WHERE owner = ? ORDER BY job, event.seq",
            "share": "SELECT * FROM share WHERE owner = ? ORDER BY token",
            "upload": "SELECT * FROM upload WHERE owner = ? ORDER BY sha",
        }
        with self.services.db.read() as connection:
            return {name: [tuple(row) for row in connection.execute(q, (owner,))] for name, q in tables.items()}

    @property
    def owner(self) -> str:
        """Who Ada is to the store."""
        return self.cookies_owner(self.ada)

    def cookies_owner(self, person: Person) -> str:
        """The owner in a signed cookie."""
        return person.cookies[COOKIE].rpartition(".")[0]


@dataclass
class Report:
    """What came of it."""

    routes: int = 0
    calls: int = 0
    own: int = 0  # routes on which Ada saw her own marks
    blind: list[str] = field(default_factory=list)  # routes that should have shown her some, and did not
    leaks: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # 5xx or nothing at all
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)  # (who, status) -> calls

    def as_row(self) -> dict[str, Any]:
        """What was found on one route, for JSON."""
        codes = [[who, status, count] for (who, status), count in sorted(self.codes.items())]
        found = {"leaks": self.leaks, "effects": self.effects, "failures": self.failures}
        return {"calls": self.calls, **found, "codes": codes}

    def add(self, row: dict[str, Any]) -> None:
        """Count one route's row in."""
        self.calls += row["calls"]
        for kind in ("leaks", "effects", "failures"):
            getattr(self, kind).extend(row[kind])
        self.codes.update({(who, status): count for who, status, count in row["codes"]})

    def table(self) -> str:
        """For people."""
        who = sorted({name for name, _ in self.codes})
        lines = [
            f"{self.routes} routes and methods, {self.calls} calls; Ada saw her own things on {self.own} of them"
        ]
        lines += [f"{'who':28s} {'calls':>7s} {'2xx':>6s} {'3xx':>6s} {'4xx':>6s} {'5xx':>6s}"]
        for name in who:
            count = Counter({s: sum(n for (w, code), n in self.codes.items() if w == name and code // 100 == s)
                             for s in range(6)})  # fmt: skip
            lines.append(
                f"{name:28s} {count.total():7d} {count[2]:6d} {count[3]:6d} {count[4]:6d} {count[5] + count[0]:6d}"
            )
        for title in ("leaks", "effects", "failures", "blind"):
            found = getattr(self, title)
            lines += [f"{title}: {len(found)}", *(f"  {line}" for line in found[:40])]
        return "\n".join(lines)


# -- the stage ------------------------------------------------------------------------------------------------------


def visitor(house: Application, name: str) -> Person:
    """Somebody new, with the cookie that the first answer brings."""
    return Person(name, house.ask("GET", "/api/jobs").cookies)


def set_up(house: Application, services: Services) -> Stage:
    """Ada's things, and the others."""
    ada, bob = visitor(house, "ada"), visitor(house, "another visitor")
    mark = secrets.token_hex(16)
    prompt = f"mark{mark}"[:90]
    done, waiting, paused = (_submitted(house, ada, prompt) for _ in range(3))
    house.ask("POST", f"/api/jobs/{paused}/pause", cookies=ada.cookies)
    with services.db.transaction() as connection:  # so that the worker's claim is the first of the three
        connection.execute("UPDATE job SET rank = rank - 1e6 WHERE id = ?", (done,))
    picture = _finish(services, done, mark)
    running = _submitted(house, ada, prompt)
    preview = _running(services, running, mark)
    link, revoked, second = (_link(house, ada, job) for job in (done, waiting, running))
    house.ask("DELETE", f"/api/shares/{revoked}", cookies=ada.cookies)
    uploaded = json_of(house, "POST", "/api/uploads?name=mine.png", ada, body=_picture(mark, 1))["sha256"]
    brought = _brought(house, ada, mark)
    theirs = _submitted(house, bob, "bobs own picture")
    owner = ada.cookies[COOKIE].rpartition(".")[0]
    others = _others(house, services, bob, owner)
    return Stage(
        house=house,
        services=services,
        ada=ada,
        others=others,
        values=_values(done, waiting, running, paused, picture, uploaded, preview, link, revoked, brought),
        marks=_marks(
            mark, owner, (done, waiting, running, paused), (picture, uploaded), (link, revoked, second), brought
        ),
        pages=house.ask("GET", "/config").json(),
        revoked=revoked,
        foreign_link=_link(house, bob, theirs),
    )


def json_of(house: Application, method: str, target: str, person: Person, **more: Any) -> Any:
    """The answer's JSON; stops with it where it is a refusal."""
    answer = house.ask(method, target, cookies=person.cookies, **more)
    assert answer.status // 100 == 2, (method, target, answer.status, answer.body[:300])
    return answer.json()


def _submitted(house: Application, person: Person, prompt: str) -> str:
    body = {"engine": ENGINE, "params": {"prompt": prompt}}
    return str(json_of(house, "POST", "/api/jobs", person, data=body)["id"])


def _link(house: Application, person: Person, job: str) -> str:
    return str(json_of(house, "POST", f"/api/jobs/{job}/shares", person)["token"])


def _picture(mark: str, number: int) -> bytes:
    """A small PNG with the mark in a text of its own."""
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text, buffer = PngInfo(), io.BytesIO()
    text.add_text("mark", f"picture{number}-{mark}")
    Image.new("L", (8, 8), number).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _finish(services: Services, job_id: str, mark: str) -> str:
    """What a worker does: a picture, numbers, a manifest; the hash of the picture."""
    from studio.artifacts import write_metrics, write_output

    job = services.jobs.claim("stage", "cpu")
    assert job is not None
    assert job.id == job_id
    sha = services.artifacts.put(_picture(mark, 2), media_type="image/png")
    with services.db.transaction() as connection:
        write_output(connection, job_id, f"{mark}.png", "image", sha, {"role": "method", "title": f"title{mark}"})
        write_metrics(connection, job_id, f"{mark}.png", {"mean": 1.5})
    services.artifacts.write_manifest(job_id, {"format": 1, "engine": ENGINE, "params": job.params})
    services.jobs.succeed(job_id, "stage")
    return sha


def _running(services: Services, job_id: str, mark: str) -> str:
    """A job in a worker's hands, with a preview; the number of the preview."""
    with services.db.transaction() as connection:
        connection.execute("UPDATE job SET rank = rank - 1e6 WHERE id = ?", (job_id,))
    job = services.jobs.claim("stage", "cpu")
    assert job is not None
    assert job.id == job_id
    services.artifacts.save_preview(job_id, 1, _picture(mark, 3))
    services.jobs.progress(job_id, "stage", {"step": 1, "total": 2, "message": f"doing{mark}", "preview": 1})
    return "1"


def _brought(house: Application, ada: Person, mark: str) -> str:
    """A file that Ada dropped on a page: its path in the framework's folder."""
    edge = "edge" + secrets.token_hex(8)
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="mine.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + _picture(mark, 4) + f"\r\n--{edge}--\r\n".encode()  # fmt: skip
    headers = {"content-type": f"multipart/form-data; boundary={edge}"}
    return str(json_of(house, "POST", "/gradio_api/upload", ada, body=body, headers=headers)[0])


def _others(house: Application, services: Services, bob: Person, owner: str) -> list[Person]:
    """Nobody, another visitor, forgers, somebody with an account, and those whose account or session has ended."""
    accounts, signed = services.accounts, AnonymousCookie(b"another secret, as long as ours is")
    carla, dave = (services.accounts.begin(f"user:{name}", name) for name in ("carla", "dave"))
    accounts.end(dave)
    stolen = load_secret(services.settings)
    wrong = AnonymousCookie(stolen[:-1] + b"x")
    return [
        Person("nobody"),
        bob,
        Person("forger: name only", {COOKIE: owner}),
        Person("forger: bad signature", {COOKIE: f"{owner}.{'A' * 43}"}),
        Person("forger: another secret", {COOKIE: _sign(signed, owner)}),
        Person("forger: nearly our secret", {COOKIE: _sign(wrong, owner)}),
        Person("forger: owner as session", {SESSION_COOKIE: owner}),
        Person("account", {SESSION_COOKIE: carla}),
        Person("ended session", {SESSION_COOKIE: dave}),
    ]


def _sign(cookie: AnonymousCookie, owner: str) -> str:
    return cookie._signer.sign(owner).decode()


def _values(
    done: str,
    waiting: str,
    running: str,
    paused: str,
    picture: str,
    uploaded: str,
    preview: str,
    link: str,
    revoked: str,
    brought: str,
) -> dict[str, list[str]]:
    """What is tried for each part of a path. A part that is not here stops the harness: tell it what to try."""
    jobs, shas = [done, waiting, running, paused], [picture, uploaded]
    half = link[: len(link) // 2]
    return {
        "job_id": jobs,
        "sha": shas,
        "token": [revoked, half, link[:-1], link.swapcase(), f"{link[:8]}{'A' * 24}", "%", "*"],
        "seq": [preview, "0", "-1"],
        "name": [ENGINE, *shas],
        "kind": ["jobs", "gallery", "all", *jobs],
        "folder": ["css", "..", "files"],
        "rest": [f"jobs/{done}", picture, f"{picture}/..", "../files", f"lists/{done}"],
        # of the pages' framework
        "path": [brought, brought.lstrip("/"), "../atelier.db", picture],
        "path_or_url": [brought, f"{brought}/", f"/{brought}", f"//localhost{brought}", f"file://{brought}"],
        "url_path": [f"http://127.0.0.1{brought}"],
        "api_name": ["opened", "submit", "from_file", "predict"],
        "event_id": [done],
        "session_hash": ["ada", done],
        "run": ["1"],
        "component_id": ["1"],
        "segment_id": ["1"],
        "ext": ["ts"],
        "page": ["jobs"],
        "key": [done],
        "size": ["1"],
        "id": ["x"],
        "environment": ["server"],
        "type": ["component"],
        "file_name": [done],
        "endpoint": [done],
        "record_id": [done],
        "asset_id": [picture],
    }


def _marks(
    mark: str, owner: str, jobs: tuple[str, ...], shas: tuple[str, ...], links: tuple[str, ...], brought: str
) -> dict[str, bytes]:
    texts = {"mark": mark, "owner": owner, "path of her upload": brought}
    texts |= {f"job {number}": job for number, job in enumerate(jobs)}
    texts |= {f"file {number}": sha for number, sha in enumerate(shas)}
    texts |= {f"link {number}": link for number, link in enumerate(links)}
    return {what: text.encode() for what, text in texts.items()}


# -- the calls ------------------------------------------------------------------------------------------------------


def targets(stage: Stage, route: Route, generator: random.Random) -> list[str]:
    """Paths of a route with Ada's values, and some of them in other spellings."""
    unknown = [part for part in route.parts if part not in stage.values]
    assert not unknown, f"{route.template}: tell benchmarks/access_matrix.py what to try for {unknown}"
    filled = [
        route.filled(dict(zip(route.parts, chosen, strict=True)))
        for chosen in itertools.product(*(stage.values[part] for part in route.parts))
    ]
    if ONCE.search(route.template):
        return filled[:1]
    queries = [f"?job={stage.values['job_id'][0]}"]
    if not route.template.startswith("/gradio_api/"):
        queries += ["", f"?t={stage.revoked}", f"?t={stage.foreign_link}"]
    made = [path + query for path in filled for query in queries]
    return made + [spelled(path, generator) for path in filled]


def spelled(path: str, generator: random.Random) -> str:
    """The same path as somebody writes it who hopes that two readers of it disagree."""
    ways = (
        lambda text: text + "/",
        lambda text: text.replace("/", "//", 2),
        lambda text: "/." + text,
        lambda text: "/x/.." + text,
        lambda text: "".join(f"%{ord(letter):02x}" if letter.isalnum() else letter for letter in text),
        lambda text: text.replace("/", "%2f", 3).replace("%2f", "/", 1),
        lambda text: text + "%00",
        lambda text: text + ";.png",
        lambda text: text + "?download=x.png",
        lambda text: text.upper(),
        lambda text: text + "%20",
    )
    return generator.choice(ways)(path)


def bodies(stage: Stage, route: Route, generator: random.Random) -> list[tuple[dict[str, str], Any]]:
    """(headers, JSON body) for a route; several where a body can name somebody's things."""
    done, *_ = stage.values["job_id"]
    picture, uploaded = stage.values["sha"]
    if route.method not in WRITES:
        return [({}, None), (EVENTS, None)] if route.template.endswith("/events") else [({}, None)]
    if route.template.startswith("/gradio_api/") and ("api_name" in route.parts or "queue/join" in route.template):
        named = {"path": stage.values["path"][0], "meta": {"_type": "gradio.FileData"}}
        kept = str(stage.services.artifacts.home / "results" / done / "manifest.json")
        made = []
        for entry in stage.pages["dependencies"]:
            for value in (done, picture, named, {**named, "path": kept}):
                data = [value] * len(entry["inputs"])
                made.append(({}, {"fn_index": entry["id"], "data": data, "session_hash": "eve"}))
        return generator.sample(made, min(4, len(made)))
    if route.template == "/api/jobs":
        return [({}, {"engine": ENGINE, "params": {"picture": sha}}) for sha in (picture, uploaded)]
    if route.template.endswith("/priority"):
        return [({}, {"priority": 9})]
    return [({}, {})]


def own_call(stage: Stage, route: Route, report: Report) -> None:
    """Ada calls a reading route with her own things: what she sees is what others must not."""
    if route.method != "GET" or ONCE.search(route.template):
        return
    live = {**stage.values, "token": _live_links(stage)}
    seen, named = False, False
    for chosen in itertools.product(*(live.get(part, ["x"]) for part in route.parts)):
        target = route.filled(dict(zip(route.parts, chosen, strict=True)))
        answer = stage.house.ask("GET", target, cookies=stage.ada.cookies)
        found = stage.seen(answer, "")
        seen, named = seen or bool(found), True
    report.own += seen
    about = {"job_id", "sha", "token", "path_or_url"} & set(route.parts)
    if named and not seen and about and not route.template.startswith(("/gradio_api/proxy", "/api/{")):
        report.blind.append(f"GET {route.template}")


def _live_links(stage: Stage) -> list[str]:
    """Ada's links that still open."""
    found = (stage.services.shares.for_job(job, stage.owner) for job in stage.values["job_id"])
    return [share.token for shares in found for share in shares]


def try_route(stage: Stage, route: Route, generator: random.Random, report: Report, most: int = 10_000) -> None:
    """Everybody else calls a route with Ada's things, each with at most so many paths."""
    before = stage.snapshot()
    for person in stage.others:
        paths = targets(stage, route, generator)
        for target in generator.sample(paths, min(most, len(paths))):
            for headers, body in bodies(stage, route, generator):
                answer = stage.house.ask(route.method, target, headers=headers, cookies=person.cookies, data=body)
                if route == Route("POST", "/api/jobs") and answer.status == 201:
                    forget(stage, answer.json()["id"])
                report.calls += 1
                report.codes[person.name, answer.status] += 1
                told = f"{person.name}: {route.method} {target} -> {answer.status}"
                if found := stage.seen(answer, target + json.dumps(body)):
                    report.leaks.append(f"{told} shows {', '.join(found)}")
                if not 100 < answer.status < 500:
                    report.failures.append(f"{told} {answer.crash!r}")
        if (after := stage.snapshot()) != before:
            changed = [name for name in before if before[name] != after[name]]
            report.effects.append(f"{person.name}: {route.method} {route.template} changed {changed}")
            before = after


def forget(stage: Stage, job: str) -> None:
    """Drop a job of somebody else that names Ada's files: their own lists would repeat what they sent."""
    with stage.services.db.transaction() as connection:
        connection.execute("DELETE FROM job WHERE id = ? AND owner <> ?", (job, stage.owner))


def run(stage: Stage, app: Any, seed: int, *, rounds: int = 1, most: int = 10_000, out: Path | None = None) -> Report:
    """All routes, `rounds` times in other spellings; at most so many paths of each where time is short.

    Rows in `out` are not done again; each route is added there as soon as it is done.
    """
    report, routes = Report(), list(dict.fromkeys(routes_of(app)))
    report.routes = len(routes)
    for route in routes:
        own_call(stage, route, report)
    done = {row["route"]: row for row in read_rows(out)}
    for turn, route in itertools.product(range(rounds), routes):
        name = f"{turn} {route.method} {route.template}"
        if name not in done:
            part = Report()
            try_route(stage, route, random.Random(f"{seed} {name}"), part, most)
            done[name] = {"route": name, **part.as_row()}
            if out:
                append_row(out, done[name])
        report.add(done[name])
    return report


def main() -> int:
    """Print the table; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--most", type=int, default=10_000, help="paths tried for each route and person")
    parser.add_argument("--out", type=Path, help="a line of JSON for each route; an old file is gone on with")
    options = parser.parse_args()
    from app import create_app

    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home), engines=("tests.quick_engine",), disk_reserve=0, rate_per_minute=10**9, waiting_cap=10**6
        )
        services = open_services(settings)
        app = create_app(services)
        with Application(app) as house:
            stage = set_up(house, services)
            report = run(stage, app, options.seed, rounds=options.rounds, most=options.most, out=options.out)
        services.close()
    print(report.table())
    return int(bool(report.leaks or report.effects or report.failures or report.blind))


if __name__ == "__main__":
    sys.exit(main())
