"""Whole runs on random weights: every task and stage, interruption, going on, and what is left behind."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from engines.prolificdreamer.exhibit import Exhibition
from engines.prolificdreamer.field import Field
from engines.prolificdreamer.geometry import GeometryStage
from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.particles import NerfStage
from engines.prolificdreamer.playground import PlaygroundStage
from engines.prolificdreamer.run import run
from engines.prolificdreamer.texture import TextureStage
from studio import bundle
from studio.contract import FileRef
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext

SIZES: dict[str, Any] = {
    "prompt": "a red car",
    "seed": 7,
    "iterations": 4,
    "geometry_iterations": 2,
    "texture_iterations": 2,
    "playground_iterations": 4,
    "views": 2,
    "levels": 2,
    "base_resolution": 4,
    "finest_resolution": 8,
    "log2_table": 10,
    "features": 2,
    "render_size": 12,
    "render_size_early": 8,
    "samples": 8,
    "importance": 4,
    "occupancy": 8,
    "mesh_grid": 10,
    "texture_size": 32,
    "most_faces": 200,
    "frames": 3,
    "picture_size": 16,
    "preview_every": 2,
    "checkpoint_every": 2,
    "normal_weight": 1.0,
}
TRAINING = "0" * 64
ALL = ("nerf", "geometry", "texture")


def params(**changes: Any) -> ProlificDreamerParams:
    return ProlificDreamerParams(**{**SIZES, **changes})


def made(wanted: ProlificDreamerParams, **context: Any) -> FakeContext:
    ctx = FakeContext(**context)
    run(ctx, wanted)
    return ctx


def test_an_object_leaves_everything_behind(small: Path):
    ctx = made(params(methods=("vsd", "sds"), stages=ALL))
    for method in ("vsd", "sds"):
        name = f"{method}-7"
        endings = (".png", ".mp4", "-normals.mp4", "-depth.mp4", ".glb", ".ply", "-obj.zip", "-field.safetensors")
        assert {name + ending for ending in (*endings, "-steps.csv")} <= set(ctx.files)
        mesh = trimesh.load(io.BytesIO(ctx.files[f"{name}.glb"]), file_type="glb", force="mesh")
        assert mesh.visual.material.baseColorTexture.size == (32, 32)
        assert len(mesh.faces) <= 200
        assert Image.open(io.BytesIO(ctx.files[f"{name}.png"])).size == (16, 16)
        assert 0 <= ctx.numbers[f"{name}.glb"]["iou"] <= 1
        assert ctx.attributes[f"{name}.png"]["of"] == f"{name}.glb"
        rows = list(csv.DictReader(io.StringIO(ctx.files[f"{name}-steps.csv"].decode())))
        assert [row["stage"] for row in rows] == ["nerf"] * 4 + ["geometry 1"] * 2 + ["texture 1"] * 2
        assert all(float(row["gradient"]) > 0 for row in rows)
    assert ctx.attributes["vsd-7.glb"]["role"] == "method"
    assert ctx.attributes["sds-7.glb"]["role"] == "baseline"
    assert ctx.reports[-1][:2] == (16, 16)
    steps = [step for step, _, _ in ctx.reports]
    assert steps == sorted(steps)
    assert len(ctx.previews) >= 8
    assert ctx.models.borrowed == 0


def test_phi_is_trained_for_vsd_alone(small: Path):
    ctx = made(params(methods=("vsd", "sds"), formats=("field",)))
    tables = {
        method: list(csv.DictReader(io.StringIO(ctx.files[f"{method}-7-steps.csv"].decode())))
        for method in ("vsd", "sds")
    }
    assert all(float(row["phi"]) > 0 for row in tables["vsd"])
    assert all(row["phi"] == "" for row in tables["sds"])
    assert all(float(row["regularisers"]) > 0 for table in tables.values() for row in table)
    # The teacher comes back as it was.
    parameters = [p for key, part in ctx.models.loaded.items() if key.component == "unet" for p in part.parameters()]
    assert all(p.grad is None and p.requires_grad for p in parameters)
    assert all(p.is_contiguous() for p in parameters), "sums in another order would give others other bytes"


@pytest.mark.parametrize("estimator", ["lora", "small"])
def test_other_estimators(small: Path, estimator: str):
    ctx = made(params(methods=("vsd",), estimator=estimator, formats=("field",), iterations=2))
    again = made(params(methods=("vsd",), estimator=estimator, formats=("field",), iterations=2))
    assert ctx.files == again.files


def test_the_same_seed_gives_the_same_bytes(small: Path):
    wanted = params(methods=("vsd",))
    first, second = made(wanted), made(wanted)
    assert first.files == second.files
    assert first.numbers == second.numbers
    other = made(params(methods=("vsd",), seed=8))
    assert other.files["vsd-8-field.safetensors"] != first.files["vsd-7-field.safetensors"]


def test_a_killed_run_goes_on_and_gives_the_same_bytes(small: Path):
    wanted = params(methods=("sds", "vsd"), stages=ALL, replay=3, formats=("glb", "field"), particles=2, iterations=2)
    whole = made(wanted)
    assert {"vsd-7-1.glb", "vsd-7-2.glb"} <= set(whole.files)
    assert whole.files["vsd-7-1-field.safetensors"] != whole.files["vsd-7-2-field.safetensors"]
    for crash_at in (2, 7, 15, 20):  # fields and later stages, of the first and of the second method
        ctx = FakeContext(models=whole.models, crash_at=crash_at)
        with pytest.raises(Crash):
            run(ctx, wanted)
        assert ctx.models.borrowed == 0
        following = ctx.again()
        run(following, wanted)
        assert following.files == whole.files
        assert following.numbers == whole.numbers


@pytest.mark.parametrize("estimator", ["copy", "lora", "small"])
def test_a_run_killed_within_a_stage_goes_on_and_gives_the_same_bytes(small: Path, estimator: str):
    """Moments come back from a file in another order in memory than those of a network with channels last."""
    wanted = params(methods=("vsd",), formats=("field",), estimator=estimator)
    whole = made(wanted)
    ctx = FakeContext(models=whole.models, crash_at=4)
    with pytest.raises(Crash):
        run(ctx, wanted)
    assert ctx.newest is not None
    assert ctx.newest[0] == 2
    following = ctx.again()
    run(following, wanted)
    assert following.files == whole.files


@pytest.mark.parametrize("crash_at", [6, 7, 8, 10, 11, 12])
def test_a_run_killed_in_the_middle_of_a_later_stage_gives_the_same_bytes(small: Path, crash_at: int):
    stages = {"stages": ALL, "iterations": 3, "geometry_iterations": 4, "texture_iterations": 4}
    wanted = params(methods=("vsd",), formats=("glb", "field"), checkpoint_every=1, replay=2, **stages)
    whole = made(wanted)
    ctx = FakeContext(models=whole.models, crash_at=crash_at)
    with pytest.raises(Crash):
        run(ctx, wanted)
    kept = bundle.unpack(ctx.newest[1])
    assert kept["position"] in (1, 2)
    assert 0 < kept["done"] < 4, "in the middle"
    following = ctx.again()
    run(following, wanted)
    assert following.files == whole.files


def test_a_killed_run_with_a_second_model_gives_the_same_bytes(published: Path):
    wanted = params(model="full", methods=("vsd",), formats=("field",), perp_neg=True, phi_every=2, particles=2)
    whole = made(wanted, weights=published)
    ctx = FakeContext(published, models=whole.models, crash_at=4)
    with pytest.raises(Crash):
        run(ctx, wanted)
    following = ctx.again()
    run(following, wanted)
    assert following.files == whole.files


@pytest.mark.parametrize(
    ("part", "index"),
    [(NerfStage, 2), (GeometryStage, 1), (TextureStage, 1), (PlaygroundStage, 2)],
)
def test_a_step_without_numbers_is_undone_in_every_stage(
    small: Path, monkeypatch: pytest.MonkeyPatch, part: type, index: int
):
    """Once, in the middle of the stage; then it goes on at half the rates."""
    step, spoilt = part.step, []

    def once(stage: Any, now: int) -> dict[str, float]:
        told = step(stage, now)
        if now == index and not spoilt:
            spoilt.append(now)
            return {**told, "gradient": float("nan")}
        return told

    monkeypatch.setattr(part, "step", once)
    task = {"task": "playground"} if part is PlaygroundStage else {"stages": ALL}
    ctx = made(params(methods=("vsd",), formats=("glb",), checkpoint_every=1, **task))
    assert spoilt == [index]
    note = ctx.attributes["vsd-7-steps.csv"]["note"]
    assert f"Step {index} gave no numbers; went back to step {index}" in note
    rows = list(csv.DictReader(io.StringIO(ctx.files["vsd-7-steps.csv"].decode())))
    assert all(np.isfinite(float(row["gradient"])) for row in rows)


def test_of_an_empty_field_the_field_is_shown_and_the_next_method_made(small: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Field, "density", lambda _field, points: torch.zeros(len(points)))
    wanted = params(methods=("sds", "sds_50"), stages=ALL, formats=("glb", "field"))
    ctx = made(wanted)
    for method in wanted.methods:
        assert {f"{method}-7.png", f"{method}-7-field.safetensors", f"{method}-7-steps.csv"} <= set(ctx.files)
        assert f"{method}-7.glb" not in ctx.files
        assert "there is no surface to be" in ctx.attributes[f"{method}-7.png"]["note"]
    broken = FakeContext(models=ctx.models, crash_at=6)
    with pytest.raises(Crash):
        run(broken, wanted)
    following = broken.again()
    run(following, wanted)
    assert following.files == ctx.files


def test_particles_say_how_much_they_differ(small: Path):
    ctx = made(params(methods=("sds",), particles=3, formats=("glb",), iterations=2))
    for particle in (1, 2, 3):
        numbers = ctx.numbers[f"sds-7-{particle}.glb"]
        assert 0 < numbers["least_variety"] <= numbers["variety"]
    alone = made(params(methods=("sds",), formats=("glb",), iterations=2))
    assert "variety" not in alone.numbers["sds-7.glb"]


def test_within_a_room_cameras_film_from_within(small: Path):
    """From outside there would be nothing but the wall."""
    ctx = made(params(methods=("sds",), start="centred", bound=3.0, radius=(1.8, 2.2), formats=("video",)))
    frames = np.load(io.BytesIO(ctx.files["sds-7.mp4"]))
    views = Exhibition(ctx, params(start="centred", bound=3.0, radius=(1.8, 2.2)), None).views(4)
    assert frames.shape[0] == 3
    torch.testing.assert_close(views.c2w[:, :3, 3].norm(dim=1), torch.full((4,), 2.0))


def test_a_cancelled_run_keeps_what_it_has(small: Path):
    ctx = FakeContext(stop_at=5)
    with pytest.raises(Cancelled):
        run(ctx, params(methods=("vsd",)))
    assert {"vsd-7.png", "vsd-7.glb", "vsd-7-field.safetensors"} <= set(ctx.files)
    assert ctx.attributes["vsd-7.png"]["note"] == "Cancelled before its end."
    assert ctx.newest is not None


def test_whoever_has_enough_gets_files_and_no_further_method(small: Path):
    ctx = made(params(methods=("vsd", "sds"), formats=("glb",)), enough_at=3)
    assert {"vsd-7.png", "vsd-7.glb", "vsd-7-steps.csv"} <= set(ctx.files)
    rows = list(csv.DictReader(io.StringIO(ctx.files["vsd-7-steps.csv"].decode())))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert not [name for name in ctx.files if name.startswith("sds")]


def test_more_steps_go_on_from_a_training_file(small: Path):
    whole = made(params(methods=("vsd",), iterations=6, grow_step=3, anneal_step=4, decay_share=0.0))
    short = params(
        methods=("vsd",), iterations=5, grow_step=3, anneal_step=4, decay_share=0.0, formats=("glb", "training")
    )
    ctx = made(short)
    longer = FakeContext(models=ctx.models)
    longer.uploads = {TRAINING: ctx.files["vsd-7-training.safetensors"]}
    formats = ProlificDreamerParams.model_fields["formats"].default
    more = {"iterations": 6, "formats": formats, "start_from": FileRef(sha256=TRAINING)}
    run(longer, short.model_copy(update=more))
    assert longer.files["vsd-7-field.safetensors"] == whole.files["vsd-7-field.safetensors"]
    assert longer.files["vsd-7.png"] == whole.files["vsd-7.png"]
    for changes, field in (({"iterations": 5}, "iterations"), ({"features": 1, "iterations": 9}, "start_from")):
        refused = FakeContext(models=ctx.models)
        refused.uploads = {TRAINING: ctx.files["vsd-7-training.safetensors"]}
        with pytest.raises(InvalidInput) as caught:
            run(refused, short.model_copy(update={"start_from": FileRef(sha256=TRAINING), **changes}))
        assert caught.value.field == field


def test_later_stages_follow_a_finished_field_in_a_job_of_their_own(small: Path):
    stages = ("nerf", "geometry", "texture")
    whole = made(params(methods=("vsd",), stages=stages))
    first = made(params(methods=("vsd",), formats=("training",)))
    rest = FakeContext(models=first.models)
    rest.uploads = {TRAINING: first.files["vsd-7-training.safetensors"]}
    formats = (*ProlificDreamerParams.model_fields["formats"].default, "training")
    run(rest, params(methods=("vsd",), stages=stages, formats=formats, start_from=FileRef(sha256=TRAINING)))
    for name in ("vsd-7.glb", "vsd-7.png", "vsd-7-field.safetensors"):
        assert rest.files[name] == whole.files[name]
    assert (
        bundle.unpack(rest.files["vsd-7-training.safetensors"])["steps"]
        == bundle.unpack(first.files["vsd-7-training.safetensors"])["steps"]
    )


def test_a_training_file_of_a_stopped_run_says_how_far_it_came(small: Path):
    ctx = made(params(methods=("vsd",), formats=("field", "training")), enough_at=3)
    kept = bundle.unpack(ctx.files["vsd-7-training.safetensors"])
    assert kept["steps"] == 2
    following = FakeContext(models=ctx.models)
    following.uploads = {TRAINING: ctx.files["vsd-7-training.safetensors"]}
    run(following, params(methods=("vsd",), formats=("field",), start_from=FileRef(sha256=TRAINING)))
    whole = made(params(methods=("vsd",), formats=("field",)))
    assert following.files["vsd-7-field.safetensors"] == whole.files["vsd-7-field.safetensors"]
    for changes in ({"occupancy": 16}, {"interpolation": "linear"}, {"blob_scale": 5.0}):
        refused = FakeContext(models=ctx.models)
        refused.uploads = following.uploads
        with pytest.raises(InvalidInput, match="other sizes"):
            run(refused, params(methods=("vsd",), start_from=FileRef(sha256=TRAINING), **changes))


def test_how_far_a_training_file_came_is_said_for_one_particle(small: Path):
    ctx = made(params(methods=("sds",), particles=3, formats=("field", "training")), enough_at=5)
    assert bundle.unpack(ctx.files["sds-7-training.safetensors"])["steps"] == 4
    following = FakeContext(models=ctx.models)
    following.uploads = {TRAINING: ctx.files["sds-7-training.safetensors"]}
    more = params(methods=("sds",), particles=3, formats=("field",), start_from=FileRef(sha256=TRAINING))
    with pytest.raises(InvalidInput) as caught:
        run(following, more.model_copy(update={"iterations": 1}))
    assert caught.value.remedy == "Ask for 2 or more."
    run(following, more.model_copy(update={"iterations": 2}))


def test_a_file_of_something_else_is_no_training_file(small: Path):
    ctx = made(params(methods=("sds",), formats=("field", "training")))
    cases = {
        "sds-7-field.safetensors": ("start_from", "no training file"),
        "sds-7-training.safetensors": ("methods", "of SDS, not of VSD"),
    }
    for name, (field, says) in cases.items():
        refused = FakeContext(models=ctx.models)
        refused.uploads = {TRAINING: ctx.files[name]}
        with pytest.raises(InvalidInput, match=says) as caught:
            run(refused, params(methods=("vsd",), iterations=9, start_from=FileRef(sha256=TRAINING)))
        assert caught.value.field == field


def test_colouring_does_not_change_the_surface_it_colours(small: Path):
    places = []
    for steps in (1, 4):
        ctx = made(params(methods=("vsd",), stages=("nerf", "texture"), formats=("ply",), texture_iterations=steps))
        places.append(trimesh.load(io.BytesIO(ctx.files["vsd-7.ply"]), file_type="ply").vertices)
    assert np.array_equal(*places)


def test_a_surface_that_is_too_thin_is_found_at_a_lower_density(small: Path):
    ctx = made(params(methods=("sds",), threshold=500.0, formats=("glb",)))
    assert "Nothing is as dense as 500" in ctx.attributes["sds-7.glb"]["note"]
    mesh = trimesh.load(io.BytesIO(ctx.files["sds-7.glb"]), file_type="glb", force="mesh")
    assert len(mesh.faces) > 20


def test_the_playground_and_its_numbers(small: Path):
    wanted = params(task="playground", methods=("vsd", "sds", "sds_100", "ancestral"), particles=3)
    ctx = made(wanted)
    for method in wanted.methods:
        picture = np.asarray(Image.open(io.BytesIO(ctx.files[f"{method}-7.png"])))
        assert picture.ndim == 3
        numbers = ctx.numbers[f"{method}-7.png"]
        assert numbers["least_variety"] <= numbers["variety"]
        assert 0 <= numbers["clipped"] <= 1
        assert numbers["distance"] > 0
    assert len({ctx.files[f"{method}-7.png"] for method in wanted.methods}) == 4
    assert ctx.reports[-1][:2] == (13, 13)
    for crash_at in (3, 6, 8, 12):
        broken = FakeContext(models=ctx.models, crash_at=crash_at)
        with pytest.raises(Crash):
            run(broken, wanted)
        following = broken.again()
        run(following, wanted)
        assert following.files == ctx.files
        assert following.numbers == ctx.numbers


def test_the_toy(monkeypatch: pytest.MonkeyPatch):
    from engines.prolificdreamer import run as module

    monkeypatch.setattr(module, "TOY_STEPS", 40)
    ctx = made(params(task="toy", prompt=""))
    assert Image.open(io.BytesIO(ctx.files["toy-7.png"])).width > 800
    assert set(ctx.numbers["toy-7.png"]) == {"variance_sds", "variance_vsd", "true_variance", "variance_off"}


@pytest.mark.parametrize("model", ["full", "sd15"])
def test_published_layouts_complete_a_run(published: Path, model: str):
    """The published presets on tiny random checkpoints: a v-prediction model beside an epsilon teacher for SD 2.1."""
    wanted = params(model=model, methods=("vsd",), radius=(1.0, 1.5), density_noise=True, background="learned")
    assert wanted.estimator == {"full": "lora_separate", "sd15": "lora"}[model]
    ctx = made(wanted, weights=published)
    assert "vsd-7.glb" in ctx.files
    repos = {key.repo for key in ctx.models.loaded if key.component == "unet"}
    assert len(repos) == (2 if model == "full" else 1)
    assert "iou" not in ctx.numbers["vsd-7.glb"]


@pytest.mark.parametrize("model", ["full", "sd15"])
def test_missing_weights_name_command_size_and_licence(tmp_path: Path, model: str):
    with pytest.raises(WeightsMissing) as caught:
        run(FakeContext(tmp_path), params(model=model))
    for word in ("hf download", "--revision", "GB", "licence", "ATELIER_WEIGHTS"):
        assert word in caught.value.remedy


def test_a_second_model_that_is_missing_is_named(published: Path, tmp_path: Path):
    name = "sd2-community--stable-diffusion-2-1-base"
    shutil.copytree(published / name, tmp_path / name)
    ctx = FakeContext(tmp_path)
    with pytest.raises(WeightsMissing, match=r"Stable Diffusion 2\.1 are"):
        run(ctx, params(model="full", methods=("sds", "vsd")))
    assert not ctx.files  # told before the other method is made


def test_a_fallback_is_found(published: Path, tmp_path: Path):
    shutil.copytree(
        published / "stable-diffusion-v1-5--stable-diffusion-v1-5", tmp_path / "runwayml--stable-diffusion-v1-5"
    )
    ctx = made(params(model="sd15", methods=("sds",), formats=("field",), iterations=1), weights=tmp_path)
    assert {key.repo for key in ctx.models.loaded} == {"runwayml/stable-diffusion-v1-5"}
