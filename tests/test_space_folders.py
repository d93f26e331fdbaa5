"""Every Space folder says what a Space needs to know, and says it truly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "spaces").glob("*/README.md"))


def front_matter(folder: Path) -> dict[str, str]:
    block = (folder / "README.md").read_text().split("---")[1]
    return dict(re.findall(r"^(\w+):\s*(.+?)\s*$", block, flags=re.M))


def test_there_is_a_space():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_front_matter_is_true(folder: Path):
    said = front_matter(folder)
    pinned = (ROOT / "constraints.txt").read_text()
    assert said["sdk"] == "gradio"
    assert f"gradio=={said['sdk_version']}\n" in pinned
    assert said["license"] == "apache-2.0"
    assert (ROOT / said["app_file"]).is_file()
    assert (3, 11) <= tuple(map(int, said["python_version"].strip('"').split("."))) <= (3, 13)
    assert len(said["short_description"]) <= 60
