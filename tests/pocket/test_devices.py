"""Examples follow their student to its device: the device that only knows shapes refuses whatever is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engines.shared.training import Task
from engines.text2image.train import Denoising
from engines.ultraimage import train as flux
from engines.ultravico import train as wan
from pocket import clipvae, identity, text2image, toypool, toyvae, ultraimage, ultravico

COUNT = 6


class Given:
    """The same batch for ever."""

    def __init__(self, *batch: Tensor) -> None:
        self.batch = batch

    def draw(self, _count: int, _generator: torch.Generator) -> tuple[Tensor, ...]:
        return self.batch


def _pictures() -> tuple[nn.Module, Task]:
    tokens = torch.ones(COUNT, text2image.LENGTH, dtype=torch.long)
    batch = torch.randn(COUNT, 4, 16, 16), tokens, torch.randn(COUNT, toypool.LAYOUT, 8, 8)
    return text2image.build_student((16, 24, 32), 0), Denoising(Given(*batch))


def _flat_pictures() -> tuple[nn.Module, Task]:
    tokens = torch.ones(COUNT, 8, dtype=torch.long)
    batch = torch.randn(COUNT, 4, 24, 24), tokens, torch.randn(COUNT, ultraimage.LAYOUT, 12, 12)
    return ultraimage.build_student(0), flux.Flow(Given(*batch))


def _clips() -> tuple[nn.Module, Task]:
    tokens = torch.ones(COUNT, ultravico.LENGTH, dtype=torch.long)
    batch = torch.randn(COUNT, 4, 3, 8, 8), tokens, tokens, torch.randn(COUNT, ultravico.LAYOUT, 3, 2, 2)
    student = ultravico.build_student(0)
    width = student.text.config.d_model
    # the library's text encoder looks at values of its mask, which this device does not have
    student.embed = lambda tokens, mask: (tokens * mask)[..., None].float().expand(-1, -1, width)
    return student, wan.Flow(Given(*batch))


def _reconstructing() -> tuple[nn.Module, Task]:
    return toyvae.build(), toyvae.Reconstructing([], torch.zeros(3, 3, 64, 64, dtype=torch.uint8))


def _polishing() -> tuple[nn.Module, Task]:
    vae = toyvae.build()
    return vae, toyvae.Polishing([], torch.zeros(3, 3, 64, 64, dtype=torch.uint8), first=copy.deepcopy(vae))


def _cropping() -> tuple[nn.Module, Task]:
    return clipvae.build(), clipvae.Reconstructing()


def _settling() -> tuple[nn.Module, Task]:
    vae = clipvae.build()
    return vae, clipvae.Settling(copy.deepcopy(vae))


def _recognising() -> tuple[nn.Module, Task]:
    people, others = torch.zeros(5, 2, 3, 64, 64, dtype=torch.uint8), torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    return identity.Student(5), identity.Recognition([], Path(), people, others)


@pytest.mark.parametrize(
    "made", [_pictures, _flat_pictures, _clips, _reconstructing, _polishing, _cropping, _settling, _recognising]
)
def test_losses_are_where_the_student_is(made: Callable[[], tuple[nn.Module, Task]]):
    student, task = made()
    losses = task(student.to("meta"), COUNT, torch.Generator().manual_seed(0))
    assert losses
    assert all(value.device.type == "meta" for value in losses.values())
