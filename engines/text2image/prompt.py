"""What can be said of a prompt before any model is loaded: whether it is usable, and which words a model knows.

The web process reads the word list of a small model from its tokenizer's JSON, because a tokenizer library would
bring torch along. Knows words, not captions: their grammar is the world's (`pocket/wording.py`).
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

from engines.text2image.presets import ModelPreset
from studio.errors import InvalidInput

LONGEST = 2000  # characters; Stable Diffusion reads 77 tokens
SPECIAL_TOKENS = 2  # begin and end


def check_prompt(text: str, field: str, model: ModelPreset, *, needed: bool) -> None:
    """Raise InvalidInput for a prompt that is empty though needed, too long, or not of the model's words."""
    if needed and not text.strip():
        raise InvalidInput("The prompt is empty.", "Say what the picture should show.", field=field)
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
    strange = unknown_words(text, model)
    if strange:
        raise InvalidInput(
            f"The {model.title.lower()} does not know: {', '.join(strange[:8])}.",
            f"{_closest(strange, model)}All its words are listed under the prompt and in docs/pocket.md.",
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
    """The words and marks of `text` that the model has never seen, in order, each once; none if it knows any text."""
    known = vocabulary(model)
    return [] if known is None else list(dict.fromkeys(word for word in split_words(text) if word not in known))


def prompt_notes(text: str, model: ModelPreset) -> list[str]:
    """Sentences about a prompt that is usable but will not be followed to the letter."""
    room, count = model.text_tokens - SPECIAL_TOKENS, len(split_words(text))
    if vocabulary(model) is None or count <= room:
        return []
    return [f"The prompt has {count} words; the {model.title.lower()} reads the first {room}."]


def _closest(strange: list[str], model: ModelPreset) -> str:
    """A sentence with the known words that are spelled most alike, or nothing."""
    known = sorted(vocabulary(model) or ())
    found = [match for word in strange for match in difflib.get_close_matches(word, known, 2, 0.6)]
    return f"Did you mean: {', '.join(dict.fromkeys(found))}? " if found else ""
