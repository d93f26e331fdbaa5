"""Owners: the secret, the cookie and its signature, who gets one, and the way in for other ways to log in."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.errors import StoreUnavailable
from studio.identity import COOKIE, AnonymousCookie, OwnerMiddleware, load_secret, owner_of
from studio.settings import Settings

SECRET = b"s" * 40


def page(request: Request) -> Response:
    return HTMLResponse(owner_of(request))


def data(request: Request) -> Response:
    return JSONResponse({"owner": owner_of(request), "newcomer": request.scope["state"]["newcomer"]})


def visitor(*recognisers: Any, base_url: str = "http://testserver") -> TestClient:
    routes = [Route(path, data) for path in ("/api/x", "/files/x", "/r/x", "/static.css")] + [Route("/", page)]
    app = Starlette(routes=routes)
    app.add_middleware(OwnerMiddleware, cookie=AnonymousCookie(SECRET), recognisers=recognisers)
    return TestClient(app, base_url=base_url)


def test_secret_is_made_once_for_its_user_alone(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    first = load_secret(settings)
    assert len(first) >= 32
    assert load_secret(settings) == first
    assert stat.S_IMODE((settings.home / "secret").stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["secret"]


def test_a_secret_others_could_read_is_closed(tmp_path: Path):
    settings = Settings(home=tmp_path)
    load_secret(settings)
    (tmp_path / "secret").chmod(0o644)
    load_secret(settings)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_secret_of_the_environment_comes_first_and_is_not_shown(tmp_path: Path):
    settings = Settings(home=tmp_path, secret="x" * 40)
    assert load_secret(settings) == b"x" * 40
    assert not (tmp_path / "secret").exists()
    assert "xxx" not in repr(settings)


@pytest.mark.parametrize("content", ["", "short"])
def test_a_damaged_secret_is_refused_with_a_sentence(tmp_path: Path, content: str):
    (tmp_path / "secret").write_text(content)
    with pytest.raises(StoreUnavailable, match="too short"):
        load_secret(Settings(home=tmp_path))


def test_a_visitor_is_the_same_owner_again():
    client = visitor()
    first = client.get("/").text
    assert first.startswith("anon:")
    assert client.get("/api/x").json() == {"owner": first, "newcomer": False}


def test_two_visitors_are_two_owners():
    assert visitor().get("/").text != visitor().get("/").text


def test_the_cookie_cannot_be_forged():
    client = visitor()
    mine = client.get("/").text
    for forged in (mine, mine + ".AAAA", "anon:root", "", "%FF", "."):
        stranger = visitor()
        stranger.cookies.set(COOKIE, forged)
        assert stranger.get("/api/x").json()["owner"] != mine


def test_a_cookie_of_another_secret_is_worth_nothing():
    owner, signed = AnonymousCookie(b"t" * 40).issue()
    client = visitor()
    client.cookies.set(COOKIE, signed)
    assert client.get("/api/x").json()["owner"] != owner


def test_the_cookie_is_kept_from_scripts_and_other_sites():
    line = visitor().get("/").headers["set-cookie"]
    assert "HttpOnly" in line
    assert "SameSite=Lax" in line
    assert "Secure" not in line
    assert "Secure" in visitor(base_url="https://testserver").get("/").headers["set-cookie"]


@pytest.mark.parametrize("path", ["/files/x", "/r/x", "/static.css"])
def test_files_and_share_links_leave_no_cookie(path: str):
    assert "set-cookie" not in visitor().get(path).headers


def test_a_login_comes_before_the_cookie():
    class Header:
        def owner(self, connection: HTTPConnection) -> str | None:
            name = connection.headers.get("x-user")
            return f"local:{name}" if name else None

    client = visitor(Header())
    answer = client.get("/api/x", headers={"x-user": "ada"})
    assert answer.json() == {"owner": "local:ada", "newcomer": False}
    assert "set-cookie" not in answer.headers
    assert client.get("/api/x").json()["owner"].startswith("anon:")
