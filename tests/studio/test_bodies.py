"""Bodies: how large they may be, and that pages get only those files their sender brought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.bodies import MAX_BODY, Bodies, Brought, named_files
from studio.errors import StoreUnavailable
from studio.identity import AnonymousCookie, OwnerMiddleware
from tests.studio.conftest import FakeClock
from tests.studio.site import ENGINE, Site

META = {"_type": "gradio.FileData"}


class Framework:
    """What the pages' framework does with files, in a few lines: keeps them, takes them, gives them back."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.room = True
        routes = [
            Route("/gradio_api/upload", self.upload, methods=["POST"]),
            Route("/gradio_api/run/{name}", self.run, methods=["POST"]),
            Route("/gradio_api/file={path:path}", self.file),
            Route("/api/jobs", self.echo, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)
        self.app.add_middleware(Bodies, upload_bytes=2**20, check_room=self.check_room)
        self.app.add_middleware(OwnerMiddleware, cookie=AnonymousCookie(b"s" * 40))

    def visitor(self) -> TestClient:
        client = TestClient(self.app)
        client.get("/gradio_api/file=/none")  # brings the cookie
        return client

    def check_room(self) -> None:
        if not self.room:
            raise StoreUnavailable("The disk is full.", "Free some.")

    async def upload(self, request: Request) -> Response:
        data = await request.body()
        return JSONResponse([f"/tmp/gradio/{len(data)}/a b.png"])

    async def run(self, request: Request) -> Response:
        tree = await request.json()
        self.seen.append(tree)
        return JSONResponse({"data": [{"path": "/tmp/gradio/made/result.png", "meta": META}]})

    async def echo(self, request: Request) -> Response:
        return JSONResponse({"bytes": len(await request.body())})

    async def file(self, request: Request) -> Response:
        return Response(request.path_params["path"])


@pytest.fixture
def framework() -> Framework:
    return Framework()


def brought(visitor: TestClient, size: int = 5) -> str:
    return str(visitor.post("/gradio_api/upload", content=b"x" * size).json()[0])


def told(visitor: TestClient, path: Any) -> int:
    tree = {"fn_index": 3, "data": [{"deep": [{"path": path, "meta": META}]}]}
    return visitor.post("/gradio_api/run/predict", json=tree).status_code


def test_a_visitor_may_use_what_they_brought(framework: Framework):
    ada = framework.visitor()
    path = brought(ada)
    assert told(ada, path) == 200
    assert len(framework.seen) == 1
    assert ada.get(f"/gradio_api/file={path}").text == path


def test_nobody_else_may(framework: Framework):
    path, eve = brought(framework.visitor()), framework.visitor()
    assert told(eve, path) == 403
    assert eve.get(f"/gradio_api/file={path}").status_code == 404
    assert not framework.seen, "the page's handler never hears of it"
    assert brought(eve) == path
    assert told(eve, path) == 200, "equal bytes lie under one path, and then both have brought them"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "http://127.0.0.1:9/x.png", "https://example.org/x", "../../secret", "", "file:///etc/passwd"],
)
def test_no_other_file_and_no_address_is_taken(framework: Framework, path: str):
    assert told(framework.visitor(), path) == 403
    assert not framework.seen


def test_a_file_that_an_answer_shows_may_be_fetched(framework: Framework):
    ada, eve = framework.visitor(), framework.visitor()
    ada.post("/gradio_api/run/predict", json={"data": []})
    assert ada.get("/gradio_api/file=/tmp/gradio/made/result.png").status_code == 200
    assert eve.get("/gradio_api/file=/tmp/gradio/made/result.png").status_code == 404


def test_a_text_that_looks_like_a_file_is_a_text(framework: Framework):
    ada = framework.visitor()
    text = json.dumps({"path": "/etc/passwd", "meta": META})
    assert ada.post("/gradio_api/run/predict", json={"data": [text]}).status_code == 200
    assert ada.get("/gradio_api/file=/etc/passwd").status_code == 404


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN', b"9" * 5000, b'"\\ud800"'])
def test_what_cannot_be_read_is_a_sentence(framework: Framework, body: bytes):
    answer = framework.visitor().post("/gradio_api/run/predict", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].endswith(".")


def test_large_bodies_are_refused_wherever_they_go(framework: Framework):
    ada = framework.visitor()
    for path in ("/api/jobs", "/gradio_api/run/predict"):
        assert ada.post(path, content=b" " * (MAX_BODY + 1)).status_code == 413
        assert ada.post(path, content=iter([b" " * 1000] * 2000)).status_code == 413, (
            "nor does hiding the length help"
        )
    assert ada.post("/api/jobs", content=b" " * MAX_BODY).json() == {"bytes": MAX_BODY}


def test_forms_are_bounded_by_their_length(framework: Framework):
    ada = framework.visitor()
    assert ada.post("/gradio_api/upload", content=b"x" * (5 * 2**20)).status_code == 200
    assert ada.post("/gradio_api/upload", content=b"x" * (5 * 2**20 + 1)).status_code == 413
    assert ada.post("/gradio_api/upload", content=iter([b"x"])).status_code == 422
    framework.room = False
    assert ada.post("/gradio_api/upload", content=b"x").status_code == 503


def test_the_oldest_files_are_forgotten():
    kept = Brought(keep=2)
    for path in ("a", "b", "c"):
        kept.add("ada", path)
    assert [kept.by("ada", path) for path in ("a", "b", "c")] == [False, True, True]


def test_files_are_found_however_deep():
    tree: Any = {"path": "x"}
    for _ in range(50_000):
        tree = [tree]
    assert list(named_files(tree)) == ["x"]
    assert list(named_files({"path": {"path": ["y"]}})) == []


def test_huge_json_is_refused_by_the_api(tmp_path: Path, clock: FakeClock):
    ada = Site(tmp_path, clock).visitor()
    answer = ada.post("/api/jobs", json={"engine": ENGINE, "params": {"prompt": "x" * MAX_BODY}})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
