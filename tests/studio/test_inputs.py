"""Files that parameters refer to: from paths and folders on the command line, and from uploads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import Field

from studio.__main__ import main
from studio.contract import FileRef, Params
from studio.errors import InvalidInput
from studio.inputs import accepted, takes_files, takes_several, with_files
from studio.services import Services, open_services
from studio.settings import Settings
from studio.views import headline
from tests.quick_engine.spec import SPEC
from tests.studio.site import Site, png


class Several(Params):
    many: tuple[FileRef, ...] = Field((), json_schema_extra={"accept": "image/*,.zip"})
    one: FileRef | None = None
    needed: FileRef = FileRef(sha256="0" * 64)
    words: tuple[str, ...] = ()
    steps: int | None = None


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return open_services(Settings(home=tmp_path / "home", engines=("tests.quick_engine",)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt", ".hidden.png", ".git/d.png", "all.zip"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(png(len(name)))
    return made


def test_file_parameters_are_told_from_others():
    fields = Several.model_fields
    assert [name for name in fields if takes_files(fields[name])] == ["many", "one", "needed"]
    assert [name for name in fields if takes_several(fields[name])] == ["many"]
    assert accepted(fields["many"]) == "image/*,.zip"
    assert accepted(fields["one"]) == ""


def test_a_folder_is_what_lies_in_it(services: Services, folder: Path):
    values = with_files(services, SPEC, {"files": [str(folder)], "steps": 2}, "anna")
    assert [ref["name"] for ref in values["files"]] == ["a.JPG", "all.zip", "b.png", "sub/c.webp"]
    assert values["steps"] == 2
    ref = values["files"][2]
    assert ref["sha256"] == hashlib.sha256((folder / "b.png").read_bytes()).hexdigest()
    assert services.artifacts.may_read(ref["sha256"], "anna")
    assert not services.artifacts.may_read(ref["sha256"], "bert")
    assert services.artifacts.media_type(ref["sha256"]) == "image/png"


def test_files_named_one_by_one_are_taken_whatever_they_are_called(services: Services, folder: Path):
    paths = [str(folder / "notes.txt"), str(folder / "b.png")]
    assert [ref["name"] for ref in with_files(services, SPEC, {"files": paths}, "anna")["files"]] == [
        "notes.txt",
        "b.png",
    ]


def test_what_is_kept_already_stays(services: Services):
    ref = {"sha256": "0" * 64, "name": "x"}
    assert with_files(services, SPEC, {"files": [ref]}, "anna") == {"files": [ref]}
    assert with_files(services, SPEC, {"steps": 1}, "anna") == {"steps": 1}


@pytest.mark.parametrize("path", ["nowhere.png", "empty"])
def test_a_path_that_leads_nowhere_is_refused_at_its_field(services: Services, tmp_path: Path, path: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput) as caught:
        with_files(services, SPEC, {"files": [str(tmp_path / path)]}, "anna")
    assert caught.value.field == "files"


def test_the_command_line_takes_a_folder(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATELIER_ENGINES", "tests.quick_engine")
    out = tmp_path / "out"
    command = ["run", "quick_engine", "--out", str(out), "--files", str(folder), "--file", str(folder / "b.png")]
    assert main(command) == 0
    (job,) = json.loads((out / "manifest.json").read_text())["jobs"]
    assert [file["name"] for file in job["params"]["files"]][-1] == "b.png"
    assert len(job["params"]["files"]) == 5
    assert main(command) == 0, "the same files are the same job"
    assert len(json.loads((out / "manifest.json").read_text())["jobs"]) == 1
    assert main([*command[:-1], str(folder / "gone.png")]) == 2


def test_an_uploaded_file_is_named_in_the_parameters(tmp_path: Path, clock):
    site = Site(tmp_path / "site", clock)
    ada = site.visitor()
    told = ada.post("/api/uploads?name=me.png", content=png()).json()
    job = site.submit(ada, files=[{"sha256": told["sha256"], "name": "me.png"}], prompt="")
    assert job["prompt"] == "me.png"
    refused = ada.post("/api/jobs", json={"engine": "quick_engine", "params": {"files": [{"sha256": "x"}]}})
    assert refused.status_code == 422
    assert refused.json()["error"]["field"] == "files"


def test_a_job_is_called_by_its_prompt_or_its_files():
    files = [{"sha256": "0" * 64, "name": name} for name in ("a.png", "b.png")]
    assert headline({"prompt": " a cat ", "files": files}) == "a cat"
    assert headline({"files": files}) == "a.png and 1 more"
    assert headline({"photo": files[1]}) == "b.png"
    assert headline({"steps": 3, "size": [1, 2]}) == ""
