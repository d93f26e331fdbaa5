"""Low-pass guidance, masks, windows, the schedule, and the two guides of the sampler."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from engines.ultraimage.guidance import (
    guidance_weight,
    guided_velocity,
    haar_lowpass,
    rect_cosine_mask,
    view_window,
)
from engines.ultraimage.guides import ResolutionGuide, ViewGuide
from engines.ultraimage.sampling import scheduler_for
from engines.ultraimage.schedule import shifted_sigmas


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(height=st.integers(1, 13), width=st.integers(1, 13), level=st.integers(1, 3))
def test_lowpass_is_a_projection_at_any_size(height: int, width: int, level: int):
    x = noise(1, 2, height, width)
    low = haar_lowpass(x, level)
    assert low.shape == x.shape
    torch.testing.assert_close(haar_lowpass(low, level), low)


def test_lowpass_is_the_block_mean():
    x = noise(1, 1, 8, 8)
    assert torch.allclose(haar_lowpass(x, 2)[0, 0, :4, :4], x[0, 0, :4, :4].mean())


def test_guidance_fades_from_one_to_nothing():
    assert guidance_weight(0, 30) == 1.0
    assert guidance_weight(30, 30) == pytest.approx(0.0, abs=1e-15)
    assert guidance_weight(30, 30, "cosine") == pytest.approx(0.77, abs=5e-3)  # as published, without the pi
    for schedule in ("linear", "exp", "power", "logistic"):
        assert guidance_weight(0, 30, schedule) > 0.99 > 0.01 > guidance_weight(30, 30, schedule)
    with pytest.raises(ValueError, match="spiral"):
        guidance_weight(0, 1, "spiral")


def test_a_velocity_that_leads_to_the_guide_is_left_alone():
    z, guide = noise(1, 4, 6, 6), noise(1, 4, 6, 6, seed=1)
    towards = -(guide - z) / (0.5 + 1e-6)
    torch.testing.assert_close(guided_velocity(towards, z, guide, 500.0, 3, 10), towards)


def test_mask_is_one_inside_and_hard_at_ratio_one():
    mask = rect_cosine_mask(9, 7, 0.6)
    assert float(mask[4, 3]) == 1.0
    assert float(mask[0].max()) == 0.0
    assert torch.equal(rect_cosine_mask(5, 4, 1.0), torch.ones(5, 4))


def test_windows_stay_on_oblong_canvases():
    assert view_window(40, 100, 20, 20, 0.5, 0.5) == (10, 40)
    assert view_window(40, 100, 20, 20, 0.0, 1.0) == (0, 80)


@pytest.mark.parametrize(("steps", "shift"), [(30, 6.0), (7, 1.0), (20, 2.0)])
def test_schedule_is_the_schedulers_own(steps: int, shift: float):
    scheduler = scheduler_for(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config, steps, shift, 2304)
    sigmas, timesteps = shifted_sigmas(steps, shift)
    torch.testing.assert_close(scheduler.sigmas, sigmas)
    torch.testing.assert_close(scheduler.timesteps, timesteps)


def test_assigning_the_shift_of_a_config_has_no_effect():
    """The published script does this; why ours makes a new scheduler."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.config.shift = 6.0
    scheduler.set_timesteps(10)
    assert scheduler.shift == 3.0


@pytest.mark.parametrize("steps", [4, 5])
def test_patch_shift_ends_at_the_right_size(steps: int):
    guide = ResolutionGuide(noise(1, 4, 6, 8), steps)
    latents, seen = noise(1, 4, 6, 8), []
    for step in range(steps):
        latents = guide.before(latents, step, 0.5)
        seen.append(tuple(latents.shape[-2:]))
        assert guide.steer(latents, latents, step, 0.5).shape == latents.shape
    assert seen == [(8, 10), (6, 8)] * (steps // 2) + [(8, 10)] * (steps % 2)
    assert guide.after(latents).shape == (1, 4, 6, 8)


def test_the_view_is_held_for_its_steps_and_only_in_its_window():
    view, canvas = torch.ones(1, 4, 4, 4), torch.zeros(1, 4, 8, 10)
    guide = ViewGuide(view, torch.zeros_like(view), num_steps=10, held=3, center=(0.5, 0.5))
    pasted = guide.before(canvas, 0, 0.0)
    assert torch.equal(pasted[..., 2:6, 3:7], view)
    assert float(pasted.sum()) == float(view.sum())
    assert float(canvas.sum()) == 0  # the input is not written to
    assert guide.before(canvas, 3, 0.0) is canvas
    assert torch.equal(guide.before(canvas, 0, 1.0), canvas)  # at full noise only the noise is pasted
    masked = ViewGuide(view, torch.zeros_like(view), 10, 3, mode="masked", inner_ratio=0.2).before(canvas, 0, 0.0)
    assert 0 < float(masked.sum()) < float(view.sum())


def test_the_view_can_steer_instead():
    view, canvas = torch.ones(1, 4, 4, 4), noise(1, 4, 8, 8)
    guide = ViewGuide(view, torch.zeros_like(view), 10, 3, mode="velocity")
    velocity = noise(1, 4, 8, 8, seed=2)
    steered = guide.steer(velocity, canvas, 0, 0.9)
    changed = (steered != velocity).nonzero()
    assert guide.before(canvas, 0, 0.9) is canvas
    assert changed[:, 2].min() == 2
    assert changed[:, 2].max() == 5
