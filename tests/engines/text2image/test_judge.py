"""The judge: its words are the world's, its file says what it says, and it learns what it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engines.text2image import judge
from engines.text2image.judge import BROKEN, Judge, JudgeNet, classes, fit, to_tensor
from pocket import toys, wording
from tests.engines.text2image import tiny


def test_its_words_are_the_worlds():
    assert judge.KINDS == toys.KINDS
    assert judge.COLOURS == wording.COLOURS
    assert judge.VIEWS == wording.VIEWS


def test_a_stored_judge_says_what_it_said(tmp_path: Path):
    read = Judge.load(tiny.judge_folder(tmp_path / "judge"))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    torch.manual_seed(1)
    net = JudgeNet().half().float().eval()
    with torch.no_grad():
        kinds = net(to_tensor(pictures))["kind"].argmax(-1).tolist()
    assert [v.kind for v in read(pictures)] == [judge.KINDS[k] if k != BROKEN else None for k in kinds]
    assert read.sided == {"car"}
    assert read(pictures[:0]) == []


def test_other_sizes_are_brought_to_its_own(tmp_path: Path):
    read = Judge.load(tiny.judge_folder(tmp_path / "judge"))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    assert read(pictures.repeat(4, 1).repeat(4, 2)) == read(pictures)


def test_it_learns_colours_and_what_is_broken():
    """Flat patches of eight colours, grey ones broken: a few steps suffice to tell them apart."""
    rng = np.random.default_rng(0)
    shades = rng.integers(30, 226, (8, 3))
    colours = torch.from_numpy(rng.integers(0, 8, 256))
    pictures = np.broadcast_to(shades[colours.numpy()][:, None, None], (256, 64, 64, 3)).astype(np.uint8).copy()
    zero = torch.zeros(256, dtype=torch.int64)
    labels = {"kind": zero, "colour": colours, "view": zero, "number": zero}

    def distort(
        inputs: torch.Tensor, _: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        marked = torch.zeros(len(inputs), dtype=torch.bool)
        marked[::4] = True
        noise = torch.randn(inputs.shape, generator=generator)
        return torch.where(marked[:, None, None, None], noise, inputs), marked

    net = fit(pictures, labels, distort, seed=0, epochs=12, log=lambda _: None, batch=64)
    with torch.no_grad():
        seen = net(to_tensor(pictures))
        broken = net(torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(9)))
    assert (seen["colour"].argmax(-1) == colours).float().mean() > 0.95
    assert (seen["kind"].argmax(-1) == 0).float().mean() > 0.95
    assert (broken["kind"].argmax(-1) == BROKEN).float().mean() > 0.9


def test_damage_counts_before_it_is_the_likeliest():
    kind = torch.full((3, BROKEN + 1), -9.0)
    kind[:, 4] = 2.0
    kind[1, BROKEN], kind[2, BROKEN] = 1.0, 1.5
    logits = {"kind": kind, "colour": torch.eye(3, 8)}
    assert classes(logits, 0.3)["kind"].tolist() == [4, 4, BROKEN]
    assert classes(logits, 0.2)["kind"].tolist() == [4, BROKEN, BROKEN]
    assert classes(logits, 0.9)["kind"].tolist() == [4, 4, 4]
    assert classes(logits, 0.9)["colour"].tolist() == [0, 1, 2]
