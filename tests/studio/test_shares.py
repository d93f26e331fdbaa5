"""Links to jobs: unguessable, the owner's to give and to take back."""

from __future__ import annotations

import base64

import pytest

from studio.db import Database
from studio.errors import NotFound
from studio.jobs import Job, Jobs
from studio.shares import Shares, new_token


@pytest.fixture
def shares(db: Database, clock) -> Shares:
    return Shares(db, clock)


@pytest.fixture
def job(jobs: Jobs) -> Job:
    return jobs.submit("e", {}, owner="ann")


def test_a_link_opens_the_job_until_it_is_revoked(shares: Shares, job: Job, clock):
    token = shares.create(job.id, "ann")
    assert shares.resolve(token) == job.id
    assert [(share.token, share.job, share.created) for share in shares.for_job(job.id, "ann")] == [
        (token, job.id, clock.now)
    ]
    assert shares.create(job.id, "ann") == token
    shares.revoke(token, "ann")
    for call in (lambda: shares.resolve(token), lambda: shares.revoke(token, "ann")):
        with pytest.raises(NotFound, match="does not open"):
            call()
    assert shares.for_job(job.id, "ann") == []
    assert shares.create(job.id, "ann") != token


def test_only_the_owner_makes_sees_and_revokes(shares: Shares, job: Job):
    token = shares.create(job.id, "ann")
    for call in (shares.create, shares.for_job):
        with pytest.raises(NotFound):
            call(job.id, "bob")
    with pytest.raises(NotFound):
        shares.revoke(token, "bob")
    assert shares.resolve(token) == job.id


@pytest.mark.parametrize("token", ["", "nothing", "half \ud800", "%", "' OR 1=1 --", "x" * 100_000])
def test_an_unknown_token_is_not_found(shares: Shares, job: Job, token: str):
    shares.create(job.id, "ann")
    with pytest.raises(NotFound):
        shares.resolve(token)


def test_a_link_to_a_job_that_is_gone_opens_nothing(shares: Shares, db: Database, job: Job):
    token = shares.create(job.id, "ann")
    with db.transaction() as connection:
        connection.execute("DELETE FROM job")
    with pytest.raises(NotFound):
        shares.resolve(token)


def test_tokens_have_at_least_128_bits_and_are_never_equal():
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(base64.urlsafe_b64decode(token)) * 8 >= 128 for token in tokens)
