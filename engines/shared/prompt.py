"""What can be said of a prompt before any model is loaded: whether it is usable, and which words a model knows.

The web process reads the word list of a small model from its tokenizer's JSON, because a tokenizer library would
bring torch along. Knows no grammar beyond words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from engines.shared.sources import Source
from studio.errors import InvalidInput

LONGEST = 2000  # characters; no model here reads as much
SPECIAL_TOKENS = 2  # begin and end


def check_prompt(text: str, field: str, *, needed: bool, remedy: str = "Say what should be made.") -> None:
    """Raise InvalidInput for a prompt that is empty though needed, too long, or holds control characters."""
    if needed and not text.strip():
        raise InvalidInput("The prompt is empty.", remedy, field=field)
    if len(text) > LONGEST:
        raise InvalidInput(
            f"The prompt has {len(text):,} characters; at most {LONGEST:,} are read.", "Shorten it.", field=field
        )
    control = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t\r"), None)
    if control is not None:
        raise InvalidInput(
            f"The prompt holds the control character U+{ord(control):04X}.",
            "Remove it; plain text only.",
            field=field,
        )


def vocabulary(model: Source) -> frozenset[str] | None:
    """The words a model with a word list knows; None where any text is understood or no list is installed."""
    path = Path(model.repo) / "tokenizer" / "tokenizer.json"
    return _words(path, path.stat().st_mtime_ns) if model.local and path.is_file() else None


@lru_cache(maxsize=8)
def _words(path: Path, _modified: int) -> frozenset[str]:
    table = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    return frozenset(word for word in table if not word.startswith("<"))


def split_words(text: str) -> list[str]:
    """Lower-case words and marks, as the word-list tokenizers split them."""
    return re.findall(r"\w+|[^\w\s]+", unicodedata.normalize("NFC", text).lower())


def unknown_words(text: str, model: Source, *, marks: bool = False) -> list[str]:
    """The words of `text`, with `marks` the marks too, that the model has never seen, in order, each once.

    None if it knows any text.
    """
    known = vocabulary(model)
    if known is None:
        return []
    return list(dict.fromkeys(w for w in split_words(text) if w not in known and (marks or w[0].isalnum())))


def word_notes(text: str, model: Source) -> list[str]:
    """A sentence that names unknown words, where they do not stop anybody."""
    strange = unknown_words(text, model)
    if not strange:
        return []
    known = ", ".join(sorted(vocabulary(model) or ()))
    return [f"The {model.title.lower()} does not know: {', '.join(strange)}. It knows: {known}."]


def length_notes(text: str, model: Source, text_tokens: int) -> list[str]:
    """A sentence for a prompt that is longer than a model with a word list reads."""
    room, count = text_tokens - SPECIAL_TOKENS, len(split_words(text))
    if vocabulary(model) is None or count <= room:
        return []
    return [f"The prompt has {count} words; the {model.title.lower()} reads the first {room}."]
