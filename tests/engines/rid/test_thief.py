"""The thief learns on a copy, by three ways, and leaves the model it was handed as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from engines.rid.surrogate import Diffusion
from engines.rid.thief import TOKEN, Way, generate, passes, personalise
from tests.engines.rid.tiny import SIDE

WAYS = {
    "full": Way("full", 1e-3, 2, 3),
    "full with text and class": Way("full", 1e-3, 2, 3, train_text=True, prior_weight=1.0),
    "lora": Way("lora", 1e-2, 2, 3, rank=2),
    "inversion": Way("inversion", 1e-1, 2, 3),
}


def learned(model: Diffusion, way: Way, seed: int = 0, **given):
    pictures = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return personalise(
        model,
        pictures,
        way,
        subject="a {token} person",
        person="a person",
        generator=torch.Generator().manual_seed(seed),
        **given,
    )


def state(model: Diffusion) -> list[torch.Tensor]:
    return [weight.clone() for weight in model.state_dict().values()]


def test_a_copy_is_where_its_model_is(diffusion: Diffusion):
    """The schedule's table is made anew on the processor: it has to follow."""
    own = copy.deepcopy(diffusion).to("meta").own_copy()
    assert {tensor.device.type for tensor in (*own.parameters(), *own.buffers())} == {"meta"}


@pytest.mark.parametrize("name", WAYS)
def test_the_model_that_was_handed_in_stays_as_it_was(name: str, diffusion: Diffusion):
    before, words = state(diffusion), len(diffusion.tokenizer)
    stolen = learned(diffusion, WAYS[name])
    assert all(torch.equal(one, other) for one, other in zip(before, state(diffusion), strict=True))
    assert len(diffusion.tokenizer) == words
    assert not any(weight.requires_grad for weight in diffusion.parameters())
    assert not any(weight.requires_grad for weight in stolen.model.parameters())
    assert TOKEN in stolen.prompt


def test_nor_does_a_thief_who_is_stopped_change_it(diffusion: Diffusion):
    before = state(diffusion)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned(diffusion, WAYS["full"], on_step=stop)
    assert all(torch.equal(one, other) for one, other in zip(before, state(diffusion), strict=True))
    assert not any(weight.requires_grad for weight in diffusion.parameters())


@pytest.mark.parametrize("name", WAYS)
def test_each_way_trains_what_it_says(name: str, diffusion: Diffusion):
    stolen = learned(diffusion, WAYS[name]).model
    unet = dict(diffusion.unet.named_parameters())
    plain = {key.replace(".base_layer", ""): value for key, value in stolen.unet.named_parameters()}
    same = all(torch.equal(plain[key], value) for key, value in unet.items())
    assert same == (WAYS[name].kind != "full")
    adapters = [value for key, value in plain.items() if "lora_B" in key]
    assert bool(adapters) == (WAYS[name].kind == "lora")
    assert all(value.abs().max() > 0 for value in adapters)
    old = diffusion.text.get_input_embeddings().weight
    new = stolen.text.get_input_embeddings().weight
    assert torch.equal(new[: len(old)], old) or WAYS[name].train_text
    row = stolen.tokenizer.convert_tokens_to_ids(TOKEN)
    person = stolen.tokenizer.convert_tokens_to_ids("person")
    assert not torch.equal(new[row], old[person])


def test_the_same_seed_steals_the_same_person(diffusion: Diffusion):
    def drawn(seed: int) -> torch.Tensor:
        stolen = learned(diffusion, WAYS["full"], seed)
        return generate(stolen, 3, generator=torch.Generator().manual_seed(1), steps=3, batch=2)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert drawn(0).shape == (3, 3, SIDE, SIDE)
    assert drawn(0).abs().max() <= 1


def test_drawing_can_be_stopped_at_every_step_of_it(diffusion: Diffusion):
    stolen, told = learned(diffusion, WAYS["full"]), []
    generate(stolen, 5, generator=torch.Generator(), steps=3, batch=2, on_step=told.append)
    assert told == list(range(1, 10))
    assert passes(5, steps=3, batch=2) == 9
    assert passes(8) == 20

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(stolen, 5, generator=torch.Generator(), steps=3, on_step=stop)


def test_drawing_the_class_is_heard_of_too(diffusion: Diffusion):
    told: list[int] = []
    learned(diffusion, WAYS["full with text and class"], on_step=told.append)
    assert told == [0] * passes(6) + [1, 2, 3]


def test_who_has_been_learned_before_is_learned_further(diffusion: Diffusion):
    def place(model: Diffusion) -> torch.Tensor:
        return model.text.get_input_embeddings().weight[model.tokenizer.convert_tokens_to_ids(TOKEN)]

    still = Way("inversion", 0.0, 1, 1)
    once = learned(diffusion, WAYS["inversion"])
    assert torch.equal(place(learned(once.model, still).model), place(once.model))


def test_learning_fits_the_pictures(diffusion: Diffusion):
    picture = torch.full((1, 3, SIDE, SIDE), 0.5)
    stolen = personalise(
        diffusion,
        picture,
        Way("full", 3e-3, 4, 60),
        subject="a {token} person",
        person="a person",
        generator=torch.Generator().manual_seed(0),
    )

    def error(model: Diffusion, prompt: str) -> float:
        generator = torch.Generator().manual_seed(2)
        latents = model.encode(picture).expand(32, -1, -1, -1)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(model.steps, (32,), generator=generator)
        guess = model.predict(model.noised(latents, noise, timesteps), timesteps, model.embed([prompt] * 32))
        return float((guess - noise).square().mean())

    with torch.no_grad():
        assert error(stolen.model, stolen.prompt) < 0.9 * error(diffusion, "a person")


def test_an_unknown_way_is_refused(diffusion: Diffusion):
    with pytest.raises(ValueError, match="magic"):
        learned(diffusion, Way("magic", 1e-3, 1, 1))
