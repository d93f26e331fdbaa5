"""The autoencoder of the moving things: what it gives back, and that all frames are written in one code."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from pocket import clipvae
from pocket.clips import render, sample
from pocket.clipvae import SHAPES, build, code_gap, crops, psnr, to_tensor

SHIPPED = Path(__file__).parents[2] / "assets" / "pocket" / "ultravico" / "vae"


@pytest.fixture(scope="module")
def shipped() -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(SHIPPED).eval()


@torch.no_grad()
def test_the_first_frame_is_written_like_the_others(shipped: AutoencoderKLWan):
    torch.manual_seed(0)
    clips = to_tensor(np.stack([render(sample(seed), 1) for seed in range(8)]))
    assert code_gap(shipped, clips) < 0.15
    assert code_gap(build().eval(), clips) > 0.3, "an untrained one does not"


def test_clips_come_back(shipped: AutoencoderKLWan):
    assert psnr(shipped, 0, count=4) > 27


def test_polishing_changes_what_decodes_alone(
    shipped: AutoencoderKLWan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clipvae, "POLISH", replace(clipvae.POLISH, steps=2, warmup=1, cooldown=1, ema=0.0))
    monkeypatch.setattr(clipvae, "POLISH_SHAPES", ((5, 16),))
    before, polished, told = shipped.state_dict(), copy.deepcopy(shipped), []
    clipvae.polish(polished, tmp_path, 100, False, told.append)
    changed = {name.split(".")[0] for name, weight in polished.state_dict().items() if not weight.equal(before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert "dB" in told[0]


def test_crops_are_of_one_shape_and_show_the_object():
    for seed in range(6):
        cut = crops(5, seed)
        assert (cut.shape[1], cut.shape[2]) in SHAPES
        assert cut.shape[2] == cut.shape[3]
        assert np.array_equal(cut, crops(5, seed)), "the same for the same seed"
