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

from engines.ultravico.presets import ModelPreset
from studio.errors import InvalidInput

LONGEST = 2000  # characters; umT5 reads 512 tokens, the others fewer


def check_prompt(text: str, field: str, *, needed: bool) -> None:
    """Raise InvalidInput for a prompt that is empty though needed, too long, or holds control characters."""
    if needed and not text.strip():
        raise InvalidInput("The prompt is empty.", "Say what the video should show.", field=field)
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


def vocabulary(model: ModelPreset) -> frozenset[str] | None:
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


def unknown_words(text: str, model: ModelPreset) -> list[str]:
    """The words of `text` that the model has never seen, in order, each once; none if it knows any text."""
    known = vocabulary(model)
    if known is None:
        return []
    return list(dict.fromkeys(w for w in split_words(text) if w not in known and w[0].isalnum()))


def prompt_notes(text: str, model: ModelPreset) -> list[str]:
    """Sentences about a prompt that is usable but will not be followed to the letter."""
    strange = unknown_words(text, model)
    if not strange:
        return []
    known = ", ".join(sorted(vocabulary(model) or ()))
    return [f"The {model.title.lower()} does not know: {', '.join(strange)}. It knows: {known}."]
