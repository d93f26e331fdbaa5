"""The row attention pattern: periodic where frequencies are harmonics, and read off queries and keys correctly."""

from __future__ import annotations

import pytest
import torch

from engines.ultravico.pattern import amplitudes, harmonic_share, row_attention_pattern
from engines.ultravico.rope import rope_frequencies


def test_harmonics_add_up_after_every_period():
    freqs = rope_frequencies(16, 256.0)
    amplitude = torch.tensor([1.0, 2, 3, 9, 0, 0, 0, 0], dtype=torch.float64)
    period = 2 * torch.pi / freqs[3]
    distance = torch.stack([0 * period, period / 2, period, 2 * period])
    pattern = row_attention_pattern(amplitude, freqs, torch.zeros(8), 0.5, distance)
    torch.testing.assert_close(pattern[2:], pattern[0].expand(2))
    assert pattern[1] < pattern[0]
    dominant, share = harmonic_share(freqs, amplitude, 1e-6)
    assert (dominant, share) == (3, 1.0)


def test_slower_frequencies_are_no_harmonics():
    _, share = harmonic_share(rope_frequencies(16, 256.0), torch.ones(8) + torch.eye(8)[3], 1e-6)
    assert share == pytest.approx(5 / 9)


def test_amplitudes_reproduce_the_logits_of_constant_tokens():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 16, generator=generator, dtype=torch.float64)
    freqs = rope_frequencies(16, 256.0)
    amplitude, phase = amplitudes(q[None], k[None])
    distance = torch.tensor([0.0, 1, 7, 30], dtype=torch.float64)

    def turned(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        spin = torch.polar(torch.ones(8, dtype=torch.float64), at * freqs)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * spin).flatten()

    logits = torch.stack([turned(q, at + 3) @ turned(k, torch.tensor(3.0)) for at in distance])
    torch.testing.assert_close(row_attention_pattern(amplitude, freqs, phase, 0.0, distance), logits)
