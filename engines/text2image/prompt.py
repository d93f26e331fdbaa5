"""What the Pocket lab says of words its models do not know: they would see a blank, so a run is refused."""

from __future__ import annotations

import difflib

from engines.shared.prompt import unknown_words, vocabulary
from engines.shared.sources import Source
from studio.errors import InvalidInput

NAMED = 8  # unknown words at most in a sentence


def check_words(text: str, field: str, model: Source) -> None:
    """Raise InvalidInput for words and marks that the model has never seen, with those that are spelled alike."""
    strange = unknown_words(text, model, marks=True)
    if strange:
        raise InvalidInput(
            f"The {model.title.lower()} does not know: {', '.join(strange[:NAMED])}.",
            f"{_closest(strange, model)}All its words are listed under the prompt and in docs/pocket.md.",
            field=field,
        )


def _closest(strange: list[str], model: Source) -> str:
    """A sentence with the known words that are spelled most alike, or nothing."""
    known = sorted(vocabulary(model) or ())
    found = [match for word in strange for match in difflib.get_close_matches(word, known, 2, 0.6)]
    return f"Did you mean: {', '.join(dict.fromkeys(found))}? " if found else ""
