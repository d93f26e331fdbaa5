"""The pool of toy people: true, in the layout of the toys' pool, and spoken of as the grammar allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocket import lessons, people, peoplepool, text2image, toypool, toyvae
from pocket.toys import PAINTS
from pocket.wording import PersonSpec, parse, write


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("people") / "0.safetensors"
    peoplepool.fill(path, 70, 2)
    return path


def test_a_pool_holds_what_was_drawn(shard: Path):
    layouts, truths = peoplepool.load([shard])
    count = 2 * lessons.PORTRAITS
    assert toypool.pictures([shard]).shape == (count, 3, 64, 64)
    assert layouts.shape == (count, toypool.LAYOUT, 8, 8)
    assert layouts[:, 0].float().amax((1, 2)).min() > 0.5, "every picture shows a person"
    assert not layouts[:, -len(PAINTS) :].any()
    assert truths[0] == people.sample(70, 70 * 97).truth
    assert len({(truth.shirt, truth.hair, truth.worn) for truth in truths}) == 2, "several views of each"


def test_captions_are_true_and_can_be_read(shard: Path):
    _, truths = peoplepool.load([shard])
    rng = np.random.default_rng(0)
    said = [peoplepool.speak(truth, rng) for truth in truths * 10]
    for spec, truth in zip(said, truths * 10, strict=True):
        assert parse(write(spec)) == spec
        assert set(spec.worn) <= set(truth.worn)
        assert people.words_of(spec) <= people.LONGEST
        assert all(getattr(spec, name) in (None, getattr(truth, name)) for name in ("shirt", "hair", "view", "plain"))
    assert len(set(said)) > 20
    everything = PersonSpec("teal", "ginger", ("hat", "glasses", "beard"), "front", "grey")
    assert max(people.words_of(peoplepool.speak(everything, rng)) for _ in range(200)) <= people.LONGEST


def test_batches_mix_toys_and_people(shard: Path, tmp_path: Path):
    toys = tmp_path / "toys.safetensors"
    toypool.fill(toys, 100, 6)
    torch.manual_seed(0)
    autoencoder = toyvae.build().eval()
    latents = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for source, path in zip((toys, shard), latents, strict=True):
        text2image.encode(source, path, autoencoder)
    batches = text2image.CaptionedLatents([toys], latents[:1], [shard], latents[1:])
    one, again = (batches.draw(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    encoded, tokens, layouts = one
    assert encoded.shape == (8, 4, 16, 16)
    assert layouts.shape == (8, toypool.LAYOUT, 8, 8)
    person = text2image.build_words().convert_tokens_to_ids("person")
    assert not (tokens[:6] == person).any()
    assert (tokens[6:] == person).any()
