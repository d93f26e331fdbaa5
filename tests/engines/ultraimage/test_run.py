"""Whole runs on random weights: equality with the plain pipelines, every method and scenario, interruption, reuse."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, QwenImagePipeline
from PIL import Image

from engines.ultraimage import presets
from engines.ultraimage.presets import METHODS
from engines.ultraimage.run import run
from engines.ultraimage.spec import UltraImageParams
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext

PROMPT = "a red ring under a pale sky"


def params(**changes: Any) -> UltraImageParams:
    return UltraImageParams(**{"prompt": PROMPT, "steps": 4, "seed": 7, "scale": 2.0, **changes})


def made(ctx: FakeContext, wanted: UltraImageParams) -> dict[str, np.ndarray]:
    run(ctx, wanted)
    return {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in ctx.files.items()}


def weights_of(ctx: FakeContext) -> dict[str, torch.Tensor]:
    """A digest of every loaded network."""
    parts = {key.component: part for key, part in ctx.models.loaded.items() if isinstance(part, torch.nn.Module)}
    return {name: torch.stack([p.double().sum() for p in part.parameters()]) for name, part in parts.items()}


def test_direct_sampling_is_the_plain_pipeline(small: Path):
    wanted = params(methods=("direct",))
    ours = made(FakeContext(), wanted)["direct-7.png"]
    pipe = FluxPipeline.from_pretrained(small)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipe.scheduler.config, use_dynamic_shifting=False, shift=2.0
    )
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPT,
        negative_prompt="",
        true_cfg_scale=wanted.guidance,
        height=192,
        width=192,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=20,
    ).images[0]
    assert np.array_equal(ours, np.asarray(theirs))


def test_the_checkpoints_own_schedule_is_the_plain_pipelines(small: Path):
    wanted = params(methods=("direct",), shift=None, width=128, height=96, scale=None)
    ours = made(FakeContext(), wanted)
    pipe = FluxPipeline.from_pretrained(small)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPT,
        negative_prompt="",
        true_cfg_scale=wanted.guidance,
        height=96,
        width=128,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=20,
    ).images[0]
    assert np.array_equal(ours["direct-7.png"], np.asarray(theirs))


def test_no_correction_and_factor_one_are_direct_sampling(small: Path):
    neutral = params(methods=("ultraimage", "direct"), indices=(), lambda_min=1.0, lambda_max=1.0)
    pictures = made(FakeContext(), neutral)
    assert np.array_equal(pictures["ultraimage-7.png"], pictures["direct-7.png"])


def test_every_method_at_the_training_size_is_direct_sampling(small: Path):
    pictures = made(FakeContext(), params(methods=tuple(METHODS), scale=1.0, steps=2))
    first = pictures["direct-7.png"]
    assert first.shape == (96, 96, 3)
    assert all(np.array_equal(picture, first) for picture in pictures.values())


def test_every_method_differs_above_it_and_leaves_nothing_behind(small: Path):
    ctx = FakeContext()
    made(ctx, params(methods=("direct",)))
    before = weights_of(ctx), ctx.files["direct-7.png"]
    pictures = made(ctx.again(), params(methods=tuple(METHODS)[::-1], steps=2, width=192, height=120, scale=None))
    assert len({picture.tobytes() for picture in pictures.values()}) >= len(METHODS)
    assert pictures["ultraimage-7.png"].shape == (120, 192, 3)
    after = FakeContext(models=ctx.models)
    made(after, params(methods=("direct",)))
    assert after.files["direct-7.png"] == before[1]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(after).values(), before[0].values(), strict=True))
    assert ctx.models.borrowed == 0


@pytest.mark.parametrize("scenario", ["guided_resolution", "guided_view"])
@pytest.mark.parametrize("steps", [3, 4])
def test_guided_scenarios(small: Path, scenario: str, steps: int):
    ctx = FakeContext()
    pictures = made(
        ctx,
        params(scenario=scenario, steps=steps, methods=("ultraimage", "direct"), width=192, height=128, scale=None),
    )
    assert pictures["guide-7.png"].shape == (96, 96, 3)
    assert pictures["ultraimage-7.png"].shape == (128, 192, 3)
    assert ctx.reports[-1][0] == ctx.reports[-1][1] == 3 * (steps + 1)
    again = made(
        FakeContext(),
        params(scenario="direct", steps=steps, methods=("ultraimage",), width=192, height=128, scale=None),
    )
    assert not np.array_equal(again["ultraimage-7.png"], pictures["ultraimage-7.png"])


@pytest.mark.parametrize("mode", ["masked", "velocity"])
def test_other_ways_to_hold_a_view(small: Path, mode: str):
    chosen = params(
        scenario="guided_view", view_mode=mode, methods=("direct",), prompt_high="a blue disc", view_share=1.0
    )
    pasted = params(scenario="guided_view", methods=("direct",), prompt_high="a blue disc", view_share=1.0)
    one, other = (made(FakeContext(), p)["direct-7.png"] for p in (chosen, pasted))
    assert not np.array_equal(one, other)


def test_the_same_seed_gives_the_same_bytes(small: Path):
    first, second, other = FakeContext(), FakeContext(), FakeContext()
    for ctx, seed in ((first, 7), (second, 7), (other, 8)):
        run(ctx, params(seed=seed))
    assert first.files == second.files
    assert set(other.files) == {"ultraimage-8.png", "direct-8.png"}
    assert other.files["direct-8.png"] != first.files["direct-7.png"]


@pytest.mark.parametrize("scenario", ["direct", "guided_resolution", "guided_view"])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(small: Path, scenario: str):
    wanted = params(scenario=scenario, steps=5)
    whole = FakeContext()
    run(whole, wanted)
    for crash_at in range(2, whole.checks + 1, 4):
        ctx = FakeContext(models=whole.models, crash_at=crash_at)
        with pytest.raises(Crash):
            run(ctx, wanted)
        assert ctx.models.borrowed == 0
        following = ctx.again()
        run(following, wanted)
        assert following.files == whole.files
        assert following.numbers == whole.numbers
        assert following.reports[-1] == whole.reports[-1]


def test_a_run_killed_between_saving_and_measuring_is_measured(small: Path):
    wanted = params(methods=("direct",))
    whole = FakeContext()
    run(whole, wanted)
    ctx = whole.again()
    ctx.numbers = {}
    run(ctx, wanted)
    assert ctx.numbers == whole.numbers
    assert ctx.files == whole.files


def test_cancelling_restores_the_model(small: Path):
    ctx = FakeContext()
    run(ctx, params(methods=("direct",)))
    stopped = FakeContext(models=ctx.models, stop_at=3)
    with pytest.raises(Cancelled):
        run(stopped, params(methods=("ultraimage",)))
    assert not stopped.files
    after = FakeContext(models=ctx.models)
    run(after, params(methods=("direct",)))
    assert after.files == ctx.files


def test_progress_counts_up_and_shows_previews(small: Path):
    ctx = FakeContext()
    run(ctx, params())
    steps = [step for step, _, _ in ctx.reports]
    assert steps == sorted(steps)
    assert ctx.reports[-1][:2] == (10, 10)
    assert 2 <= len(ctx.previews) <= 16
    thrifty = FakeContext(plan="thrifty")
    run(thrifty, params())
    assert not thrifty.previews


def test_a_shared_calibration_is_measured_once_and_changes_nothing(small: Path):
    first = FakeContext()
    run(first, params(methods=("ultraimage",)))
    assert len(first.cached) == 1
    second = first.again()
    second.files, second.newest = {}, None
    run(second, params(methods=("ultraimage",)))
    assert second.files == first.files
    assert any("Calibration" in message for _, _, message in first.reports)
    assert not any("Calibration" in message for _, _, message in second.reports)
    run(second, params(methods=("ultraimage",), scale=3.0, seed=8))
    assert len(second.cached) == 2  # another size is another calibration
    run(second, params(methods=("ultraimage",), lambda_max=1.5, seed=9))
    assert len(second.cached) == 2  # how entropies are used is not part of it
    own = FakeContext()
    run(own, params(methods=("ultraimage",), reuse_calibration=False))
    assert not own.cached
    assert own.files != first.files


@pytest.mark.parametrize(
    ("model", "repo", "size"),
    [("flux", "black-forest-labs--FLUX.1-dev", (2080, 576)), ("qwen", "Qwen--Qwen-Image", (400, 352))],
)
def test_published_layouts_complete_a_run(
    published: Path, model: str, repo: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    """The published presets on tiny random checkpoints, beyond the training length and sequence."""
    # A shorter training length: beyond the real one, 7000 tokens, attention takes half a minute without a GPU.
    monkeypatch.setitem(presets.MODELS, "qwen", replace(presets.QWEN, train_tokens=20))
    ctx = FakeContext(published, plan="tiled")
    wanted = params(model=model, width=size[0], height=size[1], scale=None, steps=2, lambda_preset="code")
    pictures = made(ctx, wanted)
    assert pictures["ultraimage-7.png"].shape == (*size[::-1], 3)
    assert not np.array_equal(pictures["ultraimage-7.png"], pictures["direct-7.png"])
    assert len(ctx.cached) == 1
    keys = {key.component: key for key in ctx.models.loaded}
    assert keys["transformer"].repo == repo.replace("--", "/")
    assert keys["transformer"].revision.startswith("sha256:")
    assert keys["transformer"].dtype == "bfloat16"
    assert set(ctx.numbers["direct-7.png"]) == {"vividness", "seam"}


def test_a_schedule_that_needs_two_steps_says_so(published: Path):
    with pytest.raises(InvalidInput) as caught:
        run(FakeContext(published), params(model="qwen", width=96, height=64, scale=None, steps=1))
    assert caught.value.field == "steps"


def test_qwen_direct_sampling_is_the_plain_pipeline(published: Path):
    wanted = params(model="qwen", methods=("direct",), width=96, height=64, scale=None, steps=2)
    ours = made(FakeContext(published), wanted)["direct-7.png"]
    pipe = QwenImagePipeline.from_pretrained(published / "Qwen--Qwen-Image", torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPT,
        negative_prompt=wanted.negative_prompt,
        true_cfg_scale=wanted.guidance,
        height=64,
        width=96,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("model", ["flux", "qwen"])
def test_missing_weights_name_command_size_and_licence(tmp_path: Path, model: str):
    with pytest.raises(WeightsMissing) as caught:
        run(FakeContext(tmp_path), params(model=model, scale=2.0))
    remedy = caught.value.remedy
    assert "hf download" in remedy
    assert "--revision" in remedy
    assert "GB" in remedy
    assert "licence" in remedy


def test_half_a_download_is_missing_weights(published: Path, tmp_path: Path):
    import shutil

    folder = tmp_path / "black-forest-labs--FLUX.1-dev"
    shutil.copytree(published / folder.name, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsMissing):
        run(FakeContext(tmp_path), params(model="flux"))
