"""Accounts and sessions: passwords that are kept as hashes, sessions that end, and jobs that come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.accounts import SESSION_S, TOUCH_S, Accounts, LoginRefused
from studio.artifacts import Artifacts
from studio.db import Database
from studio.errors import InvalidInput, NotFound
from studio.jobs import Jobs
from studio.shares import Shares
from tests.studio.conftest import CHEAP, FakeClock

PASSWORD = "a horse, a staple"


@pytest.fixture
def accounts(db: Database, clock: FakeClock) -> Accounts:
    return Accounts(db, clock, cost=CHEAP)


def test_a_password_opens_its_account_only(accounts: Accounts):
    ada, bob = accounts.add("Ada", PASSWORD), accounts.add("bob", PASSWORD + "!")
    assert accounts.log_in(" ADA ", PASSWORD) == ada
    assert ada.owner != bob.owner
    assert ada.owner.startswith("user:")
    for name, password in (("bob", PASSWORD), ("ada", ""), ("ada", PASSWORD + " "), ("nobody", PASSWORD), ("", "")):
        with pytest.raises(LoginRefused, match="The name or the password is wrong"):
            accounts.log_in(name, password)


def test_the_store_holds_no_password_and_no_token(accounts: Accounts, db: Database):
    ada = accounts.add("ada", PASSWORD)
    other = accounts.add("bob", PASSWORD)
    token = accounts.begin(ada.owner, ada.name)
    db.close()
    kept = b"".join(path.read_bytes() for path in Path(db.path).parent.glob("atelier.db*"))
    assert PASSWORD.encode() not in kept
    assert token.encode() not in kept
    with db.read() as connection:
        hashes = [row["password"] for row in connection.execute("SELECT password FROM account")]
    assert len(set(hashes)) == 2, f"equal passwords of {ada.name} and {other.name} look different"


def test_equal_letters_are_equal_passwords(accounts: Accounts):
    accounts.add("ada", "cafe\u0301 au lait")
    accounts.log_in("ada", "caf\u00e9 au lait")


@pytest.mark.parametrize("name", ["", " ", "-x", "a b", "a/b", "x" * 33, "ädä", "<b>", "a\ud800"])
def test_a_name_that_cannot_be_used_is_refused(accounts: Accounts, name: str):
    with pytest.raises(InvalidInput) as refused:
        accounts.add(name, PASSWORD)
    assert refused.value.field == "name"


@pytest.mark.parametrize("password", ["", "7 chars", "x" * 1025])
def test_a_password_that_cannot_be_used_is_refused(accounts: Accounts, password: str):
    with pytest.raises(InvalidInput) as refused:
        accounts.add("ada", password)
    assert refused.value.field == "password"
    assert accounts.list() == []


def test_a_name_is_given_once_and_means_somebody_new_after_that(accounts: Accounts):
    first = accounts.add("ada", PASSWORD)
    with pytest.raises(InvalidInput, match="already"):
        accounts.add("Ada", PASSWORD)
    accounts.remove("ada")
    assert accounts.add("ada", PASSWORD).owner != first.owner


def test_a_session_is_known_by_its_token(accounts: Accounts):
    token = accounts.begin("user:1", "ada")
    assert len(token) >= 43
    found = accounts.session(token)
    assert found is not None
    assert (found.owner, found.name) == ("user:1", "ada")
    for wrong in ("", token[:-1], token + "A", "\ud800"):
        assert accounts.session(wrong) is None
    accounts.end(token)
    assert accounts.session(token) is None


def test_a_session_ends_when_it_is_not_used(accounts: Accounts, clock: FakeClock):
    used, left = accounts.begin("user:1", "ada"), accounts.begin("user:1", "ada")
    for _ in range(3):
        clock.advance(SESSION_S / 2)
        assert accounts.session(used) is not None
    assert accounts.session(left) is None


def test_its_use_is_not_written_down_every_time(accounts: Accounts, clock: FakeClock, db: Database):
    token = accounts.begin("user:1", "ada")
    changes = db.connect().total_changes
    clock.advance(TOUCH_S / 2)
    accounts.session(token)
    assert db.connect().total_changes == changes


@pytest.mark.parametrize("change", ["set_password", "remove"])
def test_sessions_end_with_the_password_and_with_the_account(accounts: Accounts, change: str):
    ada, bob = accounts.add("ada", PASSWORD), accounts.add("bob", PASSWORD)
    hers, his = accounts.begin(ada.owner, "ada"), accounts.begin(bob.owner, "bob")
    accounts.set_password("ada", "another one") if change == "set_password" else accounts.remove("ada")
    assert accounts.session(hers) is None
    assert accounts.session(his) is not None
    with pytest.raises(LoginRefused):
        accounts.log_in("ada", PASSWORD)


def test_links_of_a_removed_account_are_revoked(accounts: Accounts, jobs: Jobs, db: Database, clock: FakeClock):
    shares, ada = Shares(db, clock), accounts.add("ada", PASSWORD)
    token = shares.create(jobs.submit("e", {}, owner=ada.owner).id, ada.owner)
    accounts.remove("ada")
    with pytest.raises(NotFound):
        shares.resolve(token)


def test_unknown_accounts_are_a_sentence(accounts: Accounts):
    for call in (accounts.remove, accounts.find, lambda name: accounts.set_password(name, PASSWORD)):
        with pytest.raises(NotFound, match="There is no account"):
            call("nobody")


def test_what_an_anonymous_visitor_made_comes_along(
    accounts: Accounts, jobs: Jobs, artifacts: Artifacts, db: Database, clock: FakeClock
):
    shares = Shares(db, clock)
    mine = [jobs.submit("e", {}, owner="anon:1", token=token) for token in ("a", "b")]
    other = jobs.submit("e", {}, owner="user:1", token="a")
    stranger = jobs.submit("e", {}, owner="anon:2")
    link = shares.create(mine[0].id, "anon:1")
    both, one = (artifacts.put(data, media_type="image/png", owner="anon:1") for data in (b"both", b"one"))
    artifacts.put(b"both", media_type="image/png", owner="user:1")

    assert accounts.take_over("anon:1", "user:1") == 2

    assert {job.id for job in jobs.list("user:1")} == {mine[0].id, mine[1].id, other.id}
    assert jobs.list("anon:1") == []
    assert jobs.get(stranger.id).owner == "anon:2"
    assert shares.for_job(mine[0].id, "user:1")[0].token == link
    assert artifacts.may_read(one, "user:1")
    assert artifacts.may_read(both, "user:1")
    assert not artifacts.may_read(one, "anon:1")
    assert jobs.submit("e", {}, owner="user:1", token="a").id == other.id, "their own token still means their job"
    with db.read() as connection:
        counts = {row["owner"]: row["waiting"] for row in connection.execute("SELECT owner, waiting FROM owner")}
    assert counts == {"anon:1": 0, "user:1": 3, "anon:2": 1}
    assert jobs.claim("w", "cpu") is not None


@pytest.mark.parametrize("giver", ["user:2", "hf:1", "", "user:1", "command-line"])
def test_nothing_is_taken_from_anybody_who_has_a_name(accounts: Accounts, jobs: Jobs, giver: str):
    job = jobs.submit("e", {}, owner=giver)
    assert accounts.take_over(giver, "user:1") == 0
    assert jobs.get(job.id).owner == giver
