"""The front door builds, here and as a Hugging Face Space would, without torch and without stubs for editors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
from pathlib import Path

from starlette.testclient import TestClient

from app import create_app
from studio.services import open_services
from studio.settings import Settings

app = create_app(open_services(Settings(home=Path(sys.argv[1]), devices=("cpu",))))
for path in ("/", "/ultraimage", "/prolificdreamer", "/ultravico", "/rid", "/jobs", "/gallery", "/machine", "/about"):
    answer = TestClient(app).get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200, (path, answer.status_code)
    assert "Atelier" in answer.text, path
import gradio.component_meta

heavy = {"torch", "diffusers", "transformers"} & set(sys.modules)
assert not heavy, heavy
assert gradio.component_meta.create_or_modify_pyi() is None
"""


@pytest.mark.parametrize("around", [{}, {"SYSTEM": "spaces", "SPACE_ID": "x/y"}], ids=["here", "on a Space"])
def test_the_app_builds_and_every_page_comes(around: dict[str, str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | around,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
