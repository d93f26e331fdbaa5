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
from pocket.clipvae import SHAPES, build, code_gap, crops, psnr, settled, to_tensor, unsettled

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


def test_a_clip_is_written_as_if_it_had_stood_still_before(shipped: AutoencoderKLWan):
    assert unsettled(shipped, 0) < 0.25
    torch.manual_seed(0)
    untrained = build().eval()
    clipvae.calibrate(untrained, 0, count=2, frames=9)
    assert unsettled(untrained, 0) > 0.5, "one that has learned nothing does not"


def test_what_has_settled_does_not_depend_on_how_long_it_rested(
    shipped: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch
):
    clips = to_tensor(np.stack([render(sample(seed), 9) for seed in range(2)]))
    one, deviation = settled(shipped, clips), torch.tensor(shipped.config.latents_std)[:, None, None, None]
    assert one.shape == shipped.encode(clips).latent_dist.mean.shape
    monkeypatch.setattr(clipvae, "REST", 32)
    assert ((settled(shipped, clips) - one) / deviation).square().mean().sqrt() < 0.05


@torch.no_grad()
def test_a_video_may_begin_in_the_middle_of_a_movement(shipped: AutoencoderKLWan):
    clips = to_tensor(np.stack([render(sample(seed), 25) for seed in range(4)]))
    latents = shipped.encode(clips).latent_dist.mean
    begun = shipped.decode(latents[:, :, 3:]).sample[:, :, :5]
    error = ((begun - clips[:, :, 12:17]) / 2).square().mean((1, 2, 3, 4))
    assert float((-10 * error.log10()).mean()) > 29


def test_polishing_settles_the_code(shipped: AutoencoderKLWan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clipvae, "POLISH", replace(clipvae.POLISH, steps=6, batch=4, warmup=1, cooldown=1, ema=0.0))
    monkeypatch.setattr(clipvae, "POLISH_SHAPES", ((9, 16),))
    torch.manual_seed(0)
    begun = build().eval()
    clipvae.calibrate(begun, 0, count=2, frames=9)
    polished, told = copy.deepcopy(begun), []
    clipvae.polish(polished, tmp_path, 100, False, told.append)
    changed = {
        name.split(".")[0] for name, new in polished.state_dict().items() if not new.equal(begun.state_dict()[name])
    }
    assert {"encoder", "decoder"} <= changed
    assert unsettled(polished, 0) < unsettled(begun, 0)
    assert "dB" in told[0]


def test_crops_are_of_one_shape_and_show_the_object():
    for seed in range(6):
        cut = crops(5, seed)
        assert (cut.shape[1], cut.shape[2]) in SHAPES
        assert cut.shape[2] == cut.shape[3]
        assert np.array_equal(cut, crops(5, seed)), "the same for the same seed"
