"""Every failure a person can meet: a code, a sentence that says what happened, and a remedy.

Deep code raises these; the worker, the HTTP layer and the tab handlers are the only places that catch them.
This module knows nothing about jobs, pages or tensors.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from typing import Any, ClassVar

# What the libraries raise for files that are damaged, or made to mislead them; none of it may reach a person.
DAMAGED_PICTURE = (
    *(OSError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
    *(ArithmeticError, AttributeError, EOFError, LookupError),
)
DAMAGED_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, IndexError, OSError, RuntimeError, ValueError),  # NotImplementedError is a RuntimeError
)


class AtelierError(Exception):
    """Base of all typed errors. `message` says what happened (with the value), `remedy` what to do about it."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, remedy: str = "", *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> Any:
        # Keyword arguments do not survive the default pickling of exceptions across processes.
        return (_rebuild, (type(self), self.message, self.remedy, self.field))

    def as_dict(self) -> dict[str, str | None]:
        """The one envelope of every failure, on a page, in JSON and in a job's row."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, "field": self.field}


def _rebuild(kind: type[AtelierError], message: str, remedy: str, field: str | None) -> AtelierError:
    return kind(message, remedy, field=field)


class InvalidInput(AtelierError):
    """A value the user gave cannot be used; `field` names the parameter where it happened."""

    code = "invalid_input"
    http_status = 422


class NotFound(AtelierError):
    """No such job, file or link, or it belongs to somebody else (the two look alike on purpose)."""

    code = "not_found"
    http_status = 404


class Conflict(AtelierError):
    """The state of a thing does not allow the request, e.g. to pause a finished job."""

    code = "conflict"
    http_status = 409


class LimitReached(AtelierError):
    """An owner has used up a cap, e.g. on waiting jobs."""

    code = "limit_reached"
    http_status = 429


class TooLarge(AtelierError):
    """An upload exceeds a limit that is checked before decoding."""

    code = "too_large"
    http_status = 413


class WeightsMissing(AtelierError):
    """Published weights are not on this machine; the remedy is the exact command, size and licence."""

    code = "weights_missing"
    http_status = 409


class OutOfMemory(AtelierError):
    """The device's memory did not suffice, even with the thriftiest plan."""

    code = "out_of_memory"
    http_status = 507


class StoreUnavailable(AtelierError):
    """The store cannot be used: the disk is full or read-only, or another server holds it."""

    code = "store_unavailable"
    http_status = 503


class EngineFailed(AtelierError):
    """An engine raised something nobody foresaw; the traceback is in the log, never on a page."""

    code = "engine_failed"
    http_status = 500


class Cancelled(AtelierError):
    """Raised by `ctx.check()` when the owner asked for the job to stop. Not a failure."""

    code = "cancelled"
    http_status = 409


class Paused(AtelierError):
    """Raised by `ctx.check()` when the owner asked for the job to pause. Not a failure."""

    code = "paused"
    http_status = 409
