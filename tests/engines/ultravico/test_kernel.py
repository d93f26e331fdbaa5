"""The plan of the Triton kernel against lambda itself, and its loops, interpreted, against the dense form."""

from __future__ import annotations

import pytest
import torch

from engines.ultravico.decay import Decay
from engines.ultravico.kernel import ALONE, EDGE, SHRUNK, UNDECAYED, Plan, planned
from tests.engines.ultravico.interpreted import assert_agrees
from tests.engines.ultravico.test_attention import DECAYS

LENGTH = 203  # no multiple of any tile
CASES = {
    **DECAYS,
    "wide bands": Decay(10, 6, 0.9, 0.6, 8, 2.5),
    "bands narrower than a tile": Decay(10, 3, 0.9, 0.6, 2, 0.2),
    "bands that meet the window": Decay(10, 6, 0.9, 0.6, 4, 1.5),
    "text, bands and a first frame": Decay(9, 6, 0.8, 0.5, 9, 1.5, 17, 33, 21, first_frame_mask=True),
    "much text": Decay(9, 2, 0.8, text_tokens_start=70, text_tokens_end=70, padded_keys_end=40),
    "a window beyond the end": Decay(9, 90, 0.8),
    "stronger beyond, weaker in bands": Decay(10, 4, 1.5, 0.5, 7, 2),
    "turned round beyond": Decay(10, 4, -0.5, 0.5, 7, 2),
    "nothing": UNDECAYED,
}


@pytest.mark.parametrize("decay", CASES.values(), ids=CASES)
@pytest.mark.parametrize("tile", [(8, 8), (16, 32), (32, 16), (64, 64)])
def test_a_plan_is_lambda(decay: Decay, tile: tuple[int, int]):
    rows, columns = tile
    plan = planned(decay, LENGTH, rows, columns, "cpu")
    index = torch.arange(LENGTH)
    wanted = decay.factor(index[:, None], index, LENGTH).masked_fill(decay.hidden(index[:, None], index, LENGTH), -7)
    assert torch.equal(written_out(plan, columns), wanted.float())
    assert [row for block in plan.blocks for row in range(block[0], block[1])] == list(range(LENGTH))


def written_out(plan: Plan, columns: int) -> torch.Tensor:  # [N, N], -7 where nothing is looked at
    """lambda as the kernel's loops would apply it; every column at most once, and all but edges in whole tiles."""
    table = torch.full((LENGTH, LENGTH), -7.0)
    for first, last, *starts in plan.blocks.tolist():
        for loop, (begin, stop) in enumerate(zip(starts, starts[1:], strict=False)):
            for start, end, border, near, far in plan.parts[begin:stop].tolist():
                assert start < end
                assert (table[first:last, start:end] == -7).all()
                apart = (torch.arange(first, last)[:, None] - torch.arange(start, end)).abs()
                if loop in (ALONE, SHRUNK):
                    assert (end - start) % columns == 0
                    table[first:last, start:end] = 1.0 if loop == ALONE else plan.lambdas[near]
                elif loop == EDGE:
                    table[first:last, start:end] = torch.where(apart <= border, plan.lambdas[near], plan.lambdas[far])
                else:
                    table[first:last, start:end] = plan.lambdas[apart.clamp(max=far)]
    return table


def test_nearly_all_columns_are_in_the_loops_without_tests():
    """63 frames of 1,560 tokens, three times what Wan was trained for, and the same with bands."""
    for decay, most in (
        (Decay(1560, 21, 0.9, first_frame_mask=True), 0.006),
        (Decay(1560, 21, 0.9, 0.6, 30, 2), 0.02),
    ):
        plan = planned(decay, 63 * 1560, 128, 128, "cpu")
        width = (plan.parts[:, 1] - plan.parts[:, 0]).tolist()
        edges = sum(sum(width[begin:end]) for *_, begin, end, _ in plan.blocks.tolist())
        assert edges < most * sum(width)
        assert not plan.pairs


INTERPRETED = """
import torch
torch.set_num_threads(1)
from engines.ultravico.decay import dense_attention, smoothed
from engines.ultravico.kernel import Tile, tiled_attention
from tests.engines.ultravico.test_attention import qkv
from tests.engines.ultravico.test_kernel import CASES, LENGTH
q, k, v = (x[:1, :1] for x in qkv(LENGTH))
for number, (name, decay) in enumerate(CASES.items()):
    rows = slice(0, LENGTH - decay.padded_keys_end)
    tile = (Tile(32, 32), Tile(16, 64), Tile(64, 16, bulk=False))[number % 3]
    found = tiled_attention(q, smoothed(k, decay), v, decay, tile)
    wanted = dense_attention(q, k, v, decay)
    torch.testing.assert_close(found[..., rows, :], wanted[..., rows, :], atol=2e-5, rtol=1e-5, msg=name)
plain = tiled_attention(q, k, v, None, Tile(32, 16))
torch.testing.assert_close(plain, torch.nn.functional.scaled_dot_product_attention(q, k, v), atol=2e-5, rtol=1e-5)
large = tiled_attention(20 * q, smoothed(k, CASES["wide bands"]), v, CASES["wide bands"], Tile(32, 16))
torch.testing.assert_close(large, dense_attention(20 * q, k, v, CASES["wide bands"]), atol=1e-3, rtol=1e-3)
print("all agree")
"""


def test_every_loop_in_the_interpreter():
    assert_agrees(INTERPRETED)
