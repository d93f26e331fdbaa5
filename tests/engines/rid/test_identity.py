"""The identity embedder's parts; what a trained one achieves is examined in tests/pocket/test_identity.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.rid.identity import SIDE, WIDTH, Embedder, Recogniser, cosine_softmax_loss, to_tensor


def test_embeddings_have_length_one_and_faces_a_score():
    torch.manual_seed(0)
    embeddings, faces = Embedder()(torch.rand(3, 3, SIDE, SIDE) * 2 - 1)
    assert embeddings.shape == (3, WIDTH)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert faces.shape == (3,)


def test_the_loss_wants_the_own_centre_and_a_margin():
    centres = torch.eye(4, WIDTH)
    near, labels = torch.eye(4, WIDTH), torch.arange(4)
    right, wrong = cosine_softmax_loss(near, centres, labels), cosine_softmax_loss(near, centres, labels.roll(1))
    assert right < 0.01
    assert wrong > 15
    assert cosine_softmax_loss(near, 7 * centres, labels) == pytest.approx(float(right))


def test_a_stored_recogniser_judges_pictures_of_any_size(tmp_path: Path):
    torch.manual_seed(1)
    net = Embedder()
    save_file({name: value.half() for name, value in net.state_dict().items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not examined"):
        Recogniser.load(tmp_path)
    (tmp_path / "examination.json").write_text('{"mean_threshold": 0.375}')
    judge = Recogniser.load(tmp_path)
    assert judge.threshold == 0.375
    pictures = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3)).astype(np.uint8)
    embeddings, faces = judge(pictures)
    assert embeddings.shape == (70, WIDTH)
    assert faces.dtype == bool
    np.testing.assert_allclose(judge(pictures[66:])[0], embeddings[66:], atol=1e-5)
    assert len(judge(pictures[:0])[0]) == 0


def test_levels_become_the_networks_range():
    made = to_tensor(np.array([0, 255], np.uint8)[:, None, None, None].repeat(SIDE, 1).repeat(SIDE, 2).repeat(3, 3))
    assert made.amin() == -1
    assert made.amax() == 1
