"""The published networks at full size, without memory: the numbers of parameters that the specification counts."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from engines.prolificdreamer.estimator import CameraEmbedding, lora_estimator
from engines.prolificdreamer.field import Field, FieldConfig
from tests.engines.prolificdreamer import tiny


@pytest.fixture(scope="module")
def published() -> UNet2DConditionModel:
    """Stable Diffusion 2.1 base."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            block_out_channels=(320, 640, 1280, 1280),
            use_linear_projection=True,
        )


def count(parameters: object) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_the_teacher_has_865_910_724_parameters(published: UNet2DConditionModel):
    assert count(published.parameters()) == 865_910_724


def test_adapters_have_829_952(published: UNet2DConditionModel):
    before = [name for name, _ in published.named_parameters()]
    with lora_estimator(published, "v_prediction", 4, tiny.generator(0)) as phi:
        adapters = [p for name, p in published.named_parameters() if "lora" in name]
        assert len(adapters) == 2 * 128
        assert count(adapters) == 829_952
        assert count(phi.parameters) == 829_952 + 1_661_440
    assert [name for name, _ in published.named_parameters()] == before
    assert published.class_embedding is None


def test_the_camera_embedding_has_1_661_440():
    assert count(CameraEmbedding(1280, tiny.generator(0)).parameters()) == 1_661_440


def test_the_published_field():
    config = FieldConfig()
    field = Field(FieldConfig(levels=16, log2_table=19), tiny.generator(0))
    assert field.table.shape == (6_119_864, 2)
    assert field.decoder.weight.shape == (4, 32)
    assert (config.base, config.finest, config.interpolation) == (16, 2048, "smoothstep")
    assert field.behind.first.weight.shape == (16, 27)
