"""The defender: its published keys, what is dead in it, and a budget that holds for any input."""

from __future__ import annotations

import pytest
import torch

from engines.rid.defender import (
    Defender,
    Shape,
    bounded_perturbation,
    fold,
    rid_defender,
    shape_of,
    sincos_pos_embed_2d,
)
from engines.rid.portrait import apply_perturbation

SMALL = Shape(input_size=32, patch_size=8, hidden_size=24, depth=2, num_heads=3, num_classes=3)
EPS = 12 / 255


def trained(seed: int = 0) -> Defender:
    """A network in which every weight says something."""
    torch.manual_seed(seed)
    defender = Defender(SMALL, EPS).eval().double()
    with torch.no_grad():
        for weight in defender.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))
    return defender


def pictures() -> torch.Tensor:
    return 2 * torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1


def test_the_published_network_has_the_published_keys():
    with torch.device("meta"):
        whole, folded = Defender(Shape(), EPS), Defender(Shape(), EPS, folded=True)
    state = whole.state_dict()
    assert len(state) == 152
    assert state["blocks.13.adaLN_modulation.1.weight"].shape == (6912, 1152)
    assert state["y_embedder.embedding_table.weight"].shape == (1001, 1152)
    assert sum(weight.numel() for weight in state.values()) == pytest.approx(343.06e6, rel=1e-4)
    assert fold(state).keys() == folded.state_dict().keys()
    assert sum(weight.numel() for weight in folded.parameters()) < 0.67 * 343.06e6
    assert shape_of(state, 8) == Shape()


@torch.no_grad()
def test_the_folded_network_is_the_same_network():
    whole = trained()
    folded = Defender(SMALL, EPS, folded=True).eval().double()
    folded.load_state_dict(fold(whole.state_dict()))
    assert torch.equal(folded(pictures()), whole(pictures()))
    assert whole(pictures()).abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["t_embedder", "y_embedder", "adaLN_modulation.1.weight"])
def test_dead_weights_change_nothing(name: str):
    defender = trained()
    before = defender(pictures())
    for key, weight in defender.named_parameters():
        if name in key:
            weight.normal_()
    assert torch.equal(defender(pictures()), before)


@torch.no_grad()
def test_modulation_biases_do_change_something():
    defender = trained()
    before = defender(pictures())
    defender.blocks[0].adaLN_modulation[1].bias.normal_()
    assert not torch.equal(defender(pictures()), before)


@torch.no_grad()
def test_a_fresh_network_leaves_the_picture_alone():
    assert torch.equal(Defender(SMALL, EPS)(pictures().float()), torch.zeros(3, 3, 32, 32))


@torch.no_grad()
@pytest.mark.parametrize("level", [-1.0, 1.0, 0.2])
def test_the_budget_holds(level: float):
    image = torch.full((1, 3, 32, 32), level, dtype=torch.float64)
    delta = trained()(image)
    assert delta.abs().max() <= EPS
    clean, protected = (apply_perturbation(image, change)[1].int() for change in (torch.zeros_like(image), delta))
    assert (clean - protected).abs().max() <= 6, "12/255 in [-1, 1] are six grey levels"
    assert bounded_perturbation(torch.tensor([-1e9, 1e9]), EPS).abs().max() <= EPS


@torch.no_grad()
def test_a_batch_gives_what_single_pictures_give():
    defender = trained()
    batch = defender(pictures())
    single = torch.cat([defender(picture[None]) for picture in pictures()])
    torch.testing.assert_close(batch, single, atol=1e-12, rtol=0)


@torch.no_grad()
def test_half_precision_agrees_within_a_grey_level():
    defender, image = trained().float(), pictures().float()
    plain = apply_perturbation(image, defender(image))[1].int()
    low = apply_perturbation(image, defender.bfloat16()(image.bfloat16()).float())[1].int()
    assert (plain - low).abs().max() <= 1


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="32x32"):
        trained()(torch.zeros(1, 3, 64, 64, dtype=torch.float64))


def test_columns_come_first_in_the_position_table():
    table = sincos_pos_embed_2d(16, 4)
    assert torch.equal(table[0, :8], table[4, :8]), "the next row, the same column"
    assert torch.equal(table[0, 8:], table[1, 8:]), "the next column, the same row"
    assert not torch.equal(table[0, :8], table[1, :8])


@torch.no_grad()
def test_the_contract_needs_no_count_of_labels():
    whole = trained()
    sizes = {"input_size": 32, "patch_size": 8, "hidden_size": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0}
    assert torch.equal(rid_defender(pictures(), whole.state_dict(), eps=EPS, **sizes), whole(pictures()))
    assert torch.equal(rid_defender(pictures(), fold(whole.state_dict()), eps=EPS, **sizes), whole(pictures()))


def test_a_table_of_positions_needs_four_channels_at_least():
    with pytest.raises(ValueError, match="cannot be shared"):
        sincos_pos_embed_2d(6, 2)
