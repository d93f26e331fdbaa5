"""One theft: a person's pictures are perturbed and posted, and a thief takes, learns and redraws them.

RID (arXiv 2412.09844), evaluation protocol: protect, personalise, generate, measure. The laboratory on the page and
the benchmark run this same code. Everything but what was done to the pictures is the same for every condition: each
purpose has randomness of its own under one seed. Knows no context, no file and no page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.rid.identity import Recogniser
from engines.rid.levels import stored, to_float
from engines.rid.pgd import protect_by_alternation, protect_by_reconstruction, protect_by_search
from engines.rid.portrait import apply_perturbation
from engines.rid.presets import Surrogate
from engines.rid.purify import purified
from engines.rid.quality import brisque, frechet_distance, identity_metrics, kept_identity
from engines.rid.surrogate import Diffusion
from engines.rid.thief import Stolen, Way, generate, personalise

SEARCH = (10, 9)  # rounds, and steps a round, of the search
ALTERNATION = (15, 6, 3)  # the same of ASPL, as many steps in all, and how many its surrogates learn each time
PURPOSES = ("random", "pgd", "purify", "learn", "draw", "aspl", "photoguard")
BLUER = (-1.0, -1.0, 1.0)  # red, green, blue: what autoencoders give back worst, and defenders therefore lean to
Stream = Callable[[str], torch.Generator]  # randomness of a purpose, from its beginning each time
OnStep = Callable[[str, int], None]  # what is done ("search", "learn", "draw"), and how many steps of it are


def seed_of(seed: int, purpose: str) -> int:
    """The seed of one of PURPOSES under a seed below 2^62: far from those of all others, and of seeds near by."""
    return (seed + 0x9E3779B97F4A7C15 * (1 + PURPOSES.index(purpose))) % 2**63


def perturbed(
    condition: str,
    clean: Tensor,  # [N, 3, S, S] in [-1, 1], on whole grey levels
    *,
    eps: float,  # budget in [-1, 1]
    models: Sequence[Diffusion],  # that perturbations are searched against
    surrogate: Surrogate,  # how those are asked for a person
    defend: Callable[[Tensor], Tensor],  # the perturbation of a defender, within eps
    stream: Stream,
    on_step: OnStep = lambda stage, done: None,
) -> Tensor:  # [N, 3, S, S] in [-1, 1], on whole grey levels
    """The pictures as they are posted. Raises ValueError for a condition that is none."""

    device = models[0].alphas_cumprod.device if models else "cpu"

    def searched(by: Callable[..., Tensor], rounds: int, inner: int, **asked: Any) -> Tensor:
        """What a search changes."""
        found = by(
            models,
            clean.to(device),
            eps=eps,
            rounds=rounds,
            inner=inner,
            generator=stream(condition),
            on_step=lambda done: on_step("search", done),
            **asked,
        )
        return found.cpu() - clean

    match condition:
        case "clean":
            return clean
        case "random":
            delta = eps * (torch.randint(0, 2, clean.shape, generator=stream("random")) * 2.0 - 1)
        case "cast":
            delta = eps * torch.tensor(BLUER).view(1, 3, 1, 1).expand_as(clean)
        case "rid":
            delta = defend(clean)
        case "pgd":
            delta = searched(protect_by_search, *SEARCH, prompt=surrogate.person)
        case "photoguard":
            delta = searched(protect_by_reconstruction, *SEARCH)
        case "aspl":
            rounds, inner, learning = ALTERNATION
            way = replace(Way("full", **surrogate.ways["full"]), steps=learning)
            asked = {"subject": surrogate.subject, "person": surrogate.person}
            delta = searched(protect_by_alternation, rounds, inner, way=way, **asked)
        case other:
            raise ValueError(f"no condition is called {other!r}")
    return to_float(apply_perturbation(clean, delta)[1])


def stolen_pictures(
    model: Diffusion,
    posted: Tensor,  # [N, 3, S, S] in [-1, 1]
    way: Way,
    count: int,
    *,
    surrogate: Surrogate,
    purify: str,
    stream: Stream,
    on_step: OnStep = lambda stage, done: None,
) -> Tensor:  # [count, 3, S, S] in [-1, 1]
    """What a thief draws who purified and learned the posted pictures. The model stays as it was."""
    learned = purified(
        posted.to(model.alphas_cumprod.device),
        purify,
        model=model,
        prompt=surrogate.person,
        guidance=surrogate.guidance,
        generator=stream("purify"),
    )
    stolen = personalise(
        model,
        learned,
        way,
        subject=surrogate.subject,
        person=surrogate.person,
        generator=stream("learn"),
        on_step=lambda done: on_step("learn", done),
    )
    return _drawn(stolen, count, surrogate, stream, on_step)


def anybody(
    model: Diffusion,
    count: int,
    *,
    surrogate: Surrogate,
    stream: Stream,
    on_step: OnStep = lambda stage, done: None,
) -> Tensor:  # [count, 3, S, S] in [-1, 1]
    """What the model draws that nobody personalised, from the same noise: the floor of every likeness."""
    return _drawn(Stolen(model, surrogate.person), count, surrogate, stream, on_step)


def _drawn(stolen: Stolen, count: int, surrogate: Surrogate, stream: Stream, on_step: OnStep) -> Tensor:
    return generate(
        stolen,
        count,
        generator=stream("draw"),
        guidance=surrogate.guidance,
        on_step=lambda done: on_step("draw", done),
    ).cpu()


def identity(
    judge: Recogniser,
    person: np.ndarray,  # uint8 [N, S, S, 3], true pictures
    shown: np.ndarray,  # uint8 [M, S, S, 3], of whom the judge is asked
) -> dict[str, float | None]:
    """kept: share of pictures with a face that is taken for the person's; ism: mean cosine of those with a face, None
    where there is none; fdfr: share without a face; fid: Frechet distance of the embeddings.

    Empty where the judge finds no face in most of the person's own pictures: it then says nothing about identity.
    """
    reference, seen = judge(person)
    if not seen.mean() > 0.5:
        return {}
    embeddings, faces = judge(shown)
    ism, fdfr = identity_metrics(embeddings, faces, reference)
    kept = kept_identity(embeddings, faces, reference, judge.threshold)
    numbers = {"kept": round(kept, 4), "ism": None if np.isnan(ism) else round(ism, 4), "fdfr": round(fdfr, 4)}
    if min(len(reference), len(embeddings)) > 1:
        numbers |= {"fid": round(frechet_distance(embeddings, reference), 4)}
    return numbers


def likeness(
    judge: Recogniser,
    person: np.ndarray,  # uint8 [N, S, S, 3], true pictures
    posted: Tensor | None,  # [L, 3, S, S] in [-1, 1], what the thief was given
    drawn: Tensor,  # [M, 3, S, S] in [-1, 1], what the thief made of it
    same: bool = False,  # whether what was posted are the true pictures, perturbed, in their order
) -> dict[str, Any]:
    """`identity` of what was made, and its naturalness (BRISQUE); kept_posted and ism_posted of what was posted.

    Where a posted picture is no longer taken for the person, the protection misleads the judge, and what it says of
    the thief proves nothing. Where there are no other true pictures, each posted one is compared with all but itself.
    """
    made = stored(drawn)
    numbers: dict[str, Any] = identity(judge, person, made)
    if posted is not None and numbers:
        shown = stored(posted)
        others = [np.delete(person, index, axis=0) for index in range(len(shown))] if same else [person]
        parts = [shown[index : index + 1] for index in range(len(shown))] if same else [shown]
        control = [identity(judge, true, part) for true, part in zip(others, parts, strict=True)]
        for name in ("kept", "ism"):
            known = [value for each in control if (value := each.get(name)) is not None]
            numbers[f"{name}_posted"] = round(float(np.mean(known)), 4) if known else None
    scores = [score for picture in made if (score := _naturalness(picture)) is not None]
    return numbers | ({"brisque": round(float(np.mean(scores)), 2)} if scores else {})


def _naturalness(picture: np.ndarray) -> float | None:
    try:
        return brisque(picture)[1]
    except ValueError:  # a picture without any texture
        return None
