"""Share links: unguessable tokens that open one job to whoever has them, until they are revoked.

Knows rows, neither pages nor files.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from studio.db import Database
from studio.errors import NotFound
from studio.rows import encodable, find

# The index finds a link by its first characters; the other 24, 144 bits, are compared in constant time.
FINDING = 8


@dataclass(frozen=True)
class Share:
    """One link that is not revoked."""

    token: str
    job: str
    created: float  # seconds


def new_token() -> str:
    """192 random bits, url-safe."""
    return secrets.token_urlsafe(24)


class Shares:
    """The links in `db`. A job, link or token of somebody else looks like none: NotFound."""

    def __init__(self, db: Database, clock: Callable[[], float], *, token: Callable[[], str] = new_token) -> None:
        self._db = db
        self._clock = clock
        self._token = token

    def create(self, job_id: str, owner: str) -> str:
        """The token of the owner's link to the job; asking again gives the same one until it is revoked."""
        with self._db.transaction() as connection:
            job = find(connection, job_id, owner)
            row = connection.execute(
                "SELECT token FROM share WHERE job = ? AND revoked IS NULL ORDER BY created LIMIT 1", (job.id,)
            ).fetchone()
            if row is not None:
                return str(row["token"])
            token = self._token()
            connection.execute(
                "INSERT INTO share (token, job, owner, created) VALUES (?, ?, ?, ?)",
                (token, job.id, job.owner, self._clock()),
            )
            return token

    def resolve(self, token: str) -> str:
        """The job behind a token. Raises NotFound if it never existed, was revoked, or the job is gone."""
        given = encodable(token)
        if len(given) <= FINDING:
            raise _unknown()
        with self._db.read() as connection:
            rows = connection.execute(
                "SELECT token, job FROM share WHERE token >= ?1 AND token < ?1 || x'f48fbfbf' AND revoked IS NULL",
                (given[:FINDING],),
            ).fetchall()
        found = [row for row in rows if hmac.compare_digest(row["token"].encode(), given.encode())]
        if not found:
            raise _unknown()
        return str(found[0]["job"])

    def for_job(self, job_id: str, owner: str) -> list[Share]:
        """The links to the owner's job that still open, oldest first."""
        with self._db.read() as connection:
            job = find(connection, job_id, owner)
            rows = connection.execute(
                "SELECT token, job, created FROM share WHERE job = ? AND revoked IS NULL ORDER BY created, token",
                (job.id,),
            ).fetchall()
        return [Share(row["token"], row["job"], row["created"]) for row in rows]

    def revoke(self, token: str, owner: str) -> None:
        """Close the link for good. Raises NotFound if it is not the owner's or closed already."""
        with self._db.transaction() as connection:
            changed = connection.execute(
                "UPDATE share SET revoked = ? WHERE token = ? AND owner = ? AND revoked IS NULL",
                (self._clock(), encodable(token), owner),
            )
            if changed.rowcount != 1:
                raise _unknown()


def _unknown() -> NotFound:
    return NotFound(
        "This link does not open anything.", "Ask whoever sent it for a new one; it may have been revoked."
    )
