"""What goes in and out of the API: bodies, path parts, and the one shape of every failure. Knows no route."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from studio.identity import owner_of

JobId = Annotated[str, Path(max_length=100, description="Id of a job, as given at its submission.")]
LARGEST = 2**63 - 1  # what the store can count to
Number = Annotated[int, Path(ge=0, le=LARGEST)]
Owner = Annotated[str, Depends(owner_of)]

ERRORS: dict[int | str, dict[str, Any]] = {
    code: {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }
    for code, text in (
        (400, "The request cannot be read."),
        (401, "This server wants its visitors to log in first."),
        (403, "The request comes from another site's page."),
        (404, "There is no such thing, or it is somebody else's."),
        (409, "The state of the job does not allow it."),
        (413, "The request or the file is too large."),
        (422, "A value cannot be used; `field` names it."),
        (429, "Too many requests or waiting jobs."),
        (503, "The store cannot be used right now."),
    )
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """What went wrong, and what to do about it."""

    code: str = Field(description="A stable word, e.g. invalid_input.")
    message: str = Field(description="A sentence that says what happened.")
    remedy: str = Field(description="What to do about it; may be empty.")
    field: str | None = Field(description="The parameter where it happened.")


class ErrorEnvelope(BaseModel):
    """The one shape of every failure."""

    error: ErrorBody


def _no_truth(value: Any) -> Any:
    """JSON's true is no number, though Python's is."""
    if isinstance(value, bool):
        raise ValueError("Input should be a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]


class Wanted(_Body):
    """What to run."""

    engine: str = Field(max_length=100, description="Name of an engine, see /api/engines.")
    params: dict[str, Any] = Field(default_factory=dict, description="Its parameters; those left out have defaults.")


class Submission(Wanted):
    """What to run, and when."""

    token: str | None = Field(
        None, max_length=200, description="Sending the same token again gives the same job instead of a second one."
    )
    priority: Whole = Field(0, description="Among your own jobs; larger is sooner.")


class Priority(_Body):
    """Where a job stands among its owner's."""

    priority: Whole = Field(description="Larger is sooner.")
