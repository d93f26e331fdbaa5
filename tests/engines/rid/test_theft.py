"""One theft: what is posted under each condition, and what is said of what the thief draws."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.rid import theft
from engines.rid.identity import Embedder, Recogniser
from engines.rid.levels import opened, stored, to_float
from engines.rid.presets import SURROGATES
from engines.rid.surrogate import Diffusion
from engines.rid.theft import PURPOSES, anybody, likeness, perturbed, seed_of, stolen_pictures
from engines.rid.thief import Way
from tests.engines.rid.test_pgd_and_purify import pictures
from tests.engines.rid.tiny import SIDE, judge_in

EPS = 12 / 127.5
POCKET = SURROGATES["pocket"]


def stream(purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(3, purpose))


def clean() -> torch.Tensor:
    return to_float((pictures() * 127.5 + 127.5).round().byte())


def posted(condition: str, model: Diffusion, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setattr(theft, "SEARCH", (1, 2))
    monkeypatch.setattr(theft, "ALTERNATION", (1, 2, 1))
    return perturbed(
        condition,
        clean(),
        eps=EPS,
        models=[model],
        surrogate=POCKET,
        defend=lambda shown: torch.full_like(shown, EPS / 2),
        stream=stream,
    )


def test_neighbouring_seeds_share_no_randomness():
    seeds = [seed_of(seed, purpose) for seed in range(50_000_000, 50_000_500) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    drawn = [torch.rand(8, generator=torch.Generator().manual_seed(seed)) for seed in seeds[:30]]
    assert not any(torch.equal(one, other) for one, other in combinations(drawn, 2))


@pytest.mark.parametrize("condition", ["clean", "random", "cast", "rid", "pgd", "photoguard", "aspl"])
def test_what_is_posted_is_within_the_budget_and_on_grey_levels(
    condition: str, diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    made = posted(condition, diffusion, monkeypatch)
    assert torch.equal(made, posted(condition, diffusion, monkeypatch))
    assert torch.equal(opened(stored(made)), made)
    change = (made - clean()).abs().max() * 127.5
    assert change <= 12 + 1e-3
    assert bool(change > 0) == (condition != "clean")


def test_an_unknown_condition_is_refused(diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="prayer"):
        posted("prayer", diffusion, monkeypatch)


def test_a_theft_tells_its_stages_and_differs_from_the_floor(diffusion: Diffusion):
    told: list[tuple[str, int]] = []
    way = Way("full", 1e-2, 2, 3)
    stolen = stolen_pictures(
        diffusion,
        clean(),
        way,
        2,
        surrogate=POCKET,
        purify="none",
        stream=stream,
        on_step=lambda stage, done: told.append((stage, done)),
    )
    floor = anybody(diffusion, 2, surrogate=POCKET, stream=stream)
    assert stolen.shape == floor.shape == (2, 3, SIDE, SIDE)
    assert not torch.equal(stolen, floor)
    assert told == [("learn", n) for n in (1, 2, 3)] + [("draw", n) for n in range(1, 21)]


def judge(tmp_path: Path, **given: float) -> Recogniser:
    return Recogniser.load(judge_in(tmp_path, **given))


def test_what_was_posted_is_judged_beside_what_was_drawn(tmp_path: Path):
    person, drawn = stored(pictures(4)), -pictures(4)
    numbers = likeness(judge(tmp_path, threshold=-1.0), person, pictures(4), drawn)
    assert numbers["kept"] == numbers["kept_posted"] == 1
    assert numbers["ism_posted"] > numbers["ism"], "the person's own pictures are likest to them"
    strict = likeness(judge(tmp_path, threshold=1.1), person, pictures(4), drawn)
    assert strict["kept"] == strict["kept_posted"] == 0
    assert strict["ism"] == numbers["ism"]
    assert "kept_posted" not in likeness(judge(tmp_path), person, None, drawn)


def test_what_was_posted_is_not_compared_with_itself(tmp_path: Path):
    mine = pictures(4)
    seeing = judge(tmp_path, threshold=-1.0)
    person = stored(mine)
    told = likeness(seeing, person, mine, mine, same=True)
    each = [theft.identity(seeing, np.delete(person, k, axis=0), person[k : k + 1])["ism"] for k in range(4)]
    assert told["ism_posted"] == pytest.approx(np.mean(each), abs=1e-4)
    assert told["ism_posted"] < told["ism"], "each is nearer to a mean that it is part of"


def test_pictures_without_a_face_keep_no_identity_and_have_no_similarity(tmp_path: Path):
    seeing = judge(tmp_path, threshold=-1.0)
    person = stored(pictures(4))
    real = seeing.net.forward

    def blind_to_what_is_drawn(shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings, faces = real(shown)
        return embeddings, torch.where(shown.mean((1, 2, 3)) > 0.5, -9.0, faces)

    seeing.net.forward = blind_to_what_is_drawn
    numbers = likeness(seeing, person, None, torch.full((4, 3, SIDE, SIDE), 0.9))
    assert (numbers["kept"], numbers["ism"], numbers["fdfr"]) == (0, None, 1)


def test_a_judge_that_sees_nobody_says_nothing_about_identity(tmp_path: Path):
    shown = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    numbers = likeness(judge(tmp_path, faces=-99), stored(shown), shown, shown)
    assert not {"ism", "kept", "kept_posted"} & numbers.keys()
    assert "brisque" in numbers


def test_flat_pictures_have_no_naturalness():
    flat = torch.zeros(4, 3, SIDE, SIDE)
    torch.manual_seed(0)
    assert "brisque" not in likeness(Recogniser(Embedder(), 0.5), stored(flat), None, flat)
    assert np.unique(stored(flat)).tolist() == [128]
