"""The grammar of the world of toys: everything that can be said is understood again."""

from __future__ import annotations

import itertools

import pytest

from pocket.toys import KINDS
from pocket.wording import (
    COLOURS,
    GROUNDS,
    HAIRS,
    MATERIALS,
    PLAINS,
    SKIES,
    VIEWS,
    WORN,
    NotUnderstood,
    PersonSpec,
    ToySpec,
    parse,
    vocabulary,
    write,
)


def every_spec() -> list[ToySpec]:
    """All kinds with all colours, and all of the rest in turn."""
    backgrounds = [{}, *({"plain": plain} for plain in PLAINS)]
    backgrounds += [{"ground": ground, "sky": sky} for ground, sky in itertools.product(GROUNDS, SKIES)]
    rest = itertools.cycle(itertools.product((None, *MATERIALS), (None, *VIEWS), backgrounds))
    return [
        ToySpec(kind, colour, material, number, view, **where)
        for kind, number, colour in itertools.product(KINDS, (1, 2), (None, *COLOURS))
        for material, view, where in itertools.islice(rest, 3)
    ]


def every_person() -> list[PersonSpec]:
    """Every hair with everything worn, and all of the rest in turn."""
    worn = [
        tuple(thing for thing, on in zip(WORN, ons, strict=True) if on) for ons in itertools.product((0, 1), repeat=3)
    ]
    rest = itertools.cycle(itertools.product((None, *COLOURS), (None, *VIEWS), (None, *PLAINS)))
    return [
        PersonSpec(shirt, hair, things, view, plain)
        for hair, things in itertools.product((None, *HAIRS), worn)
        for shirt, view, plain in itertools.islice(rest, 5)
    ]


def test_what_is_written_is_read_again():
    specs = [*every_spec(), *every_person()]
    assert [parse(write(spec)) for spec in specs] == specs
    words = {word for spec in specs for word in write(spec).replace(",", " ,").split()}
    assert words == set(vocabulary())


def test_captions_are_english():
    assert write(ToySpec("car", "red", "glossy", 2, "side", ground="sand", sky="dusky")) == (
        "two glossy red cars, side view, on sand under a dusky sky"
    )
    assert write(ToySpec("fish", "orange")) == "an orange fish"
    assert write(ToySpec("cactus", number=2)) == "two cacti"
    assert parse("  A  Red Car ") == ToySpec("car", "red")
    assert write(PersonSpec("teal", "brown", ("glasses", "beard"), "front", "grey")) == (
        "a person in teal with brown hair, glasses and a beard, front view, on a plain grey background"
    )
    assert parse("a person") == PersonSpec()


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red",
        "red car",
        "a car red",
        "two red car",
        "a cars",
        "a red car, top view",
        "two person",
        "a person with",
        "a person with glasses and brown hair",
        "a person with a hat and a hat",
        "a person in red in red",
        "a person with a hat, glasses",
        "a person, on grass under a blue sky",
    ],
)
def test_anything_else_is_refused_with_an_example(caption: str):
    with pytest.raises(NotUnderstood):
        parse(caption)
