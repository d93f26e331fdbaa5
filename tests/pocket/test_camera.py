"""The cameras of the world of toys, in CRM's conventions: its fixtures, and where its six views show a point."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pocket.camera import Camera

FIXTURES = Path(__file__).parents[1] / "fixtures" / "crm"
ZUP = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)  # ours is y-up
# Elevation and azimuth in degrees, in CRM's order: front, left, down, back, right, top.
SIX = {"front": (0, 0), "left": (0, -90), "down": (-90, 0), "back": (0, 180), "right": (0, 90), "top": (90, 0)}


def camera(elevation: float, azimuth: float) -> Camera:
    """Orthographic, and its window spans [-1, 1]."""
    return Camera(1.0, math.radians(90 - elevation), math.radians(azimuth), extent=1.0)


def told(name: str) -> tuple[dict, torch.Tensor]:
    with np.load(FIXTURES / name, allow_pickle=False) as file:
        return json.loads(str(file["meta"]))["kwargs"], torch.from_numpy(file["out_camera"]).double()


def test_the_six_views_are_crms():
    kwargs, wanted = told("camera_views_a.npz")
    mine = torch.stack([(ZUP @ camera(*place).c2w).flatten() for place in SIX.values()])
    torch.testing.assert_close(mine[kwargs["view_indices"]], wanted, atol=1e-6, rtol=0)


def test_orbits_are_crms():
    kwargs, wanted = told("camera_orbit_a.npz")
    turns = [kwargs["azimuth_start"] + kwargs["azimuth_span"] * i / kwargs["num_frames"] for i in range(len(wanted))]
    mine = torch.stack([camera(kwargs["elevation"], turn).c2w.flatten() for turn in turns])
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("view", "right", "down", "near"),
    [
        ("front", (-1, 0, 0), (0, 0, -1), (0, 1, 0)),
        ("back", (1, 0, 0), (0, 0, -1), (0, -1, 0)),
        ("left", (0, 1, 0), (0, 0, -1), (1, 0, 0)),
        ("right", (0, -1, 0), (0, 0, -1), (-1, 0, 0)),
        ("top", (-1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ("down", (-1, 0, 0), (0, -1, 0), (0, 0, -1)),
    ],
)
def test_canonical_maps_read_like_crms(view: str, right: tuple, down: tuple, near: tuple):
    """The table of CRM's canonical maps; its object frame is its camera frame, turned half about z."""
    point = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    turned = point * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    ours = turned @ ZUP[:3, :3]  # back from z-up: the transpose is the inverse
    found = camera(*SIX[view]).project(ours, 2) - 1
    wanted = torch.stack([point @ torch.tensor(axis, dtype=torch.float64) for axis in (right, down)], dim=-1)
    torch.testing.assert_close(found, wanted)
    nearness = 1 - camera(*SIX[view]).depth(ours)  # the camera stands at a distance of 1
    torch.testing.assert_close(nearness, point @ torch.tensor(near, dtype=torch.float64))
