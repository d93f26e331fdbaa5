"""The command that converts a published checkpoint: what it writes is what a run finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.rid.convert import main
from engines.rid.defender import GREY_LEVELS
from engines.rid.pipeline import locate
from studio.errors import InvalidInput
from tests.engines.fake_context import FakeContext
from tests.engines.rid.tiny import loud_defender


def written(folder: Path, name: str) -> Path:
    torch.save(loud_defender(6, folded=False).state_dict(), folder / name)
    return folder / name


def test_what_is_converted_is_found_and_lent(tmp_path: Path, capsys):
    file = written(tmp_path, "ASDS-eps-12_255.bin")
    assert main([str(file), "--heads", "2"]) == 0
    assert "ASDS-eps-12_255.safetensors: 6 grey levels" in capsys.readouterr().out
    file.unlink()
    found = locate("published", 5, tmp_path)
    assert found.path.name == "ASDS-eps-12_255.safetensors"
    assert found.trained == 6
    with found.lend(FakeContext()) as defender:
        assert defender.eps == pytest.approx(6 / GREY_LEVELS)


def test_a_name_without_a_budget_needs_one(tmp_path: Path, capsys):
    file = written(tmp_path, "noise_model_modules.bin")
    assert main([str(file), "--heads", "2"]) == 2
    assert "which budget" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main([str(file), "--heads", "2", "--budget", "6", "--out", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "ASDS-eps-12_255.safetensors").is_file()


def test_a_file_that_is_not_there_says_so(tmp_path: Path, capsys):
    assert main([str(tmp_path / "ASDS-eps-12_255.bin")]) == 2
    assert "ASDS-eps-12_255.bin" in capsys.readouterr().err


@pytest.mark.usefixtures("pocket_weights")
def test_a_file_of_another_budget_is_not_lent(tmp_path: Path):
    folder = tmp_path / "pocket"
    (folder / "rid-24.safetensors").write_bytes((folder / "rid-6.safetensors").read_bytes())
    with pytest.raises(InvalidInput, match="made for 6 grey levels") as caught:
        with locate("pocket", 24, None).lend(FakeContext()):
            pass
    assert caught.value.remedy


def test_another_file_is_not_written_over(tmp_path: Path, capsys):
    """An ablation has the budget of the whole method in its name, and would be found as it."""
    file = written(tmp_path, "ASDS-eps-12_255.bin")
    assert main([str(file), "--heads", "2"]) == 0
    assert main([str(file), "--heads", "2"]) == 0, "the same again is no other"
    kept = (tmp_path / "ASDS-eps-12_255.safetensors").read_bytes()
    torch.save(loud_defender(6, folded=False, seed=1).state_dict(), tmp_path / "ASDS-onlyreg-eps12_255.bin")
    assert main([str(tmp_path / "ASDS-onlyreg-eps12_255.bin"), "--heads", "2"]) == 2
    assert "made from another file" in capsys.readouterr().err
    assert (tmp_path / "ASDS-eps-12_255.safetensors").read_bytes() == kept
