"""Loading and wiring the real components: the teacher with its texts, and the network that phi stands on.

Half precision on a GPU where the checkpoint says so, float32 elsewhere. What is installed on a shared network is
taken off again. The files themselves are found and read by `engines.shared.pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engines.prolificdreamer.estimator import Estimator, copy_estimator, lora_estimator, small_estimator
from engines.prolificdreamer.presets import MODELS
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.teacher import Teacher, frozen, read_prompts
from engines.shared.pipeline import Weights
from engines.shared.sources import Source
from studio.contract import Context
from studio.errors import InvalidInput


def weights_of(preset: str, ctx: Context) -> Weights[Source]:
    """The teacher's folder. Raises WeightsMissing."""
    return Weights.find(preset, MODELS[preset].teacher, ctx.weights)


def precision(source: Source, device: str) -> str:
    """Half precision needs a GPU."""
    return source.dtype if device.startswith("cuda") else "float32"


@contextmanager
def lend_teacher(ctx: Context, weights: Weights[Source], wording: Wording) -> Iterator[Teacher]:
    """The teacher, frozen; its text encoder is needed once and may leave the device afterwards."""
    with weights.lend(ctx, "text_encoder", "tokenizer", dtype="float32") as parts:
        texts = read_prompts(parts["text_encoder"], parts["tokenizer"], wording.all, ctx.device)
    dtype = precision(weights.source, ctx.device)
    with weights.lend(ctx, "unet", "vae", dtype=dtype) as parts, frozen(parts["unet"], parts["vae"]):
        unet = parts["unet"].to(memory_format=torch.channels_last)  # a processor convolves a quarter faster so
        try:
            yield Teacher(unet, parts["vae"], weights.config("scheduler"), texts)
        finally:  # others borrow the same network, and sums in another order round otherwise
            unet.to(memory_format=torch.contiguous_format)


def second_weights(preset: str, ctx: Context) -> Weights[Source]:
    """The folder of the model that "lora_separate" stands on. Raises WeightsMissing, or InvalidInput for none."""
    source = MODELS[preset].estimator
    if source is None:
        raise InvalidInput(
            f"{MODELS[preset].title} has no second model for the estimator.",
            "Choose adapters on the teacher, a copy or the small network.",
            field="estimator",
        )
    return Weights.find(f"{preset}-estimator", source, ctx.weights)


@contextmanager
def lend_estimator(
    ctx: Context,
    kind: str,
    second: Weights[Source] | None,  # for "lora_separate"
    teacher: Teacher,
    rank: int,
    generator: torch.Generator,
) -> Iterator[Estimator]:
    """phi: copy, lora, lora_separate or small."""
    if kind == "copy":
        with copy_estimator(teacher.unet, teacher.prediction_type, generator) as estimator:
            yield estimator
    elif kind == "lora":
        with lora_estimator(teacher.unet, teacher.prediction_type, rank, generator) as estimator:
            yield estimator
    elif kind == "small":
        with small_estimator(teacher.channels, teacher.cells, ctx.device, generator) as estimator:
            yield estimator
    else:
        assert second is not None
        dtype = precision(second.source, ctx.device)
        with (
            second.lend(ctx, "unet", dtype=dtype) as parts,
            frozen(parts["unet"]),
            lora_estimator(
                parts["unet"], second.config("scheduler").get("prediction_type", "epsilon"), rank, generator
            ) as estimator,
        ):
            yield estimator
