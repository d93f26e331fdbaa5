"""Logging in with an account of the Hugging Face hub: OAuth 2 with PKCE, as a Space offers it to the app inside.

A Space with `hf_oauth: true` sets client, secret and provider; without them there is no such login. The visitor goes
to the hub and comes back with a code, which this server exchanges for the account's id. Only the provider named in
the settings is ever asked, and nothing but id and name is kept. Knows no session; studio.door begins one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from itsdangerous import BadSignature, TimestampSigner
from starlette.requests import Request

from studio.errors import AtelierError, InvalidInput
from studio.identity import sha256
from studio.services import Services

HUB_FRAMES = ("https://huggingface.co", "https://*.hf.space")  # a Space is shown in a frame of the hub's page
STATE_AGE_S = 600
TIMEOUT_S = 15
MOST = 2**16  # bytes of an answer of the provider

log = logging.getLogger("atelier.hub")
Fetch = Callable[[str, Mapping[str, str] | None, Mapping[str, str]], Any]  # (address, form, headers) -> JSON


class HubUnavailable(AtelierError):
    """The other place does not answer, or not as it should."""

    code = "hub_unavailable"
    http_status = 502


def hub_login(services: Services, secret: bytes) -> HubLogin | None:
    """The login, if the settings name a client."""
    settings = services.settings
    if not (settings.hub_client and settings.hub_secret):
        return None
    return HubLogin(settings.hub.rstrip("/"), settings.hub_client, settings.hub_secret, secret, settings.space)


class HubLogin:
    """`studio.door.ElsewhereLogin` for the hub. `fetch` asks the provider."""

    title = "Hugging Face"

    def __init__(
        self,
        provider: str,
        client: str,
        client_secret: str,
        secret: bytes,
        space: str = "",
        fetch: Fetch | None = None,
    ) -> None:
        self.provider, self.client, self.client_secret, self.space = provider, client, client_secret, space
        self.fetch = fetch or fetch_json
        self._secret = secret
        self._signer = TimestampSigner(secret, salt="atelier.hub", key_derivation="hmac", digest_method=sha256)

    def address(self, request: Request, owner: str) -> str:
        """The hub's page that asks the visitor; what it sends back is bound to `owner`."""
        state = self._signer.sign(owner).decode()
        query = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": self._back(request),
            "scope": "openid profile",
            "state": state,
            "code_challenge": _unpadded(hashlib.sha256(self._verifier(state).encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{self.provider}/oauth/authorize?{urllib.parse.urlencode(query)}"

    def finish(self, request: Request, owner: str) -> tuple[str, str]:
        """(owner, name) of the hub's account. Raises InvalidInput for a stale or foreign answer, HubUnavailable."""
        state, code = request.query_params.get("state", ""), request.query_params.get("code", "")
        try:
            bound = self._signer.unsign(state, max_age=STATE_AGE_S).decode()
        except (BadSignature, UnicodeError):
            bound = ""
        if bound != owner or not code:
            raise InvalidInput("This login was not begun here, or too long ago.", "Begin it again.")
        form = {
            "grant_type": "authorization_code",
            "code": code[:2000],
            "redirect_uri": self._back(request),
            "client_id": self.client,
            "code_verifier": self._verifier(state),
        }
        basic = base64.b64encode(f"{self.client}:{self.client_secret}".encode()).decode()
        granted = self.fetch(f"{self.provider}/oauth/token", form, {"authorization": f"Basic {basic}"})
        token = {"authorization": f"Bearer {_text(granted, 'access_token')}"}
        person = self.fetch(f"{self.provider}/oauth/userinfo", None, token)
        return f"hf:{_text(person, 'sub')[:100]}", _text(person, "preferred_username")[:100]

    def _back(self, request: Request) -> str:
        """The address of ours that the hub sends the visitor back to; it must be one of those registered there."""
        base = f"https://{self.space}" if self.space else str(request.base_url).rstrip("/")
        return f"{base}/account/back"

    def _verifier(self, state: str) -> str:
        """PKCE's secret of one login: ours to compute again, nobody else's to guess."""
        return _unpadded(hmac.new(self._secret, b"pkce:" + state.encode(), hashlib.sha256).digest())


def fetch_json(address: str, form: Mapping[str, str] | None, headers: Mapping[str, str]) -> Any:
    """JSON of the provider; with `form` by POST. Raises HubUnavailable."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    try:
        asked = urllib.request.Request(address, data, dict(headers))  # noqa: S310 - the operator's own address
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read(MOST))
    except (OSError, ValueError, urllib.error.URLError) as error:
        log.warning("the login at %s failed: %s", urllib.parse.urlsplit(address).netloc, error)
        raise HubUnavailable("Hugging Face did not confirm the login.", "Try again in a moment.") from error


def _text(tree: Any, name: str) -> str:
    found = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(found, str) or not found:
        raise HubUnavailable("Hugging Face answered in a way this server does not know.", "Try again in a moment.")
    return found


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
