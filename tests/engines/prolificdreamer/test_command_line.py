"""`python -m studio run prolificdreamer` as a newcomer types it, on the shipped model, with the smallest sizes.

Of "a car" the world of toys does not know the colour, so that no truth is drawn, which takes longer than all else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import trimesh

from studio.embedded import read_provenance

ROOT = Path(__file__).resolve().parents[3]
SMALLEST = {
    "iterations": 2,
    "views": 1,
    "render-size": 16,
    "render-size-early": 16,
    "samples": 8,
    "importance": 0,
    "occupancy": 0,
    "levels": 2,
    "mesh-grid": 12,
    "texture-size": 32,
    "frames": 4,
    "picture-size": 32,
    "formats": "glb,video",
    "methods": "vsd",
}


def test_a_textured_mesh_and_a_turntable_lie_in_the_folder(tmp_path: Path):
    out = tmp_path / "out"
    sizes = [part for name, value in SMALLEST.items() for part in (f"--{name}", str(value))]
    command = ["run", "prolificdreamer", "--prompt", "a car", "--preset", "preview", "--out", str(out), *sizes]
    done = subprocess.run([sys.executable, "-m", "studio", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mesh = trimesh.load(out / "vsd-0.glb", force="mesh")
    assert mesh.visual.material.baseColorTexture.size == (32, 32)
    assert read_provenance((out / "vsd-0.glb").read_bytes())["params"]["prompt"] == "a car"
    assert iio.imread(out / "vsd-0.mp4").shape == (4, 32, 32, 3)
