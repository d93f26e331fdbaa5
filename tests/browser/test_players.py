"""Clips side by side: one frame for all, told from the pixels themselves; by mouse and by keys; wide and narrow."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from io import BytesIO

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.steps import finished_job, overflow, share
from tests.quick_engine.shapes import BITS

Visit = Callable[..., Page]
PAIR = {"makes": ["clip"], "methods": ["method", "plain"], "size": 64, "frames": 12}

# The number that each clip shows right now, read from the bars that the quick engine draws into its frames.
NUMBERS = """(players, bits) => [...players.querySelectorAll("video")].map((video) => {
  const [width, height] = [video.videoWidth, video.videoHeight];
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 0);
  const bar = Math.floor(width / bits), row = pen.getImageData(0, height - 4, width, 1).data;
  let number = 0;
  for (let bit = 0; bit < bits; bit++) number |= (row[4 * (bit * bar + (bar >> 1))] > 127) << bit;
  return number;
})"""


def ready(page: Page) -> Locator:
    """The viewer, its clips loaded."""
    players = page.locator("atelier-players[data-ready]")
    expect(players).to_have_count(1)
    return players


def shows(players: Locator, *numbers: int) -> None:
    """Wait until the clips show these frames, in pixels."""
    wanted = list(numbers)
    players.page.wait_for_function(
        f"([players, bits, wanted]) => String(({NUMBERS})(players, bits)) === String(wanted)",
        arg=[players.element_handle(), BITS, wanted],
    )


@pytest.fixture
def pair(page: Page) -> Locator:
    """A baseline of 6 frames and a method of 12."""
    finished_job(page, **PAIR)
    return ready(page)


def test_every_frame_can_be_reached_exactly(pair: Locator):
    scrubber = pair.get_by_role("slider", name="Frame")
    expect(scrubber).to_have_attribute("max", "11")
    for frame in (0, 7, 3, 11, 4, 10):
        scrubber.fill(str(frame))
        shows(pair, min(frame, 5), frame)
        expect(scrubber).to_have_attribute("aria-valuetext", f"Frame {frame + 1} of 12")


def test_frames_are_stepped_by_buttons_and_keys(pair: Locator):
    pair.get_by_role("button", name="One frame ahead").click()
    shows(pair, 1, 1)
    pair.get_by_role("button", name="One frame back").click()
    shows(pair, 0, 0)
    wall = pair.get_by_role("group", name="Clips side by side")
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 11), ("ArrowLeft", 10), ("Home", 0)):
        wall.press(key)
        shows(pair, min(frame, 5), frame)
    pair.get_by_role("slider", name="Frame").press("ArrowRight")
    shows(pair, 1, 1)
    wall.press("Shift+ArrowRight")
    shows(pair, 5, 11)


def test_clips_play_together_and_stop_on_the_same_frame(pair: Locator):
    pair.get_by_role("button", name="Loop").click()
    pair.get_by_label("Speed").select_option("0.5")
    pair.get_by_role("button", name="Play").click()
    expect(pair.get_by_role("button", name="Pause")).to_be_visible()
    pair.page.wait_for_function("bar => Number(bar.value) >= 3", arg=scrubber_of(pair))
    pair.get_by_role("group", name="Clips side by side").press(" ")
    expect(pair.get_by_role("button", name="Play")).to_be_visible()
    stopped = int(pair.get_by_role("slider", name="Frame").input_value())
    assert 3 <= stopped < 11
    shows(pair, min(stopped, 5), stopped)


def test_without_a_loop_they_end_on_their_last_frames(pair: Locator):
    pair.get_by_role("button", name="Loop").click()
    expect(pair.get_by_role("button", name="Loop")).to_have_attribute("aria-pressed", "false")
    pair.get_by_label("Speed").select_option("2")
    pair.locator("video").first.click()
    pair.page.wait_for_function("bar => Number(bar.value) === 11", arg=scrubber_of(pair))
    shows(pair, 5, 11)
    expect(pair.get_by_role("button", name="Play")).to_be_visible()


def test_with_a_loop_they_begin_again(pair: Locator):
    pair.get_by_label("Speed").select_option("2")
    pair.get_by_role("slider", name="Frame").fill("9")
    pair.get_by_role("button", name="Play").click()
    pair.page.wait_for_function("bar => Number(bar.value) < 9", arg=scrubber_of(pair))
    expect(pair.get_by_role("button", name="Pause")).to_be_visible()


def test_a_shorter_clip_says_that_it_holds_its_last_frame(pair: Locator):
    plain, method = pair.locator("[data-part=length]").all()
    expect(plain).to_have_text("64 × 64, 6 frames at 8 fps; shorter than the others.")
    expect(method).to_have_text("64 × 64, 12 frames at 8 fps.")
    pair.get_by_role("slider", name="Frame").fill("6")
    expect(plain).to_have_text("64 × 64, 6 frames at 8 fps. Over: its last frame is held.")


def test_each_clip_has_its_name_and_numbers(pair: Locator):
    captions = pair.locator("figcaption")
    expect(captions.nth(0)).to_contain_text("plain (baseline)")
    expect(captions.nth(1)).to_contain_text("method")
    expect(captions.nth(1).locator("dt")).to_have_text("Mean grey")
    expect(captions.locator(".best")).to_have_count(1)


def test_tiny_clips_are_enlarged_with_whole_pixels(pair: Locator):
    for video in pair.locator("video").all():
        width = video.evaluate("video => video.getBoundingClientRect().width * devicePixelRatio")
        assert width >= 128
        assert width % 64 == 0
        assert video.evaluate("video => getComputedStyle(video).imageRendering") == "pixelated"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_they_stand_below_each_other(visit: Visit, scheme: str):
    page = visit(width=360, scheme=scheme)
    finished_job(page, **PAIR)
    players = ready(page)
    boxes = [video.bounding_box() for video in players.locator("video").all()]
    assert all(boxes)
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    assert overflow(page) <= 0
    players.get_by_role("button", name="One frame ahead").click()
    shows(players, 1, 1)


def test_a_link_plays_the_stored_bytes_and_offers_every_file(page: Page, visit: Visit):
    finished_job(page, **PAIR)
    friend = visit()
    friend.goto(share(page))
    players = ready(friend)
    players.get_by_role("slider", name="Frame").fill("4")
    shows(players, 4, 4)
    for video in players.locator("video").all():
        address = str(video.evaluate("video => video.currentSrc"))
        answer = friend.request.get(address)
        assert answer.headers["content-type"] == "video/mp4"
        assert hashlib.sha256(answer.body()).hexdigest() in address
    for name, begins in (("method-0.mp4", b""), ("method-0-sheet.png", b"\x89PNG"), ("method-0-frames.zip", b"PK")):
        with friend.expect_download() as saved:
            friend.get_by_role("link", name=f"Download {name}").click()
        data = saved.value.path().read_bytes()
        assert data.startswith(begins)
        assert hashlib.sha256(data).hexdigest() in str(saved.value.url)
    assert len(zipfile.ZipFile(BytesIO(data)).namelist()) == 12
    friend.get_by_text("Contact sheets").click()
    expect(friend.get_by_alt_text("Contact sheet: method")).to_be_visible()


def test_a_sweep_has_a_row_for_each_seed(page: Page):
    finished_job(page, **PAIR, seeds=2)
    players = ready(page)
    boxes = [video.bounding_box() for video in players.locator("video").all()]
    assert len(boxes) == 4
    assert [box["y"] for box in boxes if box] == [boxes[0]["y"]] * 2 + [boxes[2]["y"]] * 2
    assert boxes[0]["x"] == boxes[2]["x"]
    expect(players.locator("figcaption").nth(3)).to_contain_text("method, seed 1")
    players.get_by_role("slider", name="Frame").fill("9")
    shows(players, 5, 9, 5, 9)


def test_without_scripts_every_clip_has_controls(page: Page, visit: Visit):
    finished_job(page, **PAIR)
    plain = visit(java_script_enabled=False)
    plain.goto(share(page))
    expect(plain.locator("video[controls]")).to_have_count(2)


def scrubber_of(players: Locator) -> object:
    return players.get_by_role("slider", name="Frame").element_handle()
