"""Handing out stored bytes over HTTP: ranges, validators, and headers that keep a file from acting as a page.

Knows files and headers; who may read what is asked of `Access`. Bytes are sent as they are stored, never re-encoded.
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from studio.errors import NotFound
from studio.identity import owner_of
from studio.services import Services

SHA = re.compile(r"[0-9a-f]{64}")

# What a browser may show in place; everything else is saved.
INLINE = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/webp",
        "video/mp4",
        "model/gltf-binary",
        "model/ply",
        "text/plain",
    }
)
POLICY = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"


def readable(services: Services, request: Request, sha: str, token: str) -> Path:
    """The stored file, for its owner or for the holder of a share link whose job has it. Raises NotFound."""
    refusal = NotFound("There is no such file here.", "Open the result again and use its links.")
    if not SHA.fullmatch(sha):
        raise refusal
    if token:
        job_id = services.shares.resolve(token)
        if sha not in {output.sha for output in services.artifacts.outputs(job_id)}:
            raise refusal
    elif not services.artifacts.may_read(sha, owner_of(request)):
        raise refusal
    return Path(services.artifacts.path(sha))


def stored_file(request: Request, path: Path, media_type: str, *, etag: str, download: str = "") -> Response:
    """The file with a strong validator; 304 if the reader has it, 206 for a range."""
    tag = f'"{etag}"'
    headers = {
        "etag": tag,
        "cache-control": "private, no-cache",  # ask again each time: a share link may have been revoked
        "content-security-policy": POLICY,
        "cross-origin-resource-policy": "same-origin",
    }
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    attach = bool(download) or media_type not in INLINE
    return FileResponse(
        path,
        headers=headers,
        media_type=media_type,
        filename=safe_name(download) or path.name if attach else None,
        content_disposition_type="attachment",
    )


def safe_name(name: str) -> str:
    """A file name without folders, quotes and control characters, short enough for any disk."""
    bare = re.sub(r"[\x00-\x1f\x7f\"\\/:*?<>|]+", "_", name.strip()).lstrip(".")
    stem, dot, ending = bare.rpartition(".")
    return f"{stem[:100]}{dot}{ending[:16]}" if stem else bare[:116]
