"""Checkpoints: converted once with their budget, and refused with a sentence where something is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engines.rid import checkpoints
from engines.rid.checkpoints import budget_of_name, convert, load, registered
from studio.errors import InvalidInput
from tests.engines.rid.test_defender import pictures, trained


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "ASDS-eps-8_255.bin"
    torch.save(trained().float().state_dict(), path)
    return path


def test_a_published_file_is_converted_and_loads(published: Path, tmp_path: Path):
    target = tmp_path / "eight.safetensors"
    told = convert(published, target, num_heads=3)
    assert told.eps == 8 / 255
    assert target.stat().st_size < 0.8 * published.stat().st_size
    defender, whole = load(target), trained().float()
    whole.eps = 8 / 255
    with torch.no_grad():
        torch.testing.assert_close(defender(pictures().float()), whole(pictures().float()), atol=1e-5, rtol=0)


class Attack:
    def __reduce__(self):
        return os.system, ("echo attacked",)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, capfd):
    path = tmp_path / "ASDS-eps-8_255.bin"
    torch.save({"pos_embed": Attack()}, path)
    with pytest.raises(InvalidInput, match="something other than weights"):
        convert(path, tmp_path / "out.safetensors")
    assert "attacked" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("final_layer.linear.bias"), "lacks 1"),
        (lambda state: state.update({"extra": torch.zeros(1)}), "has besides 1"),
        (lambda state: state.update({"blocks.1.attn.qkv.bias": torch.zeros(3)}), "another shape"),
        (lambda state: state.pop("pos_embed"), "not the weights of a defender"),
        (lambda state: state.update({"note": "hello"}), "no plain table"),
    ],
)
def test_other_weights_are_refused(change, says: str, tmp_path: Path):
    state = trained().float().state_dict()
    change(state)
    torch.save(state, tmp_path / "ASDS-eps-6_255.bin")
    with pytest.raises(InvalidInput, match=says):
        convert(tmp_path / "ASDS-eps-6_255.bin", tmp_path / "out.safetensors", num_heads=3)


def test_damaged_files_are_refused(published: Path, tmp_path: Path):
    cut = tmp_path / "ASDS-eps-12_255.bin"
    cut.write_bytes(published.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match="damaged"):
        convert(cut, tmp_path / "out.safetensors")
    with pytest.raises(InvalidInput, match="damaged"):
        load(cut)
    disguised = tmp_path / "disguised.safetensors"
    disguised.write_bytes(published.read_bytes())
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(disguised)


def test_what_is_made_to_look_like_weights_is_refused(tmp_path: Path):
    crafted = tmp_path / "ASDS-eps-12_255.bin"
    crafted.write_bytes(b"\x80\x02h\x05.")  # asks for what was never stored
    with pytest.raises(InvalidInput, match="damaged"):
        load(crafted)
    state = trained().float().state_dict()
    torch.save(state | {"pos_embed": torch.zeros(3)}, crafted)
    with pytest.raises(InvalidInput, match="not the weights of a defender"):
        load(crafted)


def test_the_budget_must_be_known():
    assert budget_of_name("ASDS-onlysds-eps12_255.bin") == 12 / 255
    with pytest.raises(InvalidInput, match="which budget"):
        budget_of_name("noise_model_modules.bin")


def test_a_budget_belongs_to_the_bytes_and_not_to_the_name(published: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PUBLISHED_HEADS", 3)
    told = convert(published, tmp_path / "eight.safetensors", num_heads=3)
    known = registered(tmp_path)
    assert known[told.source] == pytest.approx(8 / 255)
    assert len(known) == 2
    assert load(published, 8 / 255).eps == 8 / 255
    renamed = published.rename(tmp_path / "ASDS-eps-12_255.bin")
    with pytest.raises(InvalidInput, match=r"made for 6 grey levels, and budgets\.json says 4"):
        load(renamed)
    with pytest.raises(InvalidInput, match=r"budgets\.json says 4"):
        convert(renamed, tmp_path / "twelve.safetensors", num_heads=3)
    assert not (tmp_path / "twelve.safetensors").exists()
    swapped = (tmp_path / "eight.safetensors").rename(tmp_path / "ASDS-eps-12_255.safetensors")
    with pytest.raises(InvalidInput, match="made for 4 grey levels, and the strength it is asked for says 6"):
        load(swapped, 12 / 255)


def test_a_budget_that_the_name_contradicts_is_refused(published: Path, tmp_path: Path):
    with pytest.raises(InvalidInput, match="its name says 4"):
        convert(published, tmp_path / "out.safetensors", 12 / 255, num_heads=3)
    nameless = published.rename(tmp_path / "noise_model_modules.bin")
    assert convert(nameless, tmp_path / "out.safetensors", 12 / 255, num_heads=3).eps == 12 / 255


def test_a_table_that_is_none_is_refused(published: Path, tmp_path: Path):
    for text in ("[1]", "no json", '{"a": "b"}'):
        (tmp_path / "budgets.json").write_text(text)
        with pytest.raises(InvalidInput, match="no table of budgets"):
            convert(published, tmp_path / "out.safetensors", num_heads=3)


def rewritten(path: Path, **told: str) -> None:
    """The same weights under another header."""
    with safe_open(path, "pt") as file:
        header = file.metadata() | told
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    save_file(weights, path, metadata=header)


def test_a_converted_file_is_the_one_that_was_converted(published: Path, tmp_path: Path):
    target = tmp_path / "eight.safetensors"
    convert(published, target, num_heads=3)
    rewritten(target, eps=repr(4 / 255), source="")
    with pytest.raises(InvalidInput, match=r"budgets\.json does not know eight\.safetensors"):
        load(target)
    (tmp_path / "budgets.json").unlink()
    assert load(target).eps == 4 / 255, "nothing is known of it then"


@pytest.mark.parametrize("eps", [float("nan"), 0.0, -0.1, float("inf"), 9.0])
def test_what_is_no_budget_is_refused(published: Path, tmp_path: Path, eps: float):
    nameless = published.rename(tmp_path / "noise_model_modules.bin")
    target = tmp_path / "out.safetensors"
    with pytest.raises(InvalidInput, match="are no budget"):
        convert(nameless, target, eps, num_heads=3)
    assert not target.exists()
    convert(nameless, target, 8 / 255, num_heads=3)
    rewritten(target, eps=repr(eps))
    with pytest.raises(InvalidInput, match="are no budget"):
        load(target)
    with pytest.raises(InvalidInput, match="are no budget"):
        budget_of_name("ASDS-eps-0_255.bin")


@pytest.mark.parametrize("heads", [0, 7])
def test_heads_that_cannot_share_the_width_are_refused(published: Path, tmp_path: Path, heads: int):
    with pytest.raises(InvalidInput, match=f"cannot be shared by {heads} heads"):
        convert(published, tmp_path / "out.safetensors", num_heads=heads)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    path = tmp_path / "ASDS-eps-8_255.bin"
    for change, says in (
        ({"final_layer.linear.bias": torch.full((192,), torch.nan)}, "numbers"),
        ({3: torch.zeros(1)}, "plain"),
    ):
        torch.save(trained().float().state_dict() | change, path)
        with pytest.raises(InvalidInput, match=says):
            convert(path, tmp_path / "out.safetensors", num_heads=3)
