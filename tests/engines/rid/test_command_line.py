"""A folder of photos from the command line: the shipped defender, and a sentence for every file that is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
PEOPLE = ROOT / "assets" / "examples" / "people"


def test_a_folder_is_protected_and_what_is_no_photo_is_named(tmp_path: Path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in (1, 2):
        shutil.copy(PEOPLE / f"{number}.png", photos)
    (photos / "broken.png").write_bytes((PEOPLE / "1.png").read_bytes()[:200])
    command = ["run", "rid", "--images", str(photos), "--out", str(out), "--budget", "12"]
    done = subprocess.run([sys.executable, "-m", "studio", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number in (1, 2):
        before, after = (np.asarray(Image.open(folder / f"{number}.png")).astype(int) for folder in (photos, out))
        assert before.shape == after.shape
        assert 0 < np.abs(after - before).max() <= 12
    assert "1 of 3 files could not be used. broken.png: The picture is damaged" in done.stderr
    assert (out / "report.csv").read_text().count("\n") == 4
