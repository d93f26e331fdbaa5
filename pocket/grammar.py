"""The language of the flat world: its words, its captions, and what a caption asks for.

A caption is `a [size] colour kind [and a [size] colour kind] [under a SKY sky] [over GROUND ground]`; what stands in
brackets may be left out, and then the world is free to choose. Knows nothing of pictures or tensors: standard library
only, so that a web page may read a prompt with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

KINDS = ("disc", "square", "triangle", "ring", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SIZES = ("small", "medium", "large")
SKIES = ("pale", "rosy", "golden", "lilac", "minty", "misty")
GROUNDS = ("sandy", "grassy", "stony", "earthy", "dusky")
LITTLE_WORDS = ("a", "an", "and", "under", "over", "sky", "ground")

# The whole vocabulary, in the order the tokenizer numbers it (after its four special tokens).
WORDS = LITTLE_WORDS + SIZES + COLOURS + KINDS + SKIES + GROUNDS


@dataclass(frozen=True)
class ObjectSpec:
    """One object as a caption asks for it; None where the caption leaves the choice to the world."""

    kind: str | None = None
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class SceneSpec:
    """Everything a caption says, and the words it used that the world does not know."""

    objects: tuple[ObjectSpec, ...] = ()
    sky: str | None = None
    ground: str | None = None
    unknown: tuple[str, ...] = field(default=(), compare=False)

    @property
    def count(self) -> int | None:
        """How many objects the caption asks for; None when it names no kind at all."""
        return len(self.objects) or None


def words_of(caption: str) -> list[str]:
    """Lower-case words and punctuation marks, split exactly as the tokenizer splits them."""
    return re.findall(r"\w+|[^\w\s]+", caption.lower())


def unknown_words(caption: str) -> list[str]:
    """The words of a caption that the model has never seen, in order, each once; punctuation is forgiven."""
    return list(dict.fromkeys(w for w in words_of(caption) if w not in WORDS and w[0].isalnum()))


def parse(caption: str) -> SceneSpec:
    """Read a caption leniently: sizes and colours belong to the next kind, skies and grounds to the scene."""
    objects, sky, ground = [], None, None
    size = colour = None
    for word in words_of(caption):
        if word in SIZES:
            size = word
        elif word in COLOURS:
            colour = word
        elif word in KINDS:
            objects.append(ObjectSpec(word, colour, size))
            size = colour = None
        elif word in SKIES:
            sky = word
        elif word in GROUNDS:
            ground = word
    return SceneSpec(tuple(objects), sky, ground, tuple(unknown_words(caption)))


def article(word: str) -> str:
    """`an` before a vowel, else `a`."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def write(spec: SceneSpec) -> str:
    """The caption that says exactly what the spec says; `parse(write(spec)) == spec`."""
    named = []
    for thing in spec.objects:
        words = [word for word in (thing.size, thing.colour, thing.kind) if word]
        named.append(" ".join([article(words[0]), *words[1:]]))
    text = " and ".join(named)
    if spec.sky:
        text += f" under {article(spec.sky)} sky"
    if spec.ground:
        text += f" over {spec.ground} ground"
    return text.strip()
