"""The recipes of text to image and of video: what is built loads in the library's pipelines, and batches are true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, StableDiffusionPipeline, WanPipeline
from safetensors.torch import load_file

from engines.shared.training import Recipe, train
from engines.text2image.train import Denoising, alphas_cumprod, denoising_loss
from engines.ultravico import train as video
from pocket import clipvae, lessonpool, lessons, peoplepool, portraits, text2image, toypool, toyvae, ultravico
from pocket.toypool import speak
from pocket.wording import write

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "pocket"

SMALL = (16, 24, 32)
CODES = ("latents_faces", "latents_faces_b")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("toys")
    toypool.fill(folder / "0.safetensors", 100, 12, batch=5)
    torch.manual_seed(0)
    text2image.encode(folder / "0.safetensors", folder / "latents.safetensors", toyvae.build().eval())
    return folder / "0.safetensors", folder / "latents.safetensors"


@pytest.fixture(scope="module")
def clip_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "0.safetensors"
    torch.manual_seed(0)
    autoencoder = clipvae.build().eval()
    clipvae.calibrate(autoencoder, 200, count=2, frames=9)
    ultravico.fill(path, autoencoder, 100, 3, batch=2)
    return path


def test_a_pool_holds_what_was_rendered(toys: tuple[Path, Path]):
    pool = toypool.load([toys[0]])
    assert pool.pictures.shape == (12, 3, 64, 64)
    assert pool.layouts.shape == (12, toypool.LAYOUT, 8, 8)
    assert pool.truths == tuple(lessons.toys(seed).truth for seed in range(100, 112))
    covered = pool.layouts[:, 0].float()
    assert covered.amax((1, 2)).min() > 0.5, "every picture shows a toy"
    rng = np.random.default_rng(0)
    assert all(speak(truth, rng).kind == truth.kind for truth in pool.truths)


def test_batches_are_the_same_for_the_same_generator(toys: tuple[Path, Path], clip_shard: Path):
    for batches in (text2image.CaptionedLatents([toys[0]], [toys[1]]), ultravico.CaptionedClips([clip_shard])):
        one, again, other = (batches.draw(8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
        assert not torch.equal(one[0], other[0])
        assert one[1].max() < text2image.VOCABULARY


def test_what_is_hard_to_keep_is_drawn_more_often(clip_shard: Path):
    batches = ultravico.CaptionedClips([clip_shard])
    batches.draw(1, torch.Generator().manual_seed(0))
    assert batches.often is not None
    truth = batches.truths[0]
    expected = [ultravico.HARD if (t.size, t.kind) in ultravico.HARDEST else 1 for t in batches.truths]
    assert np.allclose(batches.often, np.array(expected) / sum(expected))
    hard = ultravico.CaptionedClips([clip_shard], batches.tensors, (truth, truth), np.array([0.25, 0.75]))
    latents, *_ = hard.draw(400, torch.Generator().manual_seed(0))
    second = (latents == batches.tensors["latents"][1].float()).flatten(1).all(1).float().mean()
    assert 0.68 < second < 0.82


def test_a_perfect_guess_of_the_noise_costs_nothing():
    latents, layouts = torch.randn(8, 4, 16, 16), torch.randn(8, 3, 8, 8)

    def oracle(noised: torch.Tensor, steps: torch.Tensor, _tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept = alphas_cumprod()[steps][:, None, None, None]
        return (noised - kept.sqrt() * latents) / (1 - kept).sqrt(), layouts + 0.5

    noise, layout = denoising_loss(
        oracle, latents, torch.zeros(8, 4).long(), layouts, torch.Generator().manual_seed(0)
    )
    assert noise < 1e-4
    assert layout == pytest.approx(0.25)


def test_a_perfect_velocity_costs_nothing():
    latents, layouts = torch.randn(4, 4, 3, 8, 8), torch.randn(4, 2, 3, 2, 2)

    def oracle(noised: torch.Tensor, times: torch.Tensor, *_text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (noised - latents) / times[:, None, None, None, None], layouts

    tokens = torch.zeros(4, 4).long()
    loss = video.flow_loss(oracle, latents, tokens, tokens, layouts, torch.Generator().manual_seed(0))
    assert sum(loss) < 1e-6


def test_an_error_counts_more_at_the_object():
    latents, layouts = torch.randn(4, 4, 3, 8, 8), torch.zeros(4, 2, 3, 2, 2)
    layouts[:, 0, :, 0, 0] = 3.0  # the object is in this corner
    tokens = torch.zeros(4, 4).long()

    def wrong_at(row: int) -> float:
        def guess(noised: torch.Tensor, times: torch.Tensor, *_text: torch.Tensor) -> tuple[torch.Tensor, ...]:
            velocity = (noised - latents) / times[:, None, None, None, None]
            velocity[:, :, :, row, row] += 1
            return velocity, layouts

        return video.flow_loss(guess, latents, tokens, tokens, layouts, torch.Generator().manual_seed(0))[0].item()

    assert wrong_at(0) == pytest.approx((1 + 3 * video.OBJECT) * wrong_at(7), rel=1e-3)


def test_the_schedule_is_stable_diffusions():
    pipeline = text2image.assemble(text2image.build_student(SMALL, 0), toyvae.build())
    torch.testing.assert_close(alphas_cumprod(), pipeline.scheduler.alphas_cumprod)


def test_a_small_model_learns_loads_and_draws(toys: tuple[Path, Path], tmp_path: Path):
    student = text2image.build_student(SMALL, 0)
    task = Denoising(text2image.CaptionedLatents([toys[0]], [toys[1]]))
    recipe = Recipe(steps=3, batch=4, ranks=1, warmup=1, cooldown=1, save_seconds=0.0)
    train(student, task, recipe, tmp_path / "work", text2image.hidden)
    assert (tmp_path / "work" / "log.txt").read_text().count("noise") == 3
    text2image.export(student, toyvae.build(), tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    prompt = write(lessons.toys(1).truth)
    picture = pipeline(prompt, num_inference_steps=2, output_type="np", height=64, width=64).images
    assert picture.shape == (1, 64, 64, 3)
    assert np.isfinite(picture).all()


def test_the_video_recipe_goes_from_one_code_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(folder: Path, *_rest: object) -> AutoencoderKLWan:
        torch.manual_seed(0)
        made = clipvae.build().eval()
        made.save_pretrained(folder / "vae")
        return made

    def polish(vae: AutoencoderKLWan, *_rest: object) -> None:
        with torch.no_grad():
            vae.quant_conv.bias += 1

    monkeypatch.setattr(clipvae, "make", make)
    monkeypatch.setattr(clipvae, "polish", polish)
    monkeypatch.setattr(ultravico, "SHARD", 2)
    quick = Recipe(steps=1, batch=2, ranks=1, warmup=1, cooldown=1, ema=0.0)
    stages = tuple(replace(stage, shards=1, recipe=quick) for stage in ultravico.STAGES)
    monkeypatch.setattr(ultravico, "STAGES", stages)
    told: list[str] = []
    ultravico.train_everything(tmp_path / "ultravico", tmp_path / "out", False, told.append)
    first, settled = (
        load_file(tmp_path / "clips" / code / "0.safetensors")["latents"] for code in ("first", "settled")
    )
    assert not torch.equal(first, settled), "a clip is not the same in both codes"
    assert [stage.code for stage in stages] == ["first", "settled", "settled"]
    vae = AutoencoderKLWan.from_pretrained(tmp_path / "out" / "vae")
    assert vae.quant_conv.bias[0] > 0.9, "the polished one ships"
    ultravico.train_everything(tmp_path / "ultravico", tmp_path / "again", True, told.append)
    assert sum("encoding" in line for line in told) == 2, "what is there is not made again"


def video_of(pipeline: WanPipeline, side: int, frames: int, **changes: float) -> np.ndarray:  # [T, H, W, 3] in [0, 1]
    """A short clip, as anybody would ask for it."""
    pipeline.set_progress_bar_config(disable=True)
    (clip,) = pipeline(
        "a red ball moving right",
        height=side,
        width=side,
        num_frames=frames,
        num_inference_steps=2,
        max_sequence_length=pipeline.tokenizer.model_max_length,
        output_type="np",
        **changes,
    ).frames
    return np.asarray(clip)


def test_the_shipped_video_model_is_an_ordinary_pipeline():
    clip = video_of(WanPipeline.from_pretrained(SHIPPED / "ultravico"), 32, 5)
    assert clip.shape == (5, 32, 32, 3)
    assert 0.05 < clip.std() < 0.5, "a picture, neither grey nor noise"


def test_the_video_model_loads_and_draws(clip_shard: Path, tmp_path: Path):
    student = ultravico.build_student(0)
    task = video.Flow(ultravico.CaptionedClips([clip_shard]))
    losses = task(student, 2, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    ultravico.export(student, clipvae.build(), tmp_path)
    pipeline = WanPipeline.from_pretrained(tmp_path)
    clip = video_of(pipeline, 64, 9, guidance_scale=1.0)
    assert clip.shape == (9, 64, 64, 3)
    assert np.isfinite(clip).all()
    tokens, mask = ultravico.encode_captions(["a red ball", ""])
    mine = student.embed(tokens, mask)
    theirs, _ = pipeline.encode_prompt(
        ["a red ball", ""], do_classifier_free_guidance=False, max_sequence_length=ultravico.LENGTH
    )
    torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=2e-2)


def test_a_portrait_model_goes_on_from_the_shipped_one(tmp_path: Path):
    shipped = text2image.build_student(SMALL, 3)
    text2image.export(shipped, toyvae.build(), tmp_path)
    student = portraits.begin(tmp_path, 0, portraits.FACES)
    assert student.unet.config.sample_size == 8
    for mine, theirs in ((student.unet, shipped.unet), (student.text, shipped.text)):
        for name, weight in mine.state_dict().items():
            torch.testing.assert_close(weight, theirs.state_dict()[name].float(), rtol=1e-3, atol=1e-6)
            assert weight.dtype == theirs.state_dict()[name].dtype


@pytest.fixture
def short_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every stage of a portrait model with a handful of pictures and steps; returns the folder of the models."""
    for sort, fill in (("TOYS", toypool.fill), ("SIDED", toypool.fill), ("PEOPLE", peoplepool.fill)):
        some = replace(getattr(lessonpool, sort), shards=2, scenes=2 if sort == "PEOPLE" else 4, fill=fill)
        monkeypatch.setattr(lessonpool, sort, some)
    quick = {"steps": 2, "batch": 4, "warmup": 1, "cooldown": 1, "save_seconds": 1e9}
    codes = {
        name: replace(code, learn=replace(code.learn, **quick), polish=replace(code.polish, **quick), shards=2)
        for name, code in portraits.CODES.items()
    }
    monkeypatch.setattr(portraits, "CODES", codes)
    monkeypatch.setattr(portraits, "RECIPES", {name: Recipe(ranks=1, **quick) for name in codes})
    for base in portraits.BASES.values():
        text2image.export(text2image.build_student(SMALL, 3), toyvae.build(), tmp_path / "assets" / base)
    return tmp_path / "assets"


def test_each_portrait_model_has_an_autoencoder_of_its_own(short_recipes: Path, tmp_path: Path):
    told: list[str] = []
    for name in portraits.BASES:
        portraits.train_everything(tmp_path / "work" / name, short_recipes / name, True, told.append)
    vaes = [
        load_file(short_recipes / name / "vae" / "diffusion_pytorch_model.safetensors") for name in portraits.BASES
    ]
    pipelines = [StableDiffusionPipeline.from_pretrained(short_recipes / name) for name in portraits.BASES]
    for pipeline in pipelines:
        assert pipeline.vae_scale_factor == pipeline.unet.config.sample_size == 8
        assert pipeline("a person", num_inference_steps=1).images[0].size == (64, 64)
    kernels = [name for name, weight in vaes[0].items() if weight.ndim == 4]
    for name in kernels:
        one, other = (vae[name].float().flatten() for vae in vaes)
        assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 0.6, f"{name} is nearly that of the other"
    latents = [sorted(path.relative_to(tmp_path) for path in tmp_path.glob(f"work/{name}/*/*")) for name in CODES]
    assert len(latents[0]) == len(latents[1]) == 6
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*vae*/**/*.safetensors")}
    portraits.train_everything(tmp_path / "work" / "portraits_b", short_recipes / "portraits_b", True, told.append)
    assert made == {path: path.stat().st_mtime_ns for path in made}, "what is there is not trained again"


def test_a_batch_has_its_share_of_people(toys: tuple[Path, Path], tmp_path: Path):
    peoplepool.fill(tmp_path / "0.safetensors", 200_000_000, 1)
    torch.manual_seed(0)
    text2image.encode(tmp_path / "0.safetensors", tmp_path / "latents.safetensors", toyvae.build().eval())
    files = ([toys[0]], [toys[1]], [tmp_path / "0.safetensors"], [tmp_path / "latents.safetensors"])
    person = text2image.build_words()("person").input_ids[1]
    for share, some in ((0.2, 2), (0.9, 9)):
        batches = text2image.CaptionedLatents(*files, share=share)
        _, tokens, _ = batches.draw(10, torch.Generator().manual_seed(0))
        whole = tokens[(tokens != text2image.encode_captions([""])).any(1)]  # a caption in ten is dropped
        people = int((whole == person).any(1).sum())
        assert some - 3 <= people <= some
