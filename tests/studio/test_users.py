"""The command `users`: accounts made, changed and removed beside a running server."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from studio import accounts, users
from studio.__main__ import main
from studio.services import Services, open_services
from studio.settings import Settings
from tests.studio.conftest import CHEAP
from tests.studio.test_accounts import PASSWORD


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    monkeypatch.setattr(accounts.Accounts.__init__, "__kwdefaults__", {"cost": CHEAP})
    return open_services(Settings(home=tmp_path))


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_an_account_is_made_listed_changed_and_removed(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    typed(monkeypatch, PASSWORD + "\n")
    assert main(["users", "add", "Ada", "--password-stdin"]) == 0
    ada = services.accounts.log_in("ada", PASSWORD)
    session = services.accounts.begin(ada.owner, "ada")
    job = services.jobs.submit("e", {}, owner=ada.owner)
    typed(monkeypatch, "another one\n")
    assert main(["users", "passwd", "ada", "--password-stdin"]) == 0
    assert services.accounts.session(session) is None
    assert main(["users"]) == 0
    assert "ada" in capsys.readouterr().out
    assert main(["users", "remove", "ada"]) == 0
    assert "1 open jobs cancelled" in capsys.readouterr().out
    assert services.jobs.get(job.id).state == "cancelled"
    assert services.accounts.list() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add"], "needs a name"),
        (["add", "a b"], "cannot be used"),
        (["remove", "nobody"], "There is no account"),
        (["passwd", "nobody"], "There is no account"),
        (["add", "ada", "--password-stdin"], "A password of 5 characters"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
):
    typed(monkeypatch, "short\n")
    assert main(["users", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_password_is_typed_twice(services: Services, capsys: pytest.CaptureFixture[str]):
    from studio.__main__ import _parser
    from studio.errors import InvalidInput

    answers = iter([PASSWORD, PASSWORD, PASSWORD, "a different one"])
    options = _parser().parse_args(["users", "add", "ada"])
    assert users.users(services.settings, options, ask=lambda _: next(answers)) == 0
    with pytest.raises(InvalidInput, match="differ"):
        users.users(services.settings, _parser().parse_args(["users", "add", "bob"]), ask=lambda _: next(answers))
    assert [account.name for account in services.accounts.list()] == ["ada"]
