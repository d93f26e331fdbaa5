"""Which scene the training picture of a seed shows, so that a seed stands for the picture wherever one is named.

Three sorts: toys as the world draws them; toys from every side alike and often in pairs, which prompts ask for more
often than the world shows them; people, several pictures of each. One colour of every kind is never shown together
with it: what a model makes of those pairs, it has not copied.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pocket import people
from pocket.people import Portrait
from pocket.toys import KINDS
from pocket.wording import COLOURS, VIEWS, ToySpec
from pocket.world import Scene, sample_scene

TOYS, SIDED, PEOPLE = 100_000_000, 150_000_000, 200_000_000  # first seeds; tests and reports use small ones
PAIRS = 0.4  # share of the sided pictures that show two toys
PORTRAITS = 8  # pictures of every person
WITHHELD = frozenset((kind, COLOURS[(3 * index + 1) % len(COLOURS)]) for index, kind in enumerate(KINDS))


def lesson(seed: int) -> Scene | Portrait:
    """What the training picture of a seed shows."""
    if seed < PEOPLE:
        return toys(seed)
    person, picture = divmod(seed - PEOPLE, PORTRAITS)
    return portrait(PEOPLE + person, picture)


def toys(seed: int) -> Scene:
    """A scene of toys: one of a withheld pair gets the next colour that may be seen."""
    scene = sided(seed, PAIRS) if seed >= SIDED else sample_scene(seed)
    colour = COLOURS.index(scene.colour)
    while (scene.kind, COLOURS[colour]) in WITHHELD:
        colour = (colour + 1) % len(COLOURS)
    return replace(scene, colour=COLOURS[colour])


def portrait(person: int, picture: int) -> Portrait:
    """One of the pictures of a person."""
    return people.sample(person, person * 97 + picture)


def sided(seed: int, pairs: float) -> Scene:
    """Any kind from any of the four sides alike, withheld pairs too; two toys in a share of `pairs`."""
    rng = np.random.default_rng(seed)
    kind, view = str(rng.choice(KINDS)), str(rng.choice(VIEWS))
    return sample_scene(rng, ToySpec(kind, view=view, number=2 if rng.random() < pairs else 1))
