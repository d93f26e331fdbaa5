"""Local accounts and sessions: who has logged in, and whom the operator lets log in. Rows and hashes, no HTTP.

Passwords are kept as scrypt hashes (RFC 7914), sessions as the hash of a random token, so that a copy of the store
opens nothing. A session belongs to an owner, whichever way the person was recognised: a local account here, or a
login elsewhere (studio.hub_login). An account's owner is random and never used again: a name given anew sees nothing
of the one before.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from studio.db import Database
from studio.errors import AtelierError, InvalidInput, NotFound
from studio.rows import encodable

SESSION_S = 30 * 24 * 3600.0  # a session that is not used for so long ends
TOUCH_S = 3600.0  # how often its use is written down
MIN_PASSWORD, MAX_PASSWORD = 8, 1024  # characters; NIST SP 800-63B asks for at least 8, and no rules beyond
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
COST = {"n": 2**14, "r": 8, "p": 5}  # OWASP's setting for 16 MiB of memory a try
AT_ONCE = 2  # hashes computed at the same time; more would only be slower and hold more memory


class LoginRefused(AtelierError):
    """The name or the password is wrong; which of them is not said."""

    code = "login_refused"
    http_status = 403


@dataclass(frozen=True)
class Account:
    """One local account."""

    name: str
    owner: str  # "user:<random>"
    created: float


@dataclass(frozen=True)
class Session:
    """Somebody who has logged in."""

    owner: str
    name: str  # as shown to them


class Accounts:
    """The accounts and sessions in `db`. Whatever writes may raise StoreUnavailable."""

    def __init__(
        self, db: Database, clock: Callable[[], float], *, cost: Mapping[str, int] = MappingProxyType(COST)
    ) -> None:
        self._db = db
        self._clock = clock
        self._cost = dict(cost)
        self._hashing = threading.Semaphore(AT_ONCE)
        self._nobody = _stored(self._cost, b"\0" * 16, b"\0" * 64)

    def add(self, name: str, password: str) -> Account:
        """A new account. Raises InvalidInput at the field."""
        checked = checked_name(name)
        kept = self._hash(checked_password(password))
        account = Account(checked, "user:" + secrets.token_urlsafe(16), self._clock())
        try:
            with self._db.transaction() as connection:
                connection.execute(
                    "INSERT INTO account (name, owner, password, created) VALUES (?, ?, ?, ?)",
                    (account.name, account.owner, kept, account.created),
                )
        except sqlite3.IntegrityError as error:
            raise InvalidInput(
                f"There is an account {checked!r} already.", "Choose another name.", field="name"
            ) from error
        return account

    def list(self) -> list[Account]:
        """All accounts by name."""
        with self._db.read() as connection:
            rows = connection.execute("SELECT name, owner, created FROM account ORDER BY name").fetchall()
        return [Account(**row) for row in rows]

    def any(self) -> bool:
        """Whether there is one."""
        with self._db.read() as connection:
            return connection.execute("SELECT 1 FROM account LIMIT 1").fetchone() is not None

    def find(self, name: str) -> Account:
        """The account of that name. Raises NotFound."""
        with self._db.read() as connection:
            row = connection.execute(
                "SELECT name, owner, created FROM account WHERE name = ?", (_folded(name),)
            ).fetchone()
        if row is None:
            raise NotFound(f"There is no account {name[:40]!r}.", "`python -m studio users list` shows them.")
        return Account(**row)

    def set_password(self, name: str, password: str) -> None:
        """A new password; every session of the account ends. Raises NotFound or InvalidInput."""
        account, kept = self.find(name), self._hash(checked_password(password))
        with self._db.transaction() as connection:
            connection.execute("UPDATE account SET password = ? WHERE name = ?", (kept, account.name))
            connection.execute("DELETE FROM session WHERE owner = ?", (account.owner,))

    def remove(self, name: str) -> Account:
        """The account, its sessions and its share links are gone at once; its jobs stay until their time is over.

        Raises NotFound.
        """
        account = self.find(name)
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM account WHERE name = ?", (account.name,))
            connection.execute("DELETE FROM session WHERE owner = ?", (account.owner,))
            connection.execute(
                "UPDATE share SET revoked = ? WHERE owner = ? AND revoked IS NULL", (self._clock(), account.owner)
            )
        return account

    def log_in(self, name: str, password: str) -> Account:
        """The account, if the password is its. Takes as long for a name that is not there. Raises LoginRefused."""
        with self._db.read() as connection:
            row = connection.execute(
                "SELECT name, owner, created, password FROM account WHERE name = ?", (_folded(name),)
            ).fetchone()
        right = self._matches(password[: MAX_PASSWORD + 1], self._nobody if row is None else row["password"])
        if row is None or not right:
            raise LoginRefused("The name or the password is wrong.", "Try again, or ask whoever runs this server.")
        return Account(row["name"], row["owner"], row["created"])

    # -- sessions -------------------------------------------------------------------------------------------------

    def begin(self, owner: str, name: str) -> str:
        """The token of a new session: 256 random bits, of which only the hash is kept."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM session WHERE used < ?", (now - SESSION_S,))
            connection.execute(
                "INSERT INTO session (digest, owner, name, created, used) VALUES (?, ?, ?, ?, ?)",
                (_digest(token), owner, name, now, now),
            )
        return token

    def session(self, token: str) -> Session | None:
        """Whose token this is, or None; its use is noted now and then."""
        now, digest = self._clock(), _digest(token)
        with self._db.read() as connection:
            row = connection.execute("SELECT * FROM session WHERE digest = ?", (digest,)).fetchone()
        if row is None or row["used"] < now - SESSION_S:
            return None
        if row["used"] < now - TOUCH_S:
            with self._db.transaction(lasting=False) as connection:
                connection.execute("UPDATE session SET used = ? WHERE digest = ?", (now, digest))
        return Session(row["owner"], row["name"])

    def end(self, token: str) -> None:
        """Log out; an unknown token is ignored."""
        with self._db.transaction() as connection:
            connection.execute("DELETE FROM session WHERE digest = ?", (_digest(token),))

    def take_over(self, giver: str, taker: str) -> int:
        """Give all jobs, uploads and links of an anonymous owner to somebody who has logged in; how many jobs.

        Client tokens that the taker has used as well are dropped from the jobs that come.
        """
        if not giver.startswith("anon:") or giver == taker:
            return 0
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE job SET token = NULL WHERE owner = ? AND token IN (SELECT token FROM job WHERE owner = ?)",
                (giver, taker),
            )
            moved = connection.execute("UPDATE job SET owner = ? WHERE owner = ?", (taker, giver)).rowcount
            connection.execute("UPDATE share SET owner = ? WHERE owner = ?", (taker, giver))
            connection.execute("UPDATE OR IGNORE upload SET owner = ? WHERE owner = ?", (taker, giver))
            connection.execute("DELETE FROM upload WHERE owner = ?", (giver,))
        return moved

    def _hash(self, password: str) -> str:
        salt = secrets.token_bytes(16)
        return _stored(self._cost, salt, self._scrypt(password, salt, self._cost))

    def _matches(self, password: str, kept: str) -> bool:
        cost, salt, digest = _parsed(kept)
        return hmac.compare_digest(self._scrypt(password, salt, cost), digest)

    def _scrypt(self, password: str, salt: bytes, cost: dict[str, int]) -> bytes:
        normal = unicodedata.normalize("NFKC", encodable(password)).encode()
        with self._hashing:
            return hashlib.scrypt(normal, salt=salt, dklen=64, maxmem=2**26, **cost)


def checked_name(name: str) -> str:
    """The name in lower case. Raises InvalidInput."""
    folded = _folded(name)
    if not NAME.fullmatch(folded):
        raise InvalidInput(
            f"The name {name[:40]!r} cannot be used.",
            "Use 1 to 32 letters a to z, digits, dots, underscores or hyphens, a letter or digit first.",
            field="name",
        )
    return folded


def checked_password(password: str) -> str:
    """The password. Raises InvalidInput."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(
            f"A password of {len(password)} characters cannot be used.",
            f"Choose one of {MIN_PASSWORD} to {MAX_PASSWORD} characters; a few words are better than a short riddle.",
            field="password",
        )
    return password


def _folded(name: str) -> str:
    return encodable(name).strip().lower()[:100]


def _digest(token: str) -> str:
    return hashlib.sha256(encodable(token).encode()).hexdigest()


def _stored(cost: Mapping[str, int], salt: bytes, digest: bytes) -> str:
    return f"scrypt${cost['n']}${cost['r']}${cost['p']}${salt.hex()}${digest.hex()}"


def _parsed(kept: str) -> tuple[dict[str, int], bytes, bytes]:
    """Cost, salt and digest; the cost is the one it was made with, so that a later one can be higher."""
    _, n, r, p, salt, digest = kept.split("$")
    return {"n": int(n), "r": int(r), "p": int(p)}, bytes.fromhex(salt), bytes.fromhex(digest)
