"""Token geometry: the published numbers, and refusals that say what to do."""

from __future__ import annotations

import pytest

from engines.ultravico.geometry import frames_for, video_token_geometry


@pytest.mark.parametrize(
    ("model", "height", "width", "frames", "tokens", "window"),
    [
        ("wan", 480, 832, 249, 98_280, 16_380),
        ("hunyuan", 544, 960, 261, 134_640, 33_660),
        ("cogvideox", 480, 720, 97, 33_750, 8_775),
    ],
)
def test_published_sizes(model: str, height: int, width: int, frames: int, tokens: int, window: float):
    found = video_token_geometry(model, height, width, frames)
    assert (found["video_tokens"], found["window_tokens"]) == (tokens, window)


def test_refusals_name_a_way_out():
    with pytest.raises(ValueError, match="closest is 480"):
        video_token_geometry("wan", 484, 832, 81)
    with pytest.raises(ValueError, match="use 81 or 85"):
        video_token_geometry("wan", 480, 832, 82)
    with pytest.raises(ValueError, match="no video model"):
        video_token_geometry("sora", 480, 832, 81)


def test_any_ratio_gives_a_whole_number_of_latent_frames():
    assert [frames_for(21, ratio) for ratio in (1, 1.5, 2, 3, 4)] == [81, 125, 165, 249, 333]
