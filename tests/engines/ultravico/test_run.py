"""Whole runs on random weights: equal to the plain pipelines, every method, interruption, restoration, refusals."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, HunyuanVideoPipeline, WanImageToVideoPipeline, WanPipeline
from PIL import Image

from engines.ultravico import presets
from engines.ultravico.presets import METHODS
from engines.ultravico.run import run
from engines.ultravico.spec import UltraVicoParams
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext

PROMPT = "a red ball moving right over grey"
UPLOAD = {"sha256": "ab" * 32, "name": "start.png"}


def params(**changes: Any) -> UltraVicoParams:
    return UltraVicoParams(**{"prompt": PROMPT, "steps": 4, "seed": 7, **changes})


def made(ctx: FakeContext, wanted: UltraVicoParams) -> dict[str, np.ndarray]:
    """The videos of a run, by method."""
    run(ctx, wanted)
    videos = {name: data for name, data in ctx.files.items() if name.endswith(".mp4")}
    return {name.split("-")[0]: np.load(io.BytesIO(data)) for name, data in videos.items()}


def plain(pipe: Any, **given: Any) -> np.ndarray:
    """What the library's own pipeline makes of the same prompt and seed, uint8 [T, H, W, 3]."""
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    frames = pipe(num_inference_steps=4, generator=generator, output_type="np", **given).frames[0]
    return (np.asarray(frames) * 255).round().astype(np.uint8)


def parameters_of(ctx: FakeContext) -> dict[str, torch.Tensor]:
    """A digest of every loaded network."""
    parts = {key.component: part for key, part in ctx.models.loaded.items() if isinstance(part, torch.nn.Module)}
    return {name: torch.stack([p.double().sum() for p in part.parameters()]) for name, part in parts.items()}


def test_direct_sampling_is_the_plain_pipeline(small: Path):
    ours = made(FakeContext(), params(methods=("direct",)))["direct"]
    theirs = plain(
        WanPipeline.from_pretrained(small),
        prompt=PROMPT,
        negative_prompt="",
        guidance_scale=params().guidance,
        height=32,
        width=32,
        num_frames=21,
        max_sequence_length=16,
    )
    assert np.array_equal(ours, theirs)


def test_every_method_at_the_training_length_is_direct_sampling(small: Path):
    videos = made(FakeContext(), params(methods=tuple(METHODS), ratio=1.0, steps=2))
    assert videos["direct"].shape == (9, 32, 32, 3)
    assert all(np.array_equal(video, videos["direct"]) for video in videos.values())


def test_no_decay_is_direct_sampling_and_strength_counts(small: Path, monkeypatch: pytest.MonkeyPatch):
    """But for the rule of Wan's first frame, which holds without a decay too."""
    monkeypatch.setitem(presets.MODELS, "pocket", replace(presets.MODELS["pocket"], first_frame=False))
    videos = [
        made(FakeContext(), params(methods=("ultravico",), steps=2, strength="custom", alpha=alpha))["ultravico"]
        for alpha in (1.0, 0.9, 0.2)
    ]
    direct = made(FakeContext(), params(methods=("direct",), steps=2))["direct"]
    assert np.abs(videos[0].astype(int) - direct).max() <= 2, "the same sums in another order"
    far = [np.abs(video.astype(int) - direct).mean() for video in videos]
    assert far[0] < far[1] < far[2]


def test_every_method_differs_and_leaves_nothing_behind(small: Path, monkeypatch: pytest.MonkeyPatch):
    """Trained on eight frames: YaRN keeps what turns once in the training length, and is interpolation below 6.3."""
    monkeypatch.setitem(presets.MODELS, "pocket", replace(presets.MODELS["pocket"], train_latent_frames=8))
    ctx = FakeContext()
    made(ctx, params(methods=("direct",), steps=2))
    before = parameters_of(ctx), ctx.files["direct-7.mp4"]
    far = {"ratio": 1.5, "riflex_k": 1, "tasr_switch": 0.8}  # beyond the period of the first frequency; between steps
    videos = made(FakeContext(models=ctx.models), params(methods=tuple(METHODS)[::-1], steps=3, **far))
    assert len({video.tobytes() for video in videos.values()}) == len(METHODS)
    after = FakeContext(models=ctx.models)
    made(after, params(methods=("direct",), steps=2))
    assert after.files["direct-7.mp4"] == before[1]
    assert all(torch.equal(a, b) for a, b in zip(parameters_of(after).values(), before[0].values(), strict=True))
    hooked = [part for part in ctx.models.loaded.values() if isinstance(part, torch.nn.Module)]
    assert not any(m._forward_hooks or m._forward_pre_hooks for part in hooked for m in part.modules())
    assert ctx.models.borrowed == 0


def test_what_a_run_leaves(small: Path):
    ctx = FakeContext()
    wanted = params(methods=("ultravico", "direct"), ratio=2.5, width=48, height=32, fps=9)
    videos = made(ctx, wanted)
    assert set(ctx.files) == {
        *(f"{method}-7{end}" for method in ("ultravico", "direct") for end in (".mp4", "-frames.zip")),
        "contact-7.png",
        "pattern-7.png",
    }
    assert videos["direct"].shape == (29, 32, 48, 3), "2.5 times 3 latent frames are 8, 4 * 7 + 1 frames"
    assert (
        ctx.attributes["ultravico-7.mp4"] | {"role": "method", "fps": 9, "seed": 7}
        == ctx.attributes["ultravico-7.mp4"]
    )
    with zipfile.ZipFile(io.BytesIO(ctx.files["direct-7-frames.zip"])) as file:
        frames = [np.asarray(Image.open(io.BytesIO(file.read(name)))) for name in sorted(file.namelist())[:29]]
        assert len(file.namelist()) == 30, "and where they come from"
    assert np.array_equal(np.stack(frames), videos["direct"])
    assert ctx.attributes["contact-7.png"]["role"] == "sheet"
    assert ctx.attributes["pattern-7.png"]["role"] == "plot"
    assert set(ctx.numbers["direct-7.mp4"]) >= {"motion", "consistency", "drift", "survival"}
    assert ctx.numbers[""]["attention"] == "stripes"
    assert 0 < ctx.numbers[""]["harmonic_share"] <= 1
    assert ctx.reports[-1][:2] == (11, 11)
    steps = [step for step, _, _ in ctx.reports]
    assert steps == sorted(steps)
    assert 2 <= len(ctx.previews) <= 16
    assert ctx.previews[0].size == (48, 32)


def test_the_same_seed_gives_the_same_bytes(small: Path):
    first, second, other = FakeContext(), FakeContext(), FakeContext()
    for ctx, seed in ((first, 7), (second, 7), (other, 8)):
        run(ctx, params(seed=seed, steps=2))
    assert first.files == second.files
    assert other.files["direct-8.mp4"] != first.files["direct-7.mp4"]


def test_memory_plans_show_the_same_video(small: Path):
    fast, thrifty = FakeContext(), FakeContext(plan="thrifty")
    one, other = (made(ctx, params(steps=2, methods=("ultravico",)))["ultravico"] for ctx in (fast, thrifty))
    assert np.abs(one.astype(int) - other).max() <= 3
    assert fast.previews
    assert not thrifty.previews


def interrupted(whole: FakeContext, wanted: UltraVicoParams, every: int) -> None:
    """Kill a run at every `every`-th check and let a second attempt end it."""
    for crash_at in range(2, whole.checks + 1, every):
        ctx = FakeContext(whole.weights, models=whole.models, crash_at=crash_at)
        ctx.uploads = whole.uploads
        with pytest.raises(Crash):
            run(ctx, wanted)
        assert ctx.models.borrowed == 0
        following = ctx.again()
        run(following, wanted)
        assert following.files == whole.files
        assert following.numbers == whole.numbers
        assert following.reports[-1] == whole.reports[-1]


def test_a_killed_run_goes_on_and_gives_the_same_bytes(small: Path):
    wanted, whole = params(steps=5), FakeContext()
    run(whole, wanted)
    interrupted(whole, wanted, 3)


def test_solvers_that_remember_go_on_too(short: Path):
    """UniPC keeps earlier predictions; CogVideoX's solver also draws noise."""
    for model in ("wan", "cogvideox"):
        wanted = params(model=model, methods=("direct",), ratio=1.0, width=32, height=32, steps=5, negative_prompt="")
        whole = FakeContext(short)
        run(whole, wanted)
        interrupted(whole, wanted, 4)


def test_cancelling_restores_the_model(small: Path):
    ctx = FakeContext()
    run(ctx, params(methods=("direct",), steps=2))
    stopped = FakeContext(models=ctx.models, stop_at=4)
    with pytest.raises(Cancelled):
        run(stopped, params(methods=("riflex_decay",), steps=4))
    assert not stopped.files
    after = FakeContext(models=ctx.models)
    run(after, params(methods=("direct",), steps=2))
    assert after.files["direct-7.mp4"] == ctx.files["direct-7.mp4"]


@pytest.mark.parametrize("model", ["wan", "hunyuan", "cogvideox", "cogvideox_small"])
def test_published_layouts_complete_a_run(short: Path, model: str):
    """The published presets on tiny random checkpoints, beyond the training length."""
    ctx = FakeContext(short, plan="tiled")
    names = ("ultravico", "direct") if model == "cogvideox_small" else ("ultravico", "direct", "riflex", "tasr")
    wanted = params(model=model, ratio=1.6, width=32, height=32, steps=2, methods=names, riflex_k=1)
    videos = made(ctx, wanted)
    assert videos["direct"].shape == (29, 32, 32, 3)
    assert len({video.tobytes() for video in videos.values()}) == len(names)
    keys = {key.component: key for key in ctx.models.loaded}
    assert keys["transformer"].repo == presets.MODELS[model].repo
    assert keys["transformer"].revision.startswith("sha256:")
    assert keys["transformer"].dtype in ("bfloat16", "float16")
    assert keys["vae"].dtype == presets.MODELS[model].vae_dtype


def pipeline_of(folder: Path, model: str, kind: Any) -> Any:
    """The library's own pipeline, in the precisions of the preset."""
    preset = presets.MODELS[model]
    dtypes = {"default": getattr(torch, preset.dtype), "vae": getattr(torch, preset.vae_dtype)}
    if preset.takes_image:
        dtypes["image_encoder"] = torch.float32
    return kind.from_pretrained(folder / preset.repo.replace("/", "--"), dtype=dtypes)


@pytest.mark.parametrize(
    ("model", "kind"),
    [("wan", WanPipeline), ("hunyuan", HunyuanVideoPipeline), ("cogvideox", CogVideoXPipeline)],
)
def test_published_direct_sampling_is_the_plain_pipeline(short: Path, model: str, kind: Any):
    wanted = params(model=model, methods=("direct",), ratio=1.4, width=32, height=32, negative_prompt="")
    ours = made(FakeContext(short), wanted)["direct"]
    given = {"guidance_scale": wanted.guidance, "height": 32, "width": 32, "num_frames": 25}
    negative = {} if model == "hunyuan" else {"negative_prompt": ""}
    pipe = pipeline_of(short, model, kind)
    if model == "cogvideox":  # the caller has to say what the network was built for
        negative["max_sequence_length"] = pipe.transformer.config.max_text_seq_length
    theirs = plain(pipe, prompt=PROMPT, **given, **negative)
    assert np.array_equal(ours, theirs)


def test_wan_from_a_picture(short: Path):
    ctx = FakeContext(short)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    ctx.uploads[UPLOAD["sha256"]] = buffer.getvalue()
    videos = made(ctx, params(model="wan_image", image=UPLOAD, ratio=1.4, width=32, height=32, negative_prompt=""))
    pipe = pipeline_of(short, "wan_image", WanImageToVideoPipeline)
    # The library reads text for this pipeline with a package that it only needs here.
    text = WanPipeline(pipe.tokenizer, pipe.text_encoder, vae=None, scheduler=None)
    with torch.no_grad():  # as in a pipeline: with gradients this encoder rounds otherwise
        embeds, negative = text.encode_prompt(PROMPT, "", True, max_sequence_length=512, device=torch.device("cpu"))
    told = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    theirs = plain(pipe, image=picture, guidance_scale=5.0, height=32, width=32, num_frames=25, **told)
    assert np.array_equal(videos["direct"], theirs)
    assert not np.array_equal(videos["ultravico"], theirs)


def test_a_folder_without_rotary_positions_is_refused(published: Path, tmp_path: Path):
    """The preset says rotary, the folder in its place is not."""
    other = published / presets.COGVIDEOX_SMALL.repo.replace("/", "--")
    (tmp_path / presets.COGVIDEOX.repo.replace("/", "--")).symlink_to(other)
    with pytest.raises(InvalidInput) as caught:
        run(FakeContext(tmp_path), params(model="cogvideox", methods=("pi",)))
    assert caught.value.field == "methods"


@pytest.mark.parametrize("model", [name for name, preset in presets.MODELS.items() if not preset.local])
def test_missing_weights_name_command_size_and_licence(tmp_path: Path, model: str):
    image = UPLOAD if presets.MODELS[model].takes_image else None
    with pytest.raises(WeightsMissing) as caught:
        run(FakeContext(tmp_path), params(model=model, ratio=2.0, image=image))
    assert f"hf download {presets.MODELS[model].repo} --revision" in caught.value.remedy
    assert "GB" in caught.value.remedy
    assert "licence" in caught.value.remedy
