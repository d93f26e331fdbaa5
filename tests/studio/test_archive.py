"""Many files as one archive that is written while it is sent."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from studio.archive import CHUNK, zipped
from tests.studio.site import Site


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[str, Path]]:
    (tmp_path / "one").write_bytes(b"a" * 10)
    (tmp_path / "two").write_bytes(bytes(range(256)) * (3 * CHUNK // 256))
    return [("a.png", tmp_path / "one"), ("b.png", tmp_path / "two"), ("a.png", tmp_path / "two")]


def test_the_archive_holds_every_file_byte_for_byte(files: list[tuple[str, Path]]):
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(files)))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.png", "b.png", "a-2.png"]
        for name, (_, path) in zip(archive.namelist(), files, strict=True):
            assert archive.read(name) == path.read_bytes()


def test_it_comes_in_pieces_and_is_the_same_every_time(files: list[tuple[str, Path]]):
    pieces = list(zipped(files))
    assert max(map(len, pieces)) < 2 * CHUNK
    assert b"".join(pieces) == b"".join(zipped(files))


def test_the_results_of_a_job_can_be_had_as_one_file(tmp_path: Path, clock):
    site = Site(tmp_path / "site", clock)
    ada, bob = site.visitor(), site.visitor()
    job_id, kept = site.finished(ada)
    view = ada.get(f"/api/jobs/{job_id}").json()
    answer = ada.get(view["archive"])
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            name: site.stored(sha) for name, sha in kept.items()
        }
    with zipfile.ZipFile(io.BytesIO(ada.get(f"{view['archive']}?role=method").content)) as archive:
        assert archive.namelist() == ["method.png"]
    assert ada.get(f"{view['archive']}?role=none").status_code == 404
    assert bob.get(view["archive"]).status_code == 404
    token = site.share(ada, job_id)
    assert bob.get(f"/r/{token}/files.zip").content == answer.content
    assert "files.zip" in ada.get(f"/api/jobs/{job_id}/panel", headers={"accept": "text/html"}).text


def test_a_waiting_job_has_no_archive(tmp_path: Path, clock):
    site = Site(tmp_path / "site", clock)
    ada = site.visitor()
    job = site.submit(ada)
    assert job["archive"] is None
    assert ada.get(f"/api/jobs/{job['id']}/files.zip").status_code == 404
