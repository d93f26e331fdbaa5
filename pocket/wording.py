"""What can be said about a picture of the world of toys: one grammar, written and read.

    two glossy red cars, side view, on sand under a dusky sky
    a blue mug, front view
    a matte pink snowman, on a plain cream background

Only the kind has to be said. `parse(write(spec)) == spec` for every spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pocket.toys import KINDS

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
MATERIALS = ("matte", "glossy")
VIEWS = ("front", "side", "back", "overhead")
PLAINS = ("grey", "cream", "mint", "lilac")
GROUNDS = ("grass", "sand", "snow", "stone")
SKIES = ("blue", "pale", "dusky")
IRREGULAR = {"fish": "fish", "cactus": "cacti", "snowman": "snowmen"}
PLURALS = {kind: IRREGULAR.get(kind, kind + "s") for kind in KINDS}


@dataclass(frozen=True)
class ToySpec:
    """What a caption says; None is left unsaid."""

    kind: str
    colour: str | None = None
    material: str | None = None
    number: int = 1  # 1 or 2
    view: str | None = None
    plain: str | None = None  # colour of a plain background; or else
    ground: str | None = None
    sky: str | None = None  # said together with the ground


class NotUnderstood(ValueError):
    """A caption that the grammar does not hold."""


def write(spec: ToySpec) -> str:
    """The caption of a spec."""
    noun = spec.kind if spec.number == 1 else PLURALS[spec.kind]
    words = [word for word in (spec.material, spec.colour, noun) if word]
    article = "two" if spec.number == 2 else "an" if words[0][0] in "aeiou" else "a"
    caption = " ".join([article, *words])
    if spec.view:
        caption += f", {spec.view} view"
    if spec.plain:
        caption += f", on a plain {spec.plain} background"
    if spec.ground:
        caption += f", on {spec.ground} under a {spec.sky} sky"
    return caption


def _pattern() -> re.Pattern[str]:
    def one(name: str, words: tuple[str, ...] | list[str]) -> str:
        return f"(?P<{name}>{'|'.join(words)})"

    nouns = [*KINDS, *(plural for plural in PLURALS.values() if plural not in KINDS)]
    plain = f", on a plain {one('plain', PLAINS)} background"
    open_air = f", on {one('ground', GROUNDS)} under a {one('sky', SKIES)} sky"
    return re.compile(
        rf"(?P<article>an?|two) (?:{one('material', MATERIALS)} )?(?:{one('colour', COLOURS)} )?{one('noun', nouns)}"
        rf"(?:, {one('view', VIEWS)} view)?(?:{plain}|{open_air})?"
    )


_PATTERN = _pattern()
_SINGULAR = {plural: kind for kind, plural in PLURALS.items()}


def parse(caption: str) -> ToySpec:
    """The spec of a caption. Raises NotUnderstood with a sentence."""
    found = _PATTERN.fullmatch(" ".join(caption.lower().split()))
    if found is None:
        raise NotUnderstood(f"{caption[:80]!r} is not of the form {write(ToySpec('car', 'red', view='side'))!r}.")
    said = found.groupdict()
    number = 2 if said.pop("article") == "two" else 1
    noun = said.pop("noun")
    kind = _SINGULAR.get(noun, noun) if number == 2 else noun
    if (noun if number == 1 else PLURALS[kind]) != noun or kind not in KINDS:
        raise NotUnderstood(f"{caption[:80]!r}: the number and {noun!r} do not agree.")
    return ToySpec(kind, number=number, **said)


def vocabulary() -> tuple[str, ...]:
    """Every word and sign a caption can hold, in a fixed order."""
    fixed = ("a", "an", "two", ",", "view", "on", "plain", "background", "under", "sky")
    words = (*fixed, *MATERIALS, *COLOURS, *KINDS, *PLURALS.values(), *VIEWS, *PLAINS, *GROUNDS, *SKIES)
    return tuple(dict.fromkeys(words))
