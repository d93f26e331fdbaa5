"""Checkpoints that would run code: every loader of the house meets one, refuses it, and nothing has run."""

from __future__ import annotations

import ast
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.rid import checkpoints
from engines.shared.pipeline import complete
from engines.ultraimage.pipeline import Weights, locate
from engines.ultraimage.presets import MODELS
from studio.bundle import pack, unpack
from studio.errors import AtelierError, InvalidInput
from studio.uploads import check_upload

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "diffusion_pytorch_model"


class Trap:
    """Makes the file `sprung` when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return Path.touch, (self.sprung,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped model, with a home of its own."""
    source = Path(next(model.repo for model in MODELS.values() if model.local))
    target = tmp_path / "weights" / "owner--name"
    shutil.copytree(ROOT / source, target)
    return target


def test_the_trap_works(sprung: Path):
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "otherwise no test here would prove anything"


@pytest.mark.parametrize("inside", ["table", "bare"])
def test_a_published_checkpoint_that_runs_code_is_refused(tmp_path: Path, sprung: Path, inside: str):
    source = tmp_path / "ASDS-eps-12_255.bin"
    trap = Trap(sprung)
    torch.save({"weight": torch.zeros(2), "extra": trap} if inside == "table" else trap, source)
    with pytest.raises(InvalidInput):
        checkpoints.convert(source, tmp_path / "made.safetensors")
    assert not sprung.exists()


def test_a_model_with_pickled_weights_alone_is_not_a_model(folder: Path, sprung: Path):
    part = folder / "transformer"
    next(part.glob("*.safetensors")).unlink()
    torch.save({"weight": Trap(sprung)}, part / f"{WEIGHTS}.bin")
    assert not complete(folder)
    weights = Weights("full", MODELS[next(iter(MODELS))], "owner/name", "r", folder)
    with pytest.raises((OSError, AtelierError)):
        weights.load("transformer", "cpu")
    assert not sprung.exists()


def test_pickled_weights_beside_the_others_are_left_alone(folder: Path, sprung: Path):
    torch.save({"weight": Trap(sprung)}, folder / "transformer" / f"{WEIGHTS}.bin")
    torch.save(Trap(sprung), folder / "transformer" / "optimizer.pt")
    preset = next(name for name, model in MODELS.items() if model.local)
    weights = Weights(preset, MODELS[preset], "owner/name", "r", folder)
    weights.load("transformer", "cpu")
    assert locate(preset, folder.parent).revision
    assert not sprung.exists()


def test_a_pickle_called_safetensors_is_refused(folder: Path, sprung: Path):
    path = next((folder / "transformer").glob("*.safetensors"))
    torch.save({"weight": Trap(sprung)}, path)
    preset = next(name for name, model in MODELS.items() if model.local)
    with pytest.raises(Exception, match=r"(?i)header|safetensors|deserializ"):
        Weights(preset, MODELS[preset], "owner/name", "r", folder).load("transformer", "cpu")
    assert not sprung.exists()


def test_a_job_goes_on_from_no_pickle(sprung: Path):
    with pytest.raises(ValueError, match="not a bundle"):
        unpack(pickle.dumps(Trap(sprung)))
    with pytest.raises(TypeError):
        pack({"state": Trap(sprung)})
    assert not sprung.exists()


def test_a_pickle_is_no_upload(sprung: Path):
    for protocol in range(6):
        with pytest.raises(InvalidInput):
            check_upload(pickle.dumps(Trap(sprung), protocol))
    assert not sprung.exists()


UNSAFE = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load", "marshal.loads", "shelve.open",
    "torch.hub.load", "yaml.load", "yaml.unsafe_load", "os.system", "eval", "exec",
}  # fmt: skip


def calls(path: Path) -> list[tuple[str, dict[str, str], int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            words = {word.arg or "**": ast.unparse(word.value) for word in node.keywords}
            found.append((ast.unparse(node.func), words, node.lineno))
    return found


@pytest.mark.parametrize("place", ["studio", "engines", "demos", "pocket", "app.py"])
def test_no_code_of_the_house_loads_in_another_way(place: str):
    paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    for path in paths:
        for name, words, line in calls(path):
            where = f"{path.relative_to(ROOT)}:{line}"
            assert name not in UNSAFE, where
            assert words.get("allow_pickle", "False") == "False", where
            assert words.get("weights_only", "True") == "True", where
            assert words.get("trust_remote_code", "False") == "False", where
            assert words.get("use_safetensors", "True") == "True", where
            assert words.get("shell", "False") == "False", where
            if re.fullmatch(r"(torch|t)\.load", name):
                assert words.get("weights_only") == "True", f"{where}: weights_only=True is missing"
