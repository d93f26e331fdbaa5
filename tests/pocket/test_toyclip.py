"""The pocket CLIP: which captions fit which pictures, wrong words, and that training brings right pairs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel

from pocket import toyclip
from pocket.sides import Sights, pictures_of
from pocket.toyclip import WORDS, fits, loss, misspoken, speak
from pocket.wording import ToySpec, parse, write
from pocket.world import sample_scene
from tests.engines.text2image.tiny import words

CAR = ToySpec("car", "red", "matte", 1, "side", None, "sand", "dusky")


def test_a_caption_fits_what_it_is_true_of():
    duck = ToySpec("duck", "red", "matte", 2, "side", "grey")
    said = [
        ToySpec("car"),
        ToySpec("car", "red", view="side"),
        ToySpec("car", "blue"),
        ToySpec("duck", number=2),
        CAR,
    ]
    expected = [[True, False], [True, False], [False, False], [False, True], [True, False]]
    assert fits(said, [CAR, duck]).tolist() == expected


def test_what_is_spoken_is_true_and_what_is_misspoken_is_not():
    rng = np.random.default_rng(0)
    for seed in range(200):
        truth = sample_scene(seed).truth
        spoken = speak(truth, rng)
        assert fits([spoken], [truth]).item()
        wrong = misspoken(spoken, rng)
        assert not fits([wrong], [truth]).item()
        assert parse(write(wrong)) == wrong
        changed = [name for name in WORDS if getattr(wrong, name) != getattr(spoken, name)]
        assert len(changed) == 1


def test_training_brings_right_pairs_together():
    tokens = words()
    sights = _sights(range(48))
    torch.manual_seed(0)
    model = toyclip.build(tokens).train()
    texts, right = toyclip.encode(tokens, sights.truths), fits(sights.truths, sights.truths)
    pictures = toyclip.to_tensor(sights.pictures)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    values = []
    for _ in range(30):
        value = loss(model, pictures, texts, right)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        values.append(value.item())
    assert values[-1] < values[0] - 0.3


def test_it_is_stored_as_transformers_reads_it(tmp_path: Path):
    sights, said = _sights(range(100, 140)), []
    toyclip.store(toyclip.build(words()).eval(), sights, words(), tmp_path / "clip", said.append)
    read = CLIPModel.from_pretrained(tmp_path / "clip")
    assert read.dtype == torch.float32
    assert read.config.vision_config.image_size == 64
    assert sum(file.stat().st_size for file in (tmp_path / "clip").iterdir()) < 10_000_000
    report = toyclip.examine(read.eval(), sights, words(), group=20)
    assert 0 <= report["picture_for_caption"] <= 0.5
    assert {f"wrong_{name}_noticed" for name in WORDS} <= set(report)


def _sights(seeds: range) -> Sights:
    scenes = [sample_scene(seed) for seed in seeds]
    return Sights(pictures_of(scenes), tuple(scene.truth for scene in scenes))
