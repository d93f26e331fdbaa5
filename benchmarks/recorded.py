"""Networks as CUDA graphs: recorded once for every shape, then replayed as one launch each.

A step on a small network is hundreds of kernels of a few microseconds, so that a GPU waits for Python, and several
processes on one GPU wait for each other's pauses. A replay launches the same kernels on the same numbers. Only for
measurements: whoever records must own the networks, since a replay reads the memory that parameters lay in when it
was recorded. What cannot be recorded is done eagerly, and that is said. Fields are interpolated by PyTorch's own
function meanwhile, which is several times as fast on a GPU and sums gradients in no fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from engines.prolificdreamer import field
from engines.prolificdreamer.distillation import Distiller, Push
from engines.prolificdreamer.estimator import Estimator
from engines.prolificdreamer.streams import Streams
from engines.prolificdreamer.teacher import Teacher
from engines.prolificdreamer.viewpoints import Views
from engines.prolificdreamer.vsd import gradient_loss

WARM = 3  # runs before a recording, in which libraries choose and prepare their kernels
Places = tuple[int, ...]
Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


class Recorded:
    """A function of CUDA tensors that gives a tensor or a list of them."""

    def __init__(self, function: Callable[..., Any], gradients_of: list[torch.nn.Parameter] | None = None) -> None:
        """`gradients_of`: parameters whose gradients the function sets; they must have none before a call."""
        self.function, self.parameters = function, gradients_of or []
        self.tapes: dict[Shapes, Callable[..., Any]] = {}

    def __call__(self, *given: Tensor) -> Any:
        """As the function itself; what it gives is the caller's own."""
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in given)
        if key not in self.tapes:
            self.tapes[key] = self._record(given)
        return self.tapes[key](*given)

    def _record(self, given: tuple[Tensor, ...]) -> Callable[..., Any]:
        held = [tensor.detach().clone() for tensor in given]
        try:
            graph, made = self._captured(held)
        except RuntimeError as error:
            print(f"not recorded: {error}", flush=True)
            torch.cuda.synchronize()
            self._forget()
            return self.function
        gradients = [parameter.grad for parameter in self.parameters]
        self._forget()

        def replayed(*now: Tensor) -> Any:
            for old, new in zip(held, now, strict=True):
                old.copy_(new)
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            return [part.clone() for part in made] if isinstance(made, list) else made.clone()

        return replayed

    def _captured(self, held: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, Any]:
        aside = _aside()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._forget()
                self.function(*held)
        torch.cuda.current_stream().wait_stream(aside)
        self._forget()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):
            made = self.function(*held)
        return graph, made

    def _forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@cache
def _aside() -> torch.cuda.Stream:
    """One for all recordings: libraries keep working memory for every stream they meet."""
    return torch.cuda.Stream()


@contextmanager
def recorded_networks() -> Iterator[None]:
    """Inside, teachers, estimators and their training are recorded the first time and replayed afterwards."""
    # By where their parameters lie: a new teacher on a network that was met before needs no new recording.
    teachers: dict[Places, Recorded] = {}
    autoencoders: dict[Places, tuple[Recorded, Recorded]] = {}  # forward, and back
    epsilon, ask, descend = Teacher.epsilon, Estimator.__call__, Distiller.descend

    def taught(self: Teacher, x_t: Tensor, t: Tensor, texts: Any) -> list[Tensor]:
        known = self.__dict__.get("_recorded")
        if known is None:
            new = Recorded(lambda x, t, *texts: epsilon(self, x, t, list(texts)))
            known = self.__dict__["_recorded"] = teachers.setdefault(places_of(self.unet), new)
        made: list[Tensor] = known(x_t, t, *texts)
        return made

    def asked(
        self: Estimator, x_t: Tensor, t: Tensor, text: Tensor, c2w: Tensor, drop: Tensor | None = None
    ) -> Tensor:
        if torch.is_grad_enabled():  # recorded as part of `descended`
            return ask(self, x_t, t, text, c2w, drop)
        known = self.__dict__.setdefault("_recorded", Recorded(lambda *given: ask(self, *given)))
        made: Tensor = known(x_t, t, text, c2w, *(() if drop is None else (drop,)))
        return made

    def descended(self: Distiller, *given: Tensor) -> Tensor:
        assert self.estimator is not None
        known = self.__dict__.setdefault(
            "_recorded", Recorded(lambda *given: descend(self, *given), self.estimator.parameters)
        )
        made: Tensor = known(*given)
        return made

    def looked(
        self: Distiller, image: Tensor, views: Views | None, step: int, streams: Streams
    ) -> tuple[Tensor, Tensor, Push]:
        """As `Distiller.look`, but the way back begins with going there again: each is a recording of its own."""
        teacher = self.teacher
        known = teacher.__dict__.get("_recorded_encoder")
        if known is None:
            known = teacher.__dict__["_recorded_encoder"] = autoencoders.setdefault(
                places_of(teacher.vae), encoder_of(teacher)
            )
        there, back = known
        shape = (len(image), teacher.channels, teacher.cells, teacher.cells)
        noise = torch.randn(shape, generator=streams.at("posterior", step)).to(image.device)
        latents = there(image, noise)
        push = self.push(latents, views, step, streams)
        return back(image, noise, push.gradient), latents, push

    with (
        patch.object(Teacher, "epsilon", taught),
        patch.object(Estimator, "__call__", asked),
        patch.object(Distiller, "descend", descended),
        patch.object(Distiller, "look", looked),
        patch.object(field, "encode_quickly", partial(field.encode_quickly, repeatable=False)),
    ):
        yield


def places_of(network: torch.nn.Module) -> Places:
    """Where the parameters of a network lie in memory."""
    return tuple(parameter.data_ptr() for parameter in network.parameters())


def encoder_of(teacher: Teacher) -> tuple[Recorded, Recorded]:
    """Pictures to latents, and the gradient of pictures that a wanted change of their latents means."""

    def back(image: Tensor, noise: Tensor, wanted: Tensor) -> Tensor:
        leaf = image.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(gradient_loss(teacher.encode(leaf, noise), wanted), leaf)
        return gradient

    return Recorded(torch.no_grad()(teacher.encode)), Recorded(back)
