"""What can be said about a picture of the world of toys: one grammar, written and read.

    two glossy red cars, side view, on sand under a dusky sky
    a blue mug, front view
    a matte pink snowman, on a plain cream background
    a person in teal with brown hair, glasses and a beard, front view, on a plain grey background

Only the kind, or that it is a person, has to be said. `parse(write(spec)) == spec` for every spec.
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
HAIRS = ("black", "brown", "blond", "ginger", "grey", "white")
WORN = {"hat": "a hat", "glasses": "glasses", "beard": "a beard"}  # how each is said, in this order


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


@dataclass(frozen=True)
class PersonSpec:
    """What a caption says of a person; what is left out is left unsaid."""

    shirt: str | None = None  # one of COLOURS
    hair: str | None = None  # one of HAIRS
    worn: tuple[str, ...] = ()  # of WORN, in its order
    view: str | None = None
    plain: str | None = None  # colour of the background


Spec = ToySpec | PersonSpec


class NotUnderstood(ValueError):
    """A caption that the grammar does not hold."""


def write(spec: Spec) -> str:
    """The caption of a spec."""
    caption = _person(spec) if isinstance(spec, PersonSpec) else _toys(spec)
    if spec.view:
        caption += f", {spec.view} view"
    if spec.plain:
        caption += f", on a plain {spec.plain} background"
    if isinstance(spec, ToySpec) and spec.ground:
        caption += f", on {spec.ground} under a {spec.sky} sky"
    return caption


def _toys(spec: ToySpec) -> str:
    noun = spec.kind if spec.number == 1 else PLURALS[spec.kind]
    words = [word for word in (spec.material, spec.colour, noun) if word]
    article = "two" if spec.number == 2 else "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _person(spec: PersonSpec) -> str:
    caption = f"a person in {spec.shirt}" if spec.shirt else "a person"
    things = ([f"{spec.hair} hair"] if spec.hair else []) + [WORN[thing] for thing in spec.worn]
    if things:
        *first, last = things
        caption += " with " + (f"{', '.join(first)} and {last}" if first else last)
    return caption


def _one(name: str, words: tuple[str, ...] | list[str]) -> str:
    return f"(?P<{name}>{'|'.join(words)})"


def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of toys and of people."""
    nouns = [*KINDS, *(plural for plural in PLURALS.values() if plural not in KINDS)]
    view = rf"(?:, {_one('view', VIEWS)} view)?"
    plain = f", on a plain {_one('plain', PLAINS)} background"
    open_air = f", on {_one('ground', GROUNDS)} under a {_one('sky', SKIES)} sky"
    adjectives = rf"(?:{_one('material', MATERIALS)} )?(?:{_one('colour', COLOURS)} )?"
    thing = rf"(?:(?:{'|'.join(HAIRS)}) hair|{'|'.join(WORN.values())})"
    things = rf"(?P<things>{thing}(?:, {thing})*(?: and {thing})?)"
    return (
        re.compile(rf"(?P<article>an?|two) {adjectives}{_one('noun', nouns)}{view}(?:{plain}|{open_air})?"),
        re.compile(rf"a person(?: in {_one('shirt', COLOURS)})?(?: with {things})?{view}(?:{plain})?"),
    )


_TOYS, _PERSON = _patterns()
_SINGULAR = {plural: kind for kind, plural in PLURALS.items()}
_NAMES = {said: name for name, said in WORN.items()}


def parse(caption: str) -> Spec:
    """The spec of a caption. Raises NotUnderstood with a sentence."""
    plain = " ".join(caption.lower().split())
    person = _PERSON.fullmatch(plain)
    if person is not None:
        return _read_person(caption, person.groupdict())
    found = _TOYS.fullmatch(plain)
    if found is None:
        raise NotUnderstood(f"{caption[:80]!r} is not of the form {write(ToySpec('car', 'red', view='side'))!r}.")
    said = found.groupdict()
    number = 2 if said.pop("article") == "two" else 1
    noun = said.pop("noun")
    kind = _SINGULAR.get(noun, noun) if number == 2 else noun
    if (noun if number == 1 else PLURALS[kind]) != noun or kind not in KINDS:
        raise NotUnderstood(f"{caption[:80]!r}: the number and {noun!r} do not agree.")
    return ToySpec(kind, number=number, **said)


def _read_person(caption: str, said: dict[str, str | None]) -> PersonSpec:
    things = re.split(", | and ", said.pop("things") or "")
    hairs = [thing.removesuffix(" hair") for thing in things if thing.endswith(" hair")]
    spec = PersonSpec(
        hair=hairs[0] if hairs else None, worn=tuple(_NAMES[thing] for thing in things if thing in _NAMES), **said
    )
    once = tuple(thing for thing in WORN if thing in spec.worn)
    if spec.worn != once or write(spec) != " ".join(caption.lower().split()):
        raise NotUnderstood(
            f"{caption[:80]!r}: say each thing once, in the order of "
            f"{_person(PersonSpec(hair='brown', worn=tuple(WORN)))!r}."
        )
    return spec


def vocabulary() -> tuple[str, ...]:
    """Every word and sign a caption can hold, in a fixed order."""
    fixed = ("a", "an", "two", ",", "view", "on", "plain", "background", "under", "sky")
    words = (*fixed, *MATERIALS, *COLOURS, *KINDS, *PLURALS.values(), *VIEWS, *PLAINS, *GROUNDS, *SKIES)
    words += ("person", "in", "with", "hair", "and", *HAIRS, *WORN)
    return tuple(dict.fromkeys(words))
