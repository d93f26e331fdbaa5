"""The hub's login against a provider of our own: what is sent there, what comes back, and what is refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from studio import hub_login
from studio.hub_login import HubLogin, HubUnavailable, fetch_json
from tests.studio.conftest import FakeClock
from tests.studio.site import Site


class Provider:
    """Gives a token for the code it gave, if the verifier fits the challenge."""

    def __init__(self) -> None:
        self.challenge = ""
        self.asked: list[str] = []
        self.person: Any = {"sub": "42", "preferred_username": "grace"}

    def authorize(self, address: str) -> dict[str, str]:
        """What the visitor brings back after saying yes."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert query["response_type"] == "code"
        assert query["client_id"] == "client"
        assert query["redirect_uri"] == "http://testserver/account/back"
        self.challenge = query["code_challenge"]
        return {"code": "the-code", "state": query["state"]}

    def __call__(self, address: str, form: Mapping[str, str] | None, headers: Mapping[str, str]) -> Any:
        self.asked.append(address)
        if form is None:
            assert headers["authorization"] == "Bearer the-token"
            return self.person
        assert headers["authorization"] == "Basic " + base64.b64encode(b"client:hidden").decode()
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        right = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == self.challenge
        return {"access_token": "the-token"} if right and form["code"] == "the-code" else {"error": "invalid_grant"}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider()
    monkeypatch.setattr(hub_login, "fetch_json", made)
    return made


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock, provider: Provider) -> Site:
    return Site(tmp_path / "home", clock, hub_client="client", hub_secret="hidden", hub="https://hub.example/")


def begun(visitor: TestClient, provider: Provider) -> dict[str, str]:
    answer = visitor.get("/account/elsewhere", headers={"accept": "text/html"})
    assert answer.status_code == 303
    address = answer.headers["location"]
    assert address.startswith("https://hub.example/oauth/authorize?")
    return provider.authorize(address)


def arrived(site: Site) -> TestClient:
    """Somebody who has seen the page, and so has a cookie."""
    visitor = site.visitor()
    assert "Log in with Hugging Face" in visitor.get("/account", headers={"accept": "text/html"}).text
    return visitor


def test_somebody_comes_back_from_the_hub(site: Site, provider: Provider):
    visitor = arrived(site)
    job = site.submit(visitor)["id"]
    back = visitor.get("/account/back", params=begun(visitor, provider))
    assert back.status_code == 303
    assert visitor.get("/account/state").json()["name"] == "grace"
    assert provider.asked == ["https://hub.example/oauth/token", "https://hub.example/oauth/userinfo"]
    assert site.services.jobs.get(job).owner == "hf:42"
    assert "Change the password" not in visitor.get("/account", headers={"accept": "text/html"}).text


def test_a_login_begun_by_somebody_else_is_refused(site: Site, provider: Provider, clock: FakeClock):
    eve, ada = arrived(site), arrived(site)
    theirs = begun(eve, provider)
    for query in (theirs, {**theirs, "state": ""}, {"code": "x"}, {"state": theirs["state"]}):
        answer = ada.get("/account/back", params=query)
        assert answer.status_code == 422
        assert "not begun here" in answer.text
    assert ada.get("/account/state").json()["name"] is None
    assert provider.asked == []


def test_a_hub_that_answers_nonsense_is_a_sentence(site: Site, provider: Provider):
    visitor = arrived(site)
    for person in ({}, [], {"sub": 3, "preferred_username": "x"}, None):
        provider.person = person
        answer = visitor.get("/account/back", params=begun(visitor, provider))
        assert answer.status_code == 502
        assert "Hugging Face answered" in answer.text
    query = begun(visitor, provider)
    assert visitor.get("/account/back", params={**query, "code": "another"}).status_code == 502


def test_a_hub_that_cannot_be_reached_is_a_sentence():
    with pytest.raises(HubUnavailable, match="did not confirm"):
        fetch_json("http://127.0.0.1:9/oauth/token", {"code": "x"}, {})


def test_without_a_client_there_is_no_such_login(tmp_path: Path, clock: FakeClock):
    answer = Site(tmp_path, clock).visitor().get("/account/elsewhere")
    assert answer.status_code == 404


def test_a_space_comes_back_to_its_public_name():
    login = HubLogin("https://hub.example", "client", "hidden", b"s" * 40, "me-atelier.hf.space")
    address = login.address(None, "anon:1")  # type: ignore[arg-type]
    assert parse_qs(urlsplit(address).query)["redirect_uri"] == ["https://me-atelier.hf.space/account/back"]
