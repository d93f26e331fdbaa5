"""Whole runs on miniature checkpoints: what is saved, that it is the published pipeline's, and that it can go on."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UniPCMultistepScheduler
from PIL import Image

from engines.text2image import presets
from engines.text2image.presets import MODELS, SAMPLERS
from engines.text2image.run import run
from engines.text2image.spec import Text2ImageParams
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext
from tests.engines.text2image import tiny

PROMPT = "a red car, side view"


def params(**changes: Any) -> Text2ImageParams:
    return Text2ImageParams(**{"prompt": PROMPT, "steps": 3, "seed": 7, **changes})


def picture(ctx: FakeContext, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(ctx.files[name])))


def published(folder: Path, sampler: str, **changes: Any) -> np.ndarray:
    """The picture of the plain pipeline of diffusers."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    classes = {"dpm": DPMSolverMultistepScheduler, "ddim": DDIMScheduler, "unipc": UniPCMultistepScheduler}
    pipe.scheduler = classes[sampler].from_config(pipe.scheduler.config, **SAMPLERS[sampler].options)
    pipe.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 64, "width": 64, **changes}
    return np.asarray(pipe(PROMPT, generator=torch.Generator().manual_seed(7), **call).images[0])


def test_a_run_saves_model_world_layers_and_neighbours(small: Path):
    ctx = FakeContext()
    run(ctx, params())
    names = {"picture-7.png", "world-7.png", "layers-7.png", "nearest-picture-7.png", "nearest-world-7.png"}
    assert set(ctx.files) == names
    assert picture(ctx, "picture-7.png").shape == picture(ctx, "world-7.png").shape == (64, 64, 3)
    assert ctx.attributes["picture-7.png"]["role"] == "method"
    assert ctx.attributes["world-7.png"]["role"] == "baseline"
    assert ctx.attributes["layers-7.png"]["role"] == "plot"
    for name in ("picture-7.png", "world-7.png"):
        numbers = ctx.numbers[name]
        assert {"kind", "colour", "view", "number", "seen", "clip", "distance", "caption"} == set(numbers)
        assert -1 <= numbers["clip"] <= 1
        assert numbers["distance"] > 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_are_the_published_pipelines(small: Path, sampler: str):
    ctx = FakeContext()
    run(ctx, params(sampler=sampler, methods=("model",)))
    assert np.array_equal(picture(ctx, "picture-7.png"), published(small, sampler))


def test_negative_prompts_and_no_guidance(small: Path):
    ctx = FakeContext()
    run(ctx, params(methods=("model",), negative_prompt="a blue boat"))
    assert np.array_equal(picture(ctx, "picture-7.png"), published(small, "dpm", negative_prompt="a blue boat"))
    ctx = FakeContext()
    run(ctx, params(methods=("model",), guidance=1))
    assert np.array_equal(picture(ctx, "picture-7.png"), published(small, "dpm", guidance_scale=1.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_steps_draw_something(small: Path, sampler: str, steps: int):
    ctx = FakeContext()
    run(ctx, params(sampler=sampler, steps=steps, methods=("model",), nearest=False))
    assert picture(ctx, "picture-7.png").std() > 1


def test_a_picture_depends_on_its_own_seed_only(small: Path):
    several, one = FakeContext(), FakeContext()
    run(several, params(count=3, layers=False, nearest=False))
    run(one, params(seed=9, layers=False, nearest=False))
    assert several.files["picture-9.png"] == one.files["picture-9.png"]
    assert several.files["world-9.png"] == one.files["world-9.png"]
    assert len({several.files[f"picture-{seed}.png"] for seed in (7, 8, 9)}) == 3


def test_a_killed_run_goes_on_and_gives_the_same_bytes(small: Path):
    whole = FakeContext()
    run(whole, params(count=2))
    killed = FakeContext(crash_at=7)
    with pytest.raises(Crash):
        run(killed, params(count=2))
    assert "picture-7.png" in killed.files
    assert "picture-8.png" not in killed.files
    again = killed.again()
    run(again, params(count=2))
    assert again.files == whole.files
    assert again.numbers == whole.numbers
    assert not any("Seed 7" in message for _, _, message in again.reports)


def test_cancelling_stops_at_the_next_step(small: Path):
    ctx = FakeContext(stop_at=3)
    with pytest.raises(Cancelled):
        run(ctx, params())
    assert not ctx.files
    assert ctx.models.borrowed == 0


def test_progress_counts_up(small: Path):
    ctx = FakeContext()
    run(ctx, params(count=2))
    steps = [step for step, _, _ in ctx.reports]
    assert steps == sorted(steps)
    assert ctx.reports[-1][0] == ctx.reports[-1][1] == 10
    assert len(ctx.previews) == 2


def test_the_world_alone_needs_no_weights(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(presets.MODELS, "pocket", replace(MODELS["pocket"], repo=str(tmp_path)))
    ctx = FakeContext()
    run(ctx, params(methods=("world",)))
    assert "world-7.png" in ctx.files
    with pytest.raises(WeightsMissing):
        run(FakeContext(), params())


def test_people_are_shown_but_not_judged(small: Path):
    ctx = FakeContext()
    run(ctx, params(prompt="a person in teal with brown hair"))
    assert set(ctx.files) == {
        "picture-7.png",
        "world-7.png",
        "layers-7.png",
        "nearest-picture-7.png",
        "nearest-world-7.png",
    }
    assert set(ctx.numbers["picture-7.png"]) == {"caption", "distance"}


def test_a_model_without_judge_or_clip_is_not_judged(small: Path, monkeypatch: pytest.MonkeyPatch):
    for left_out, kept in (({"judge": ""}, {"clip", "distance"}), ({"judge": "", "clip": ""}, {"distance"})):
        monkeypatch.setitem(presets.MODELS, "pocket", replace(MODELS["pocket"], **left_out))
        ctx = FakeContext()
        run(ctx, params(layers=False, methods=("model",)))
        assert set(ctx.numbers["picture-7.png"]) == kept


def test_captions_the_world_cannot_read(small: Path):
    ctx = FakeContext()
    run(ctx, params(prompt="red red car", nearest=False))
    assert set(ctx.files) == {"picture-7.png"}
    assert "grammar" in ctx.numbers["picture-7.png"]["caption"]
    assert "kind" not in ctx.numbers["picture-7.png"]
    with pytest.raises(InvalidInput) as caught:
        run(FakeContext(), params(prompt="red red car", methods=("world",)))
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(("model", "repo"), [("sd15", presets.SD15.repo), ("sd21", presets.SD21.fallbacks[0][0])])
def test_published_layouts_complete_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, repo: str):
    """The published presets on a tiny random checkpoint, by first choice and by fallback; 64 px instead of 512."""
    monkeypatch.setitem(presets.MODELS, model, replace(MODELS[model], side=64))
    folder = tiny.diffusion_folder(tmp_path / repo.replace("/", "--"), vae_levels=4)
    ctx = FakeContext(tmp_path)
    run(ctx, params(model=model))
    assert set(ctx.files) == {"picture-7.png"}
    assert not ctx.numbers
    assert np.array_equal(picture(ctx, "picture-7.png"), published(folder, "dpm", guidance_scale=7.5))
    assert {key.repo for key in ctx.models.loaded} == {repo}


@pytest.mark.parametrize("model", ["sd15", "sd21"])
def test_missing_weights_name_command_size_and_licence(tmp_path: Path, model: str):
    with pytest.raises(WeightsMissing) as caught:
        run(FakeContext(tmp_path), params(model=model))
    for word in ("hf download", "--revision", "GB", "licence"):
        assert word in caught.value.remedy


def test_half_a_download_is_missing_weights(tmp_path: Path):
    folder = tiny.diffusion_folder(tmp_path / presets.SD15.repo.replace("/", "--"))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsMissing):
        run(FakeContext(tmp_path), params(model="sd15"))


def test_another_kind_of_model_is_refused(tmp_path: Path):
    folder = tiny.diffusion_folder(tmp_path / presets.SD15.repo.replace("/", "--"))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(WeightsMissing, match="FluxPipeline"):
        run(FakeContext(tmp_path), params(model="sd15"))
