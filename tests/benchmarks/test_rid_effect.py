"""The benchmark of protection with tiny weights: rows of other weights stay apart, and the table says what counts."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import rid_effect
from benchmarks.rid_effect import Bench, Job, Places, compute, digest, jobs, nearest, photographed, table, views
from benchmarks.rows import read_rows
from engines.rid import checkpoints, theft
from engines.rid.identity import shipped
from engines.rid.presets import MODELS, SURROGATES
from tests.engines.rid.tiny import SIDE, diffusion_folder, judge_in, loud_defender, picture

WHO = dict.fromkeys(("thief", "purify", "model"))


def defenders(folder: Path, surrogates: list[str], seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for budget, name in MODELS["pocket"].files.items():
        checkpoints.save(loud_defender(budget, seed), folder / name, torch.float32)
    (folder / "training.json").write_text(json.dumps({"surrogates": surrogates}))
    return folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Everything small, and no renderer."""
    for name in rid_effect.OTHER:
        diffusion_folder(tmp_path / name)
    monkeypatch.setattr(rid_effect, "portraits", drawn_people)
    monkeypatch.setattr(theft, "SEARCH", (1, 2))
    monkeypatch.setattr(theft, "ALTERNATION", (1, 2, 1))
    monkeypatch.setattr(rid_effect, "DRAWN", 3)
    monkeypatch.setattr(rid_effect, "world", lambda: "toys")
    shipped.cache_clear()
    return Places(
        tmp_path,
        judge_in(tmp_path / "judge", threshold=-1.0),
        defenders(tmp_path / "rid", ["portraits", "portraits_b"]),
        defenders(tmp_path / "rid_alone", ["portraits"], seed=1),
        tmp_path / "cache",
    )


def drawn_people(
    identity: int, count: int = rid_effect.LEARNED + rid_effect.HELD_OUT, side: int = SIDE
) -> np.ndarray:
    shown = (picture(1000 * identity + view, SIDE, SIDE).resize((side, side)) for view in range(count))
    return np.stack([np.asarray(each) for each in shown])


def bench(places: Places, steps: int = 1) -> Bench:
    return Bench(places, replace(SURROGATES["pocket"], side=SIDE), steps)


def asked(**given: str) -> argparse.Namespace:
    values = {"identities": "0", "conditions": "clean", "budgets": "12", "thief": "full", "purify": "none"}
    return argparse.Namespace(**values | {"model": "portraits"} | given)


def rows_of(places: Places, out: Path, steps: int = 1, **given: str) -> list[dict]:
    compute(bench(places, steps), jobs(asked(**given)), out)
    return read_rows(out)


def test_every_condition_has_a_row_and_rows_that_are_there_are_not_made_again(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, seen = tmp_path / "rows.jsonl", ",".join(c for c in rid_effect.CONDITIONS if c != "rid_unseen")
    rows = rows_of(places, out, conditions=seen)
    assert [row["condition"] for row in rows] == seen.split(",")
    by_name = {row["condition"]: row for row in rows}
    assert all(0 <= row["kept"] <= 1 for row in rows)
    assert by_name["none"]["thief"] == rid_effect.NOBODY
    assert by_name["clean"]["psnr"] is None
    assert by_name["rid"]["psnr"] > 20
    assert "kept_posted" not in by_name["none"]
    assert by_name["rid"]["kept_posted"] == 1
    monkeypatch.setattr(Bench, "row", lambda *_: pytest.fail("made again"))
    assert rows_of(places, out, conditions=seen) == rows


def test_rows_of_other_weights_or_steps_stand_apart(places: Places, tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    assert len(rows_of(places, out, conditions="clean,random,rid")) == 3
    assert len(rows_of(places, out, steps=2, conditions="clean,random,rid")) == 6
    defenders(places.defenders, ["portraits"], seed=5)
    rows = rows_of(places, out, conditions="clean,random,rid")
    assert len(rows) == 7, "only the defended pictures are others"
    assert rows[-1]["condition"] == "rid"
    assert rows[-1]["setting"] == rows[0]["setting"]
    assert rows[-1]["maker"] not in {row["maker"] for row in rows[:-1]}
    diffusion = places.assets / "portraits" / "unet" / "diffusion_pytorch_model.safetensors"
    diffusion.write_bytes((places.assets / "portraits" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
    assert bench(places).key(Job(0, "clean", 0.0, "full", "none", "portraits"))["setting"] != rows[0]["setting"]
    assert table(rows).count("| rid | 12 |") == 3
    assert len(table(rows).splitlines()) == 2 + 7


def test_a_defender_that_knows_the_thiefs_model_is_not_unseen(places: Places, tmp_path: Path):
    out = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="nothing about it is unseen"):
        rows_of(places, out, conditions="rid_unseen")
    (row,) = rows_of(places, out, conditions="rid_unseen", model="portraits_b")
    assert f"rid_alone {row['maker']}" in table([row]), "which family of defenders it was stands in the table"
    both = bench(places).key(Job(0, "rid", 12.0, "full", "none", "portraits_b"))
    assert row["maker"] != both["maker"]


def test_searching_against_the_other_model_finds_something_else_and_is_remembered(
    places: Places, monkeypatch: pytest.MonkeyPatch
):
    unet = places.assets / "portraits_b" / "unet" / "diffusion_pytorch_model.safetensors"
    other = {name: weight + 0.05 for name, weight in rid_effect.load_file(unet).items()}
    rid_effect.save_file(other, unet, metadata={"format": "pt"})
    made = {}
    for condition in ("pgd", "pgd_unseen"):
        job = Job(0, condition, 12.0, "full", "none", "portraits")
        made[condition] = bench(places).posted(job)
    assert not torch.equal(made["pgd"], made["pgd_unseen"])
    against_b = bench(places).posted(Job(0, "pgd", 12.0, "lora", "none", "portraits_b"))
    assert torch.equal(against_b, made["pgd_unseen"])
    monkeypatch.setattr(theft, "perturbed", lambda *_, **__: pytest.fail("searched again"))
    again = bench(places).posted(Job(0, "pgd", 12.0, "lora", "jpeg75", "portraits"))
    assert torch.equal(again, made["pgd"])


def test_nobody_learns_and_what_purification_leaves_is_measured(places: Places, tmp_path: Path):
    rows = rows_of(
        places, tmp_path / "rows.jsonl", conditions="none,clean,random", thief="nobody", purify="jpeg50,blur"
    )
    assert [(row["condition"], row["purify"]) for row in rows] == [
        (condition, purify) for purify in ("jpeg50", "blur") for condition in ("clean", "random")
    ]
    assert all("kept" not in row and row["kept_posted"] == 1 for row in rows)
    for row in rows:
        assert ("left_energy" in row) == (row["condition"] == "random")


def test_the_floor_is_computed_once_for_all_thieves():
    floors = [
        [job for job in jobs(asked(conditions="none,clean", thief=thief, purify=purify)) if job.condition == "none"]
        for thief, purify in (("full", "none"), ("lora", "none,jpeg75"), ("inversion", "blur"))
    ]
    assert [len(found) for found in floors] == [1, 1, 1]
    assert len({found[0] for found in floors}) == 1


def test_a_photograph_stands_for_a_person(places: Places, tmp_path: Path):
    path, out = tmp_path / "photo.png", tmp_path / "rows.jsonl"
    picture(3, 90, 70).save(path)
    photo = photographed(path, "10,0,80,70")
    assert photo.shape == (70, 70, 3)
    assert np.array_equal(photo, np.asarray(picture(3, 90, 70))[:, 10:80])
    shown = views(photo, SIDE, 0)
    assert shown.shape == (rid_effect.LEARNED + rid_effect.HELD_OUT, SIDE, SIDE, 3)
    assert len({view.tobytes() for view in shown}) == len(shown)
    real = Bench(places, replace(SURROGATES["pocket"], side=SIDE), 1, photo)
    assert np.array_equal(real.pictures(0), shown)
    job = Job(0, "clean", 0.0, "full", "none", "portraits")
    assert real.setting(job)["world"] != bench(places).setting(job)["world"]
    compute(real, iter([job]), out, tmp_path / "sheets")
    assert read_rows(out)[0]["nearest"] > 0
    (sheet,) = (tmp_path / "sheets").glob("*.png")
    with Image.open(sheet) as page:
        assert page.width == 11 * (SIDE + 4) - 4


def test_toy_people_are_drawn_anew_for_every_identity():
    one, other = rid_effect.portraits(0, 2), rid_effect.portraits(1, 2)
    assert one.shape == (2, 64, 64, 3)
    assert np.abs(one.astype(int) - other).mean() > 5
    assert rid_effect.world() == rid_effect.world()


def test_the_nearest_true_picture_is_found():
    person = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (0, 100)])
    drawn = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (103, 1, 200)])
    assert nearest(person, drawn) == pytest.approx((3 + 1 + 100) / 3)


def test_an_unknown_condition_is_refused():
    with pytest.raises(ValueError, match="prayer"):
        list(jobs(asked(conditions="prayer")))


def row(identity: int, condition: str, **given: float | None) -> dict:
    budget = 0.0 if condition == "clean" else 12.0
    return {
        "identity": identity,
        "condition": condition,
        "budget": budget,
        **WHO,
        "setting": "s",
        "maker": "",
        **given,
    }


def test_the_table_counts_those_without_a_face_and_says_of_how_many_a_similarity_is():
    rows = [row(who, "clean", kept=1.0, ism=0.8) for who in range(4)]
    rows += [row(who, "random", kept=0.5 + who / 10, ism=0.7, ism_posted=0.8) for who in range(4)]
    rows += [row(who, "rid", kept=0.0, ism=None if who else 0.9, ism_posted=0.5) for who in range(4)]
    rows += [row(9, "rid", kept=0.5, ism=0.4)]  # nobody to compare with
    told = table(rows).splitlines()
    names = [name.strip() for name in told[0].strip("|").split("|")]
    lines = [
        dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in told[2:]
    ]
    by_name = {line["condition"]: line for line in lines}
    rid = by_name["rid"]
    assert rid["n"] == "5"
    assert rid["kept identity"].startswith("0.100 (")
    assert (rid["similarity"].split()[0], rid["n with a face"]) == ("0.650", "2")
    assert rid["less than noise"].startswith("0.650 ("), "paired: the mean of 0.5 to 0.8"
    assert rid["less than clean"].startswith("1.000 (")
    assert rid["similarity less than noise"].startswith("-0.200 ("), "of the one of whom there is a face"
    assert rid["less what posted ones lose"].startswith("-0.500 ("), "0.7 - 0.9 - (0.8 - 0.5)"
    assert by_name["random"]["less than noise"] == ""
    assert by_name["clean"]["less than clean"] == ""


def test_nothing_has_no_digest():
    assert digest({}) == ""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
