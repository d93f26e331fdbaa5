"""Every way to compute decayed attention against the dense form, and which of them is trusted."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from engines.ultravico import attention
from engines.ultravico.attention import agrees, best_way
from engines.ultravico.decay import Decay, compiled_flex, dense_attention, score_mod
from engines.ultravico.stripes import Run, runs_of, striped_attention
from tests.engines.ultravico.interpreted import assert_agrees

DECAYS = {
    "plain": Decay(6, 5, 0.9),
    "bands": Decay(6, 5, 0.9, 0.6, 8, 1),
    "text at both ends": Decay(7, 3, 0.85, 0.5, 4.5, 0.7, text_tokens_start=3, text_tokens_end=5, padded_keys_end=2),
    "first frame": Decay(6, 5, 0.9, first_frame_mask=True),
    "first frame and text": Decay(6, 3, 0.3, first_frame_mask=True, text_tokens_end=4, padded_keys_end=1),
    "narrow window": Decay(6, 1, 0.5, first_frame_mask=True),
    "linear": Decay(6, 5, 0.9, profile="linear", alpha1=0.5, alpha2=0.95),
    "parabolic with text": Decay(6, 5, 0.9, profile="parabolic", alpha1=0.5, alpha2=0.95, text_tokens_start=4),
    "nothing left beyond": Decay(6, 5, 0.0),
    "stronger beyond": Decay(6, 5, 1.3),
}


def qkv(length: int, dim: int = 16, heads: int = 3, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(2, heads, length, dim, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_stripes_give_what_the_dense_form_gives(decay: Decay, smooth: bool):
    decay, tensors = replace(decay, smooth_k=smooth), qkv(97)
    rows = slice(0, 97 - decay.padded_keys_end)  # rows of padding are undefined
    wanted = dense_attention(*tensors, decay)[..., rows, :]
    for block in (1, 8, 64, 200):
        found = striped_attention(*tensors, decay, rows=block)[..., rows, :]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_stripes_of_logits_too_large_for_a_plain_exponential():
    q, k, v = qkv(97)
    tensors = [20 * q, k, v]  # logits of several hundreds
    for name in ("bands", "first frame", "stronger beyond"):
        wanted = dense_attention(*tensors, DECAYS[name])
        torch.testing.assert_close(striped_attention(*tensors, DECAYS[name], rows=8), wanted, atol=1e-4, rtol=0)


def test_stripes_of_half_precision_and_of_few_heads_at_a_time(monkeypatch: pytest.MonkeyPatch):
    wanted = dense_attention(*qkv(97), DECAYS["bands"])
    half = striped_attention(*qkv(97, dtype=torch.bfloat16), DECAYS["bands"])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, atol=6e-2, rtol=2e-2)
    monkeypatch.setattr("engines.ultravico.stripes.BUFFER", 4 * 8 * 97 * 4)  # 4 of the 6 heads
    torch.testing.assert_close(striped_attention(*qkv(97), DECAYS["bands"], rows=8), wanted, atol=1e-5, rtol=0)


def test_stripes_cover_every_column_once():
    """Most of a block lies in stripes of one factor; the edges between them are as narrow as the block is high."""
    from engines.ultravico.stripes import Lambdas

    decay, length = Decay(16, 6, 0.9, 0.6, 9, 1, text_tokens_start=5, text_tokens_end=7), 16 * 24 + 12
    lambdas = Lambdas(decay, length, 8)
    assert [row for first, last in lambdas.blocks(8) for row in range(first, last)] == list(range(length))
    for first, last in lambdas.blocks(8):
        stripes = lambdas.stripes(first, last, length)
        assert [stripes[0].start, stripes[-1].end] == [0, length]
        assert all(a.end == b.start for a, b in zip(stripes, stripes[1:], strict=False))
        edges = [stripe.end - stripe.start for stripe in stripes if stripe.factor is None]
        assert not edges or max(edges) <= 2 * 8


def test_runs():
    factors = torch.tensor([1.0, 1.0, 0.9, 0.9, 0.9, 0.6], dtype=torch.float64)
    assert runs_of(factors) == [Run(0, 1, 1.0), Run(2, 4, 0.9), Run(5, 5, 0.6)]


def test_a_cpu_takes_stripes_and_a_wrong_way_is_not_trusted(monkeypatch: pytest.MonkeyPatch):
    way = best_way("cpu", torch.float32, 64, 128)
    assert way.name == "stripes"
    assert agrees(way.path, "cpu", torch.float32, 64)
    assert not agrees(lambda q, k, v, decay: 1.01 * dense_attention(q, k, v, decay), "cpu", torch.float32, 64)
    broken = {**attention.WAYS, "stripes": lambda q, k, v, decay: v}
    monkeypatch.setattr(attention, "WAYS", broken)
    attention.passes.cache_clear()
    assert best_way("cpu", torch.float32, 64, 128).name == "chunked"
    attention.passes.cache_clear()


def test_flex_attention_compiled_for_this_processor():
    """One small shape: compiling takes seconds, so the other shapes go through the uncompiled form in test_decay."""
    from engines.ultravico.decay import flex_attention

    q, k, v = qkv(96, heads=1)
    torch._dynamo.reset()
    found = flex_attention(q, k, v, DECAYS["bands"])
    torch.testing.assert_close(found, dense_attention(q, k, v, DECAYS["bands"]), atol=1e-5, rtol=0)


def test_flex_attention_is_compiled_once_for_all_decays_and_once_more_for_all_lengths():
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Any:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    run = compiled_flex(backend)
    for length in range(64, 160, 8):
        for alpha in (0.9, 0.5):
            q, k, v = qkv(length, heads=1)
            decay = Decay(
                4, length / 8, alpha, alpha / 2, length / 6, 1.0, text_tokens_end=length // 16, smooth_k=False
            )
            found = run(q, k, v, score_mod=score_mod(decay, length, q.device))
            torch.testing.assert_close(found, dense_attention(q, k, v, decay), atol=1e-5, rtol=0)
    assert len(compiled) <= 2


@pytest.mark.parametrize(
    "error", [subprocess.CalledProcessError(1, "cc"), OSError("no compiler"), ValueError("pointer")]
)
def test_a_way_that_cannot_be_built_is_passed_over(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def unbuilt(*_given: Any) -> Any:
        raise error

    monkeypatch.setattr(attention, "WAYS", {**attention.WAYS, "stripes": unbuilt})
    attention.passes.cache_clear()
    assert best_way("cpu", torch.float32, 64, 128).name == "chunked"
    attention.passes.cache_clear()


def test_no_room_for_the_test_says_nothing_about_a_way(monkeypatch: pytest.MonkeyPatch):
    def full(*_given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention, "WAYS", {**attention.WAYS, "stripes": full})
    attention.passes.cache_clear()
    with pytest.raises(torch.OutOfMemoryError):
        best_way("cpu", torch.float32, 64, 128)
    monkeypatch.undo()
    assert best_way("cpu", torch.float32, 64, 128).name == "stripes"


INTERPRETED = """
import torch
torch.set_num_threads(1)
from engines.ultravico.decay import dense_attention
from engines.ultravico.kernel import triton_attention
from tests.engines.ultravico.test_attention import DECAYS, qkv
for name, decay in DECAYS.items():
    q, k, v = (x[:1, :2] for x in qkv(97, dim=32))
    rows = slice(0, 97 - decay.padded_keys_end)
    half = [(torch.float16, 2e-2)] if name == "text at both ends" else []
    for dtype, tolerance in ((torch.float32, 1e-5), *half):
        found = triton_attention(*(x.to(dtype) for x in (q, k, v)), decay)
        assert found.dtype == dtype
        wanted = dense_attention(q, k, v, decay)
        torch.testing.assert_close(found.float()[..., rows, :], wanted[..., rows, :], atol=tolerance, rtol=tolerance)
print("all agree")
"""


def test_the_triton_kernel_in_its_interpreter():
    assert_agrees(INTERPRETED)


def test_paths_that_ask_for_rows_take_them():
    tensors = qkv(40)
    wanted = dense_attention(*tensors, DECAYS["plain"])
    torch.testing.assert_close(
        partial(striped_attention, rows=7)(*tensors, DECAYS["plain"]), wanted, atol=1e-5, rtol=0
    )
