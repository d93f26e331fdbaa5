"""Whole runs on tiny weights: every file in its own way, resumed to the same bytes, budgets kept."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from engines.rid import checkpoints
from engines.rid import run as engine
from engines.rid.album import opened
from engines.rid.presets import MODELS
from engines.rid.run import Ready, free_names, grouped, run
from studio.errors import Cancelled, InvalidInput, WeightsMissing
from tests.engines.fake_context import Crash, FakeContext
from tests.engines.rid.test_album import archive, header_of
from tests.engines.rid.tiny import context_with, encoded, loud_defender, picture

pytestmark = pytest.mark.usefixtures("pocket_weights")
FILES = {
    "a.png": encoded(picture(1)),
    "b.jpg": encoded(picture(2, 50, 24), "JPEG"),
    "c.png": encoded(picture(3, 16, 16)),
}


def image(ctx: FakeContext, name: str) -> Image.Image:
    return Image.open(io.BytesIO(ctx.files[name]))


def pixels(ctx: FakeContext, name: str) -> np.ndarray:
    return np.asarray(image(ctx, name).convert("RGB")).astype(int)


def report(ctx: FakeContext) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ctx.files["report.csv"].decode())))


@pytest.mark.parametrize("budget", [3, 6, 9, 24])
def test_every_photo_keeps_name_and_size_and_stays_within_the_budget(budget: int):
    ctx, params = context_with(FILES, budget=budget)
    run(ctx, params)
    assert {"a.png", "b.png", "c.png", "a-original.png", "a-difference.png", "report.csv"} <= set(ctx.files)
    for name, size in (("a", (40, 32)), ("b", (50, 24)), ("c", (16, 16))):
        assert image(ctx, f"{name}.png").size == size
        change = np.abs(pixels(ctx, f"{name}.png") - pixels(ctx, f"{name}-original.png"))
        assert 0 < change.max() <= budget
        assert ctx.numbers[f"{name}.png"]["max_change"] == change.max()
    assert np.array_equal(pixels(ctx, "a-original.png"), np.asarray(picture(1)))
    assert [row["state"] for row in report(ctx)] == ["protected"] * 3
    assert "notice" not in ctx.attributes["report.csv"]
    assert {ctx.attributes[f"b{part}.png"]["group"] for part in ("", "-original", "-difference")} == {"b"}
    assert all("images" in told["withholds"] for told in ctx.attributes.values() if told["kind"] == "image")
    assert ctx.reports[-1][:2] == (3, 3)


def test_a_run_that_is_killed_goes_on_and_gives_the_same_bytes():
    ctx, params = context_with({f"{n}.png": encoded(picture(n)) for n in range(10)})
    run(ctx, params)
    killed, _ = context_with({})
    killed.uploads, killed.crash_at = ctx.uploads, 12
    with pytest.raises(Crash):
        run(killed, params)
    again = killed.again()
    run(again, params)
    assert again.files == ctx.files
    assert again.checks < ctx.checks


def test_a_cancelled_run_stops():
    ctx, params = context_with(FILES)
    ctx.stop_at = 3
    with pytest.raises(Cancelled):
        run(ctx, params)


def test_each_file_of_a_batch_fails_alone():
    files = {"a.png": FILES["a.png"], "broken.png": FILES["a.png"][:99], "note.txt": b"hello"}
    files["more.zip"] = archive({"sub/a.png": FILES["c.png"], "b.png": b""})
    ctx, params = context_with(files)
    run(ctx, params)
    rows = report(ctx)
    assert [row["state"] for row in rows] == ["protected", "refused", "refused", "protected", "refused"]
    assert [row["result"] for row in rows] == ["a.png", "", "", "a-2.png", ""]
    assert "damaged" in rows[1]["why"]
    assert ctx.numbers[""] == {"protected": 2, "refused": 3}


def test_every_file_that_cannot_be_used_says_why_beside_the_others():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    locked = bytearray(archive({"c.png": FILES["c.png"]}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.find(magic) + offset] |= 1
    files = {
        "turned.jpg": (encoded(picture(1), "JPEG", exif=exif), ""),
        "clear.png": (encoded(picture(2).convert("LA")), ""),
        "ink.jpg": (encoded(picture(3).convert("CMYK"), "JPEG"), ""),
        "moving.gif": (encoded(picture(1), "GIF", save_all=True, append_images=[picture(2)]), "animated"),
        "short.jpg": (encoded(picture(1), "JPEG")[:-200], "damaged"),
        "locked.zip": (bytes(locked), "password"),
        "C:\\photos\\me.png": (FILES["a.png"], ""),
        "dot.png": (encoded(picture(0, 1, 1)), "too small"),
        "strip.png": (encoded(picture(0, 1000, 16)), "more than 8 times"),
        "huge.png": (header_of(10_000, 10_000), "million"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "no picture"),
    }
    ctx, params = context_with({name: data for name, (data, _) in files.items()})
    run(ctx, params)
    rows = report(ctx)
    assert [row["state"] == "refused" for row in rows] == [bool(said) for _, said in files.values()]
    assert all(said in row["why"] for row, (_, said) in zip(rows, files.values(), strict=True))
    assert ctx.attributes["report.csv"]["notice"].startswith(
        f"{len(rows) - 4} of {len(rows)} files could not be used. "
    )
    assert "And 2 more, see report.csv." in ctx.attributes["report.csv"]["notice"]
    assert [row["result"] for row in rows if row["result"]] == ["turned.png", "clear.png", "ink.png", "me.png"]
    assert image(ctx, "turned.png").size == (32, 40)
    assert image(ctx, "clear.png").mode == "RGBA"


def test_a_few_large_photos_or_many_small_ones_are_held_at_once():
    def photo(width: int, height: int) -> Ready:
        drawn = Image.new("RGB", (width, height))
        return Ready("a", "a", drawn, drawn)

    refused = {"state": "refused"}
    small, large = photo(16, 16), photo(4000, 4000)
    found = grouped([small, refused, small, large, large, small, refused, small, small, small], 4)
    assert [[isinstance(each, Ready) and each.image.width for each in group] for group in found] == [
        [16, False, 16, 4000],
        [4000],
        [16, False, 16, 16],
        [16],
    ]


def test_photos_of_an_archive_are_not_unpacked_before_their_turn(monkeypatch):
    held: list[bytes] = []

    def watched(photo):
        held.append(photo.read())
        assert len(ctx.files) >= 3 * 4 * ((len(held) - 1) // 4), "the group before is finished"
        return opened(photo)

    monkeypatch.setattr(engine, "opened", watched)
    ctx, params = context_with({"all.zip": archive({f"{n}.png": encoded(picture(n)) for n in range(10)})})
    run(ctx, params)
    assert len(held) == 10


def test_where_nothing_can_be_used_the_run_fails_with_the_reason():
    ctx, params = context_with({"note.txt": b"hello", "other.txt": b"x"})
    with pytest.raises(InvalidInput, match="None of 2 files") as caught:
        run(ctx, params)
    assert caught.value.field == "images"
    ctx, params = context_with({"note.txt": b"hello"})
    with pytest.raises(InvalidInput, match=r"note\.txt"):
        run(ctx, params)


def test_a_crop_has_the_networks_size():
    ctx, params = context_with({"a.png": FILES["a.png"]}, framing="crop")
    run(ctx, params)
    assert image(ctx, "a.png").size == image(ctx, "a-original.png").size == (16, 16)


def test_transparency_and_profile_stay_and_camera_data_only_on_request():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 3
    shown = picture(1).convert("RGBA")
    shown.putalpha(Image.linear_gradient("L").resize(shown.size))
    for keep in (False, True):
        ctx, params = context_with(
            {"a.png": encoded(shown, "PNG", icc_profile=profile, exif=exif)}, keep_exif=keep, differences=False
        )
        run(ctx, params)
        made, before = image(ctx, "a.png"), image(ctx, "a-original.png")
        assert before.mode == made.mode == "RGBA"
        assert before.info["icc_profile"] == profile, "both sides of the divider have the same colours"
        assert before.getchannel("A").tobytes() == made.getchannel("A").tobytes()
        assert not before.getexif()
        assert made.getchannel("A").tobytes() == shown.transpose(Image.Transpose.ROTATE_180).getchannel("A").tobytes()
        assert made.info["icc_profile"] == profile
        assert (made.getexif().get(0x010F) == "a camera") == keep
        assert 0x0112 not in made.getexif()
        assert "a-difference.png" not in ctx.files


def test_one_photo_alone_is_protected_as_it_is_among_others():
    one, params = context_with({"c.png": FILES["c.png"]})
    run(one, params)
    many, params = context_with(FILES)
    run(many, params)
    assert np.abs(pixels(one, "c.png") - pixels(many, "c.png")).max() <= 1


def test_a_published_file_runs_through_the_same_path(tmp_path, monkeypatch):
    folder = tmp_path / "weights" / "rid"
    folder.mkdir(parents=True)
    monkeypatch.setattr(checkpoints, "PUBLISHED_HEADS", 2)
    torch.save(loud_defender(6, folded=False).state_dict(), folder / "ASDS-eps-12_255.bin")
    ctx, params = context_with(FILES, model="published", budget=5)
    ctx.weights = tmp_path / "weights"
    run(ctx, params)
    change = np.abs(pixels(ctx, "a.png") - pixels(ctx, "a-original.png"))
    assert 0 < change.max() <= 5
    ctx, params = context_with(FILES, model="published", budget=3)
    ctx.weights = tmp_path / "weights"
    with pytest.raises(WeightsMissing, match=r"ASDS-eps-6_255\.bin") as caught:
        run(ctx, params)
    assert MODELS["published"].licence in caught.value.remedy


def test_names_are_free_safe_and_kept():
    names = ["a.jpg", "x/a.png", "A.png", "", "con<>|.png", "é ü.jpeg", "b.tar.gz"]
    assert free_names(names) == ["a", "a-2", "A-3", "photo", "con___", "é ü", "b.tar"]
    assert free_names(["a.png", "a-original.png", "b-difference.png", "b.png"]) == [
        "a",
        "a-original-2",
        "b-difference",
        "b-2",
    ], "no result of one photo is called as one of another"
    (long,) = free_names(["写" * 200 + ".png"])
    assert len(f"{long}-difference.png".encode()) < 255, "folders take no longer names"
    assert long == "写" * 60


def test_half_transparent_colours_stay_within_the_budget():
    source = Image.new("RGBA", (32, 24), (40, 40, 40, 128))
    ctx, params = context_with({"a.png": encoded(source)}, budget=6)
    run(ctx, params)
    found = np.asarray(image(ctx, "a.png")).astype(int)
    assert (found[..., 3] == 128).all()
    assert 0 < np.abs(found[..., :3] - 40).max() <= 6
    assert np.abs(found[..., :3] - 40).max() == ctx.numbers["a.png"]["max_change"]
