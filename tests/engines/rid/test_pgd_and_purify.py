"""Perturbations by search, and what a thief does against them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engines.rid import pgd
from engines.rid.pgd import (
    denoising_gradient,
    protect_by_alternation,
    protect_by_reconstruction,
    protect_by_search,
)
from engines.rid.portrait import jpeg_roundtrip
from engines.rid.purify import WAYS, left, purified, redrawn
from engines.rid.surrogate import Diffusion
from engines.rid.thief import TOKEN, Way
from tests.engines.rid.tiny import SIDE

EPS = 0.1
ASKED = {"prompt": "a person", "guidance": 3.0}


def pictures(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 1.2 - 0.6
    return F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def found(model: Diffusion, **given) -> torch.Tensor:
    settings = {"eps": EPS, "rounds": 4, "inner": 5, "prompt": "a person"} | given
    models = settings.pop("models", [model])
    return protect_by_search(models, pictures(), generator=torch.Generator().manual_seed(0), **settings)


def error(model: Diffusion, shown: torch.Tensor) -> float:
    """Of the predicted noise, over many draws that are the same for every picture."""
    generator, total = torch.Generator().manual_seed(9), 0.0
    with torch.no_grad():
        latents = model.encode(shown)
        for _ in range(40):
            noise = torch.randn(latents.shape, generator=generator)
            timesteps = torch.randint(model.steps, (len(shown),), generator=generator)
            words = model.embed(["a person"]).expand(len(shown), -1, -1)
            guess = model.predict(model.noised(latents, noise, timesteps), timesteps, words)
            total += float((guess - noise).square().mean())
    return total


def test_the_search_stays_within_the_budget_and_climbs(diffusion: Diffusion):
    moved, with_memory = found(diffusion), found(diffusion, momentum=True)
    for made in (moved, with_memory):
        assert (made - pictures()).abs().max() <= EPS + 1e-6
        assert made.abs().max() <= 1
    assert not torch.equal(moved, with_memory)
    assert error(diffusion, moved) > error(diffusion, pictures())


def test_models_are_averaged_and_steps_are_told(diffusion: Diffusion):
    told: list[int] = []
    moved = found(diffusion, models=[diffusion, diffusion], rounds=1, inner=2, on_step=told.append)
    assert told == [1, 2, 3, 4]
    assert (moved - pictures()).abs().max() <= EPS + 1e-6


def test_the_gradient_is_that_of_the_pictures_alone(diffusion: Diffusion):
    words = diffusion.embed(["a person"]).expand(3, -1, -1)
    gradient = denoising_gradient(diffusion, pictures(), words, torch.Generator().manual_seed(0))
    assert gradient.shape == pictures().shape
    assert gradient.abs().max() > 0
    assert all(weight.grad is None for weight in diffusion.parameters())


FULL = Way("full", 1e-2, 2, 3)


def test_an_attack_on_the_autoencoder_spoils_what_it_gives_back(diffusion: Diffusion):
    def spoilt(shown: torch.Tensor) -> float:
        with torch.no_grad():
            given = diffusion.vae.decode(diffusion.vae.encode(shown).latent_dist.mean).sample
        return float((given - pictures()).square().mean())

    told: list[int] = []
    settings = {"eps": EPS, "rounds": 2, "inner": 5, "on_step": told.append}
    made, again = (
        protect_by_reconstruction(
            [diffusion, diffusion], pictures(), generator=torch.Generator().manual_seed(0), **settings
        )
        for _ in range(2)
    )
    assert torch.equal(made, again)
    assert told == 2 * [*range(1, 21)]
    assert (made - pictures()).abs().max() <= EPS + 1e-6
    assert made.abs().max() <= 1
    signs = torch.randint(2, made.shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    assert spoilt(made) > spoilt((pictures() + EPS * signs).clamp(-1, 1))
    assert all(weight.grad is None for weight in diffusion.parameters())


def alternated(model: Diffusion, **given) -> torch.Tensor:
    settings = {"eps": EPS, "rounds": 3, "inner": 4, "way": FULL, "models": [model]} | given
    models, generator = settings.pop("models"), torch.Generator().manual_seed(0)
    asked = {"subject": "a {token} person", "person": "a person", "generator": generator}
    return protect_by_alternation(models, pictures(), **settings, **asked)


def test_alternation_stays_within_the_budget_and_leaves_the_surrogate_as_it_was(diffusion: Diffusion):
    before = [weight.clone() for weight in diffusion.state_dict().values()]
    made = alternated(diffusion)
    assert (made - pictures()).abs().max() <= EPS + 1e-6
    assert made.abs().max() <= 1
    assert all(torch.equal(one, other) for one, other in zip(before, diffusion.state_dict().values(), strict=True))
    assert torch.equal(made, alternated(diffusion))
    assert not torch.equal(made, found(diffusion, rounds=3, inner=4))


def test_alternation_climbs_in_steps_of_a_tenth_up_to_the_budget(
    diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pgd, "denoising_gradient", lambda model, moved, *rest: torch.ones_like(moved))
    for rounds, share in ((2, 0.6), (5, 1.0)):
        made = alternated(diffusion, rounds=rounds, inner=3, way=Way("full", 1e-3, 1, 1))
        torch.testing.assert_close(made, (pictures() + share * EPS).clamp(-1, 1))


def test_alternation_learns_clean_then_climbs_then_learns_what_it_made(
    diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    """The published order: a copy learns the clean pictures and is climbed; the surrogate learns what came of it."""
    learnt: list[tuple[Diffusion, torch.Tensor, Diffusion]] = []
    climbed: list[Diffusion] = []
    learn, climb = pgd.personalise, pgd.denoising_gradient

    def learning(model: Diffusion, shown: torch.Tensor, *rest, **given):
        made = learn(model, shown, *rest, **given)
        learnt.append((model, shown, made.model))
        return made

    def climbing(model: Diffusion, *rest):
        climbed.append(model)
        return climb(model, *rest)

    monkeypatch.setattr(pgd, "personalise", learning)
    monkeypatch.setattr(pgd, "denoising_gradient", climbing)
    made = alternated(diffusion, rounds=2, inner=2)
    (first, clean, copy), (again, shown, taught), (second, clean_too, copy_too), (_, last, _) = learnt
    assert first is again is diffusion
    assert second is taught, "the next round goes on from what learned the protected pictures"
    assert climbed == [copy, copy, copy_too, copy_too]
    assert torch.equal(clean, pictures())
    assert torch.equal(clean_too, pictures())
    assert torch.equal(last, made)
    assert not torch.equal(shown, last)


def test_alternation_keeps_what_the_placeholder_has_learned(diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch):
    rows: list[torch.Tensor] = []
    learn = pgd.personalise

    def learning(model: Diffusion, *rest, **given):
        made = learn(model, *rest, **given)
        row = made.model.tokenizer.convert_tokens_to_ids(TOKEN)
        rows.append(made.model.text.get_input_embeddings().weight[row].clone())
        return made

    monkeypatch.setattr(pgd, "personalise", learning)
    alternated(diffusion, rounds=3, way=Way("full", 1e-2, 2, 2))
    start = diffusion.text.get_input_embeddings().weight[diffusion.tokenizer.convert_tokens_to_ids("person")]
    went = [float((row - start).norm()) for row in rows[1::2]]
    assert went[0] < went[-1], "its second learning went on from the first"


def test_alternation_draws_its_prior_once_and_can_be_stopped_while_it_learns(
    diffusion: Diffusion, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[int] = []
    draw = pgd.class_latents
    monkeypatch.setattr(pgd, "class_latents", lambda *given: (drawn.append(1), draw(*given))[1])
    told: list[int] = []
    kind = Way("full", 1e-3, 2, 2, train_text=True, prior_weight=1.0)
    alternated(diffusion, rounds=2, inner=1, way=kind, models=[diffusion, diffusion], on_step=told.append)
    assert drawn == [1, 1], "once a model"
    learning = 2 * 2 * 2 * kind.steps  # models, rounds, learnings of a round
    drawing = 2 * 20
    assert len(told) == drawing + learning + 4
    assert told == sorted(told)
    assert told[-1] == 4


def test_alternation_is_full_fine_tuning(diffusion: Diffusion):
    with pytest.raises(ValueError, match="lora"):
        alternated(diffusion, way=Way("lora", 1e-3, 2, 2, rank=2))


@pytest.mark.parametrize("way", ["none", "diffusion", *WAYS])
def test_every_purification_keeps_shape_and_range_and_is_repeatable(way: str, diffusion: Diffusion):
    one, again = (
        purified(pictures(), way, model=diffusion, generator=torch.Generator().manual_seed(3), **ASKED)
        for _ in range(2)
    )
    assert torch.equal(one, again)
    assert one.shape == pictures().shape
    assert one.abs().max() <= 1
    assert torch.equal(one, pictures()) == (way == "none")


def test_jpeg_is_the_real_one(diffusion: Diffusion):
    shown = (pictures(1) * 127.5 + 127.5).round() / 127.5 - 1
    made = purified(shown, "jpeg50", model=diffusion, generator=torch.Generator(), **ASKED)
    levels = (shown[0].permute(1, 2, 0).numpy() * 127.5 + 127.5).round().astype(np.uint8)
    expected = jpeg_roundtrip(levels, 50).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(made[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_a_balance_of_colours_undoes_a_cast(diffusion: Diffusion):
    grey = torch.linspace(-0.8, 0.4, SIDE).expand(2, 3, SIDE, SIDE)
    cast = (grey + 1) * torch.tensor([0.7, 1.0, 1.3]).view(1, 3, 1, 1) - 1
    made = purified(cast, "balance", model=diffusion, generator=torch.Generator(), **ASKED)
    torch.testing.assert_close(made, grey.contiguous())
    black = torch.full_like(grey, -1)
    assert torch.equal(purified(black, "balance", model=diffusion, generator=torch.Generator(), **ASKED), black)


def test_blur_and_resizing_remove_what_is_fine(diffusion: Diffusion):
    fine = torch.ones(1, 3, SIDE, SIDE) * 0.3
    fine[..., ::2] *= -1
    for way in ("blur", "resize"):
        made = purified(fine, way, model=diffusion, generator=torch.Generator(), **ASKED)
        assert made.std() < 0.5 * fine.std()


def test_redrawing_a_little_changes_little(diffusion: Diffusion):
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    little, much = (
        redrawn(pictures(), diffusion, generator, strength=strength, **ASKED)
        for generator, strength in zip(generators, (0.02, 0.9), strict=True)
    )
    kept = diffusion.decode(diffusion.encode(pictures()))
    assert (little - kept).abs().mean() < (much - kept).abs().mean()


def test_redrawing_follows_its_prompt(diffusion: Diffusion):
    def made(**asked) -> torch.Tensor:
        return redrawn(pictures(), diffusion, torch.Generator().manual_seed(1), strength=0.5, **ASKED | asked)

    assert torch.equal(made(), made())
    assert not torch.equal(made(), made(prompt="a red hat"))
    assert not torch.equal(made(), made(guidance=7.5))
    torch.testing.assert_close(made(prompt="", guidance=1.0), made(prompt="", guidance=7.5))


def test_what_a_purification_leaves_is_all_where_nothing_is_done_and_little_after_a_blur(diffusion: Diffusion):
    clean = ((pictures() * 127.5 + 127.5).round() / 127.5) - 1
    signs = torch.randint(0, 2, clean.shape, generator=torch.Generator().manual_seed(2)) * 2 - 1
    protected = clean + signs * 8 / 127.5

    def after(way: str, shown: torch.Tensor = protected):
        stream = torch.Generator().manual_seed
        return left(clean, shown, way, model=diffusion, stream=lambda: stream(5), **ASKED)

    whole, blurred, drowned = after("none"), after("blur"), after("noise")
    assert (whole.energy, whole.correlation, whole.latents) == pytest.approx((1, 1, 1), abs=1e-6)
    assert blurred.energy < 0.3
    assert blurred.correlation < 0.6
    assert blurred.latents < 1
    assert drowned.correlation > 0.9, "the same noise on both cancels out"
    nothing = after("jpeg75", clean)
    assert (nothing.energy, nothing.correlation, nothing.latents) == (0, 0, 0)


def test_an_unknown_purification_is_refused(diffusion: Diffusion):
    with pytest.raises(ValueError, match="holy water"):
        purified(pictures(), "holy water", model=diffusion, generator=torch.Generator(), **ASKED)


def test_who_predicts_velocity_is_attacked_in_velocity(diffusion: Diffusion):
    """|v - v'|^2 = |e - e'|^2 / abar, so that high noise counts for more."""
    draw = torch.Generator().manual_seed(2)
    latents = diffusion.encode(pictures())
    noise, t = torch.randn(latents.shape, generator=draw), torch.tensor([100, 500, 900])
    words = diffusion.embed(["a person"]).expand(3, -1, -1)
    model = diffusion.own_copy()
    model.scheduler = type(model.scheduler).from_config(model.scheduler.config, prediction_type="v_prediction")
    found = model.denoising_error(latents, noise, t, words)
    abar = model.alphas_cumprod[t].view(-1, 1, 1, 1)
    velocity = abar.sqrt() * noise - (1 - abar).sqrt() * latents
    said = model.unet(model.noised(latents, noise, t), t, encoder_hidden_states=words).sample
    torch.testing.assert_close(found, F.mse_loss(said, velocity), rtol=1e-4, atol=1e-5)
