"""The toys: sixteen kinds, each a handful of solids with a paint for every one.

A toy stands on y = -0.8 within the ball of radius 1.15 and looks towards +z. Paints: MAIN is the colour of the
caption, PALE and DEEP are its light and dark tones, the others are the same for every toy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pocket.sdf import (
    Points,
    at,
    blend,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    leaning,
    mirrored,
    quartered,
    sphere,
    tilted,
    torus,
    union,
    wheel,
    without,
)

MAIN, PALE, DEEP, DARK, WHITE, WOOD, LEAF, GLASS = range(8)
PAINTS = ("main", "pale", "deep", "dark", "white", "wood", "leaf", "glass")
Parts = list[tuple[int, Tensor]]  # paint and distance of every solid
FLOOR = -0.8
REACH = 1.15  # radius of the ball that holds a toy


def snowman(p: Points) -> Parts:
    """Three balls, a hat and a scarf in the colour, a nose."""
    body = union(sphere(at(p, y=-0.42), 0.4), sphere(at(p, y=0.12), 0.29))
    hat = union(cylinder(at(p, y=0.72), 0.27, 0.03), cylinder(at(p, y=0.85), 0.17, 0.14))
    eyes = sphere(at(mirrored(p), 0.09, 0.54, 0.19), 0.035)
    return [
        (WHITE, union(body, sphere(at(p, y=0.5), 0.23))),
        (MAIN, hat),
        (DEEP, torus(at(p, y=0.33), 0.2, 0.06)),
        (DARK, union(eyes, sphere(at(p, 0, 0.18, 0.285), 0.035), sphere(at(p, 0, 0.02, 0.285), 0.035))),
        (WOOD, capsule(p, (0, 0.47, 0.2), (0, 0.45, 0.4), 0.035)),
    ]


def mushroom(p: Points) -> Parts:
    """A stem under a spotted cap."""
    cap = without(ellipsoid(at(p, y=0.1), 0.8, 0.65, 0.8), box(at(p, y=-0.5), 1, 0.6, 1, 0.01))
    spots = [(0.0, 0.73, 0.0), (0.45, 0.53, 0.3), (-0.42, 0.55, 0.32), (0.05, 0.42, 0.69)]
    spots += [(-0.5, 0.5, -0.3), (0.35, 0.56, -0.42), (-0.05, 0.36, -0.72)]
    return [
        (PALE, blend(cone(at(p, y=-0.35), 0.3, 0.22, 0.45), ellipsoid(at(p, y=-0.7), 0.32, 0.1, 0.32), 0.1)),
        (MAIN, cap),
        (WHITE, union(*(sphere(at(p, *spot), 0.13) for spot in spots))),
    ]


def house(p: Points) -> Parts:
    """Walls, a gabled roof in the colour, a door and windows in front, a chimney."""
    gable = box(leaning(at(p, y=0.12), 45), 0.52, 0.52, 0.56, 0.02)
    return [
        (PALE, box(at(p, y=-0.3), 0.52, 0.5, 0.46, 0.02)),
        (MAIN, without(gable, box(at(p, y=-0.85), 2, 1.0, 2, 0.01))),
        (DEEP, box(at(p, 0, -0.52, 0.45), 0.14, 0.28, 0.05, 0.01)),
        (GLASS, box(at(mirrored(p), 0.33, -0.22, 0.45), 0.11, 0.13, 0.04, 0.01)),
        (WOOD, box(at(p, 0.3, 0.62, -0.2), 0.08, 0.2, 0.08, 0.01)),
    ]


def car(p: Points) -> Parts:
    """A body with a cabin, four wheels, lamps in front."""
    side = mirrored(p)
    wheels = union(*(wheel(at(side, 0.4, -0.58, z), 0.21, 0.09) for z in (-0.48, 0.48)))
    hubs = union(*(wheel(at(side, 0.46, -0.58, z), 0.09, 0.06) for z in (-0.48, 0.48)))
    body = blend(
        box(at(p, y=-0.35), 0.43, 0.2, 0.86, 0.12), box(at(p, y=-0.02, z=-0.12), 0.36, 0.26, 0.46, 0.14), 0.12
    )
    return [
        (MAIN, body),
        (
            GLASS,
            union(
                box(at(p, y=0.02, z=-0.12), 0.375, 0.12, 0.34, 0.03),
                box(at(p, 0, 0.02, -0.12), 0.28, 0.12, 0.475, 0.03),
            ),
        ),
        (DARK, wheels),
        (PALE, hubs),
        (WHITE, sphere(at(side, 0.27, -0.34, 0.83), 0.09)),
        (DEEP, box(at(p, 0, -0.5, 0), 0.44, 0.05, 0.89, 0.04)),
    ]


def rocket(p: Points) -> Parts:
    """A pointed hull with a porthole and three fins."""
    hull = blend(ellipsoid(at(p, y=0.15), 0.3, 0.85, 0.3), cylinder(at(p, y=-0.3), 0.24, 0.3, 0.05), 0.1)
    fins = union(
        box(at(mirrored(p), 0.33, -0.5, 0), 0.17, 0.24, 0.035, 0.02),
        box(at(p, 0, -0.5, -0.33), 0.035, 0.24, 0.17, 0.02),
    )
    nose = without(ellipsoid(at(p, y=0.15), 0.31, 0.87, 0.31), box(at(p, y=-0.4), 1, 1.02, 1, 0.01))
    return [
        (PALE, hull),
        (MAIN, union(fins, nose)),
        (GLASS, sphere(at(p, 0, 0.22, 0.22), 0.13)),
        (DEEP, torus(tilted(at(p, 0, 0.22, 0.28), 90), 0.13, 0.03)),
        (DARK, cone(at(p, y=-0.68), 0.2, 0.13, 0.1)),
    ]


def tree(p: Points) -> Parts:
    """Three tiers on a trunk, with balls in the colour."""
    tiers = union(*(cone(at(p, y=y), low, 0.04, 0.3) for y, low in ((-0.2, 0.62), (0.15, 0.5), (0.5, 0.36))))
    balls = [(0.42, -0.3, 0.33), (-0.4, -0.3, 0.36), (0.02, -0.02, 0.48), (0.33, 0.08, -0.3), (-0.35, 0.05, -0.26)]
    balls += [(0.2, 0.36, 0.22), (-0.22, 0.38, 0.15), (0.0, -0.3, -0.55)]
    return [
        (LEAF, tiers),
        (WOOD, cylinder(at(p, y=-0.62), 0.13, 0.18)),
        (MAIN, union(sphere(at(p, y=0.84), 0.1), *(sphere(at(p, *ball), 0.1) for ball in balls))),
    ]


def mug(p: Points) -> Parts:
    """A hollow cylinder with a handle on its right, a stripe around."""
    wall = without(cylinder(at(p, y=-0.15), 0.52, 0.62, 0.05), cylinder(at(p, y=-0.02), 0.43, 0.62, 0.04))
    handle = torus(tilted(at(p, 0.55, -0.12, 0), 90), 0.3, 0.08)
    return [
        (MAIN, union(wall, without(handle, cylinder(at(p, y=-0.1), 0.48, 1.0)))),
        (PALE, without(cylinder(at(p, y=-0.15), 0.535, 0.14, 0.01), cylinder(p, 0.5, 2.0))),
        (WOOD, cylinder(at(p, y=0.1), 0.44, 0.2, 0.01)),
    ]


def chair(p: Points) -> Parts:
    """A seat on four legs with a back of three bars."""
    side = mirrored(p)
    legs = union(*(cylinder(at(side, 0.36, -0.48, z), 0.06, 0.32) for z in (-0.36, 0.36)))
    posts = cylinder(at(side, 0.36, 0.35, -0.36), 0.06, 0.5)
    bars = union(*(box(at(p, 0, y, -0.36), 0.36, 0.07, 0.035, 0.02) for y in (0.2, 0.46, 0.72)))
    return [(DEEP, union(legs, posts)), (MAIN, box(at(p, y=-0.13), 0.46, 0.08, 0.46, 0.05)), (PALE, bars)]


def robot(p: Points) -> Parts:
    """A box on a box with arms, legs, eyes and an antenna."""
    side = mirrored(p)
    limbs = union(
        box(at(side, 0.18, -0.66, 0.02), 0.12, 0.16, 0.16, 0.03),
        capsule(side, (0.45, 0.05, 0), (0.55, -0.3, 0.1), 0.09),
    )
    return [
        (MAIN, union(box(at(p, y=-0.18), 0.38, 0.36, 0.28, 0.05), box(at(p, y=0.46), 0.3, 0.22, 0.24, 0.05))),
        (DEEP, limbs),
        (PALE, box(at(p, 0, -0.14, 0.26), 0.22, 0.17, 0.05, 0.02)),
        (WHITE, sphere(at(side, 0.13, 0.5, 0.22), 0.075)),
        (DARK, union(sphere(at(side, 0.13, 0.5, 0.28), 0.035), box(at(p, 0, 0.33, 0.23), 0.13, 0.025, 0.03, 0.01))),
        (WOOD, union(cylinder(at(p, y=0.76), 0.025, 0.12), sphere(at(p, y=0.9), 0.07))),
    ]


def duck(p: Points) -> Parts:
    """A swimming body with a raised tail, a head with a beak."""
    body = blend(ellipsoid(at(p, y=-0.4), 0.46, 0.4, 0.68), sphere(at(p, 0, -0.12, -0.66), 0.14), 0.25)
    head = sphere(at(p, 0, 0.33, 0.3), 0.33)
    return [
        (MAIN, blend(body, head, 0.22)),
        (DEEP, ellipsoid(at(mirrored(p), 0.42, -0.33, -0.08), 0.12, 0.22, 0.38)),
        (WOOD, ellipsoid(at(p, 0, 0.24, 0.66), 0.16, 0.07, 0.2)),
        (DARK, sphere(at(mirrored(p), 0.16, 0.46, 0.54), 0.06)),
    ]


def fish(p: Points) -> Parts:
    """Seen best from the side: a tall body along z, fins and a tail."""
    tail = union(
        ellipsoid(tilted(at(p, 0, 0.1, -0.74), -35), 0.06, 0.34, 0.13),
        ellipsoid(tilted(at(p, 0, -0.22, -0.74), 35), 0.06, 0.34, 0.13),
    )
    stripes = union(*(box(at(p, 0, -0.06, z), 0.6, 0.8, 0.06, 0.01) for z in (0.22, -0.14)))
    body = ellipsoid(at(p, 0, -0.06, 0.08), 0.3, 0.52, 0.72)
    return [
        (MAIN, body),
        (PALE, without(ellipsoid(at(p, 0, -0.06, 0.08), 0.306, 0.526, 0.726), -stripes)),
        (
            DEEP,
            union(tail, ellipsoid(at(p, 0, 0.5, 0), 0.05, 0.2, 0.34), ellipsoid(at(p, 0, -0.56, 0), 0.05, 0.22, 0.2)),
        ),
        (WHITE, sphere(at(mirrored(p), 0.19, 0.06, 0.5), 0.1)),
        (DARK, sphere(at(mirrored(p), 0.25, 0.06, 0.55), 0.055)),
    ]


def lamp(p: Points) -> Parts:
    """A shade on a thin stand."""
    return [
        (MAIN, cone(at(p, y=0.45), 0.55, 0.28, 0.33)),
        (WHITE, cylinder(at(p, y=0.12), 0.48, 0.02, 0.005)),
        (DEEP, union(cylinder(at(p, y=-0.35), 0.05, 0.45), cylinder(at(p, y=-0.75), 0.36, 0.05))),
        (PALE, union(sphere(at(p, y=0.82), 0.07), sphere(at(p, y=-0.35), 0.11))),
    ]


def boat(p: Points) -> Parts:
    """A hull with a cabin and a funnel."""
    hull = without(ellipsoid(at(p, y=-0.2), 0.44, 0.62, 0.98), box(at(p, y=0.7), 2, 0.95, 2, 0.01))
    hull = without(hull, box(at(p, y=-1.3), 2, 0.5, 2, 0.01))
    return [
        (MAIN, hull),
        (PALE, without(ellipsoid(at(p, y=-0.2), 0.46, 0.64, 1.0), -box(at(p, y=-0.37), 2, 0.05, 2, 0.01))),
        (WHITE, box(at(p, 0, -0.02, -0.1), 0.24, 0.24, 0.36, 0.04)),
        (GLASS, union(*(sphere(at(mirrored(p), 0.22, 0.04, z), 0.075) for z in (-0.3, -0.08, 0.14)))),
        (DEEP, cylinder(at(p, 0, 0.42, -0.18), 0.13, 0.26)),
        (DARK, cylinder(at(p, 0, 0.66, -0.18), 0.14, 0.05)),
    ]


def cake(p: Points) -> Parts:
    """Two tiers with icing, berries and a candle."""
    places = ((0.0, 0.52), (0.45, 0.26), (0.45, -0.26), (0.0, -0.52))
    berries = [sphere(at(mirrored(p), x, -0.16, z), 0.07) for x, z in places]
    return [
        (MAIN, union(cylinder(at(p, y=-0.54), 0.62, 0.26, 0.04), cylinder(p, 0.4, 0.26, 0.04))),
        (WHITE, union(cylinder(at(p, y=-0.26), 0.64, 0.07, 0.06), cylinder(at(p, y=0.24), 0.42, 0.06, 0.05))),
        (DEEP, union(*berries)),
        (PALE, cylinder(at(p, y=0.5), 0.06, 0.24)),
        (WOOD, ellipsoid(at(p, y=0.84), 0.05, 0.11, 0.05)),
    ]


def castle(p: Points) -> Parts:
    """Four towers with pointed roofs around a keep with a gate."""
    corner = at(quartered(p), 0.4, 0, 0.4)
    return [
        (PALE, union(box(at(p, y=-0.45), 0.4, 0.35, 0.4, 0.02), cylinder(at(corner, y=-0.3), 0.18, 0.5))),
        (MAIN, cone(at(corner, y=0.42), 0.25, 0.01, 0.24)),
        (DEEP, box(at(p, 0, -0.6, 0.38), 0.14, 0.22, 0.06, 0.03)),
        (WHITE, cylinder(at(p, y=0.05), 0.24, 0.5)),
        (DEEP, cone(at(p, y=0.76), 0.32, 0.01, 0.22)),
    ]


def cactus(p: Points) -> Parts:
    """Green arms in a pot of the colour, with a flower."""
    arms = union(
        capsule(p, (0, -0.3, 0), (0, 0.6, 0), 0.2),
        capsule(p, (0.15, 0.0, 0), (0.45, 0.08, 0), 0.12),
        capsule(p, (0.45, 0.08, 0), (0.45, 0.4, 0), 0.12),
        capsule(p, (-0.15, 0.16, 0), (-0.42, 0.24, 0), 0.11),
        capsule(p, (-0.42, 0.24, 0), (-0.42, 0.52, 0), 0.11),
    )
    petals = [sphere(at(mirrored(p), 0.1, 0.82, z), 0.08) for z in (-0.07, 0.07)]
    return [
        (LEAF, arms),
        (MAIN, union(cone(at(p, y=-0.55), 0.3, 0.42, 0.25), cylinder(at(p, y=-0.3), 0.46, 0.07))),
        (PALE, union(sphere(at(p, y=0.82), 0.1), *petals)),
        (WOOD, cylinder(at(p, y=-0.24), 0.39, 0.03, 0.01)),
    ]


TOYS: dict[str, Callable[[Points], Parts]] = {
    function.__name__: function
    for function in (
        snowman,
        mushroom,
        house,
        car,
        rocket,
        tree,
        mug,
        chair,
        robot,
        duck,
        fish,
        lamp,
        boat,
        cake,
        castle,
        cactus,
    )
}
KINDS = tuple(TOYS)


def distance(kind: str, p: Points) -> Tensor:
    """The signed distance of a whole toy."""
    return union(*(value for _, value in TOYS[kind](p)))


def painted(kind: str, p: Points) -> Tensor:  # int64
    """The paint of the nearest solid; of two equally near the one that is listed later."""
    parts = TOYS[kind](p)
    nearest = torch.stack([value for _, value in reversed(parts)]).argmin(dim=0)
    return nearest.new_tensor([paint for paint, _ in reversed(parts)])[nearest]
