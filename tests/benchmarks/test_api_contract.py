"""The API against its own description: a few calls of every operation, right ones and wrong ones."""

from __future__ import annotations

from pathlib import Path

from benchmarks.api_contract import run
from tests.studio.conftest import FakeClock
from tests.studio.site import Site


def test_the_api_does_what_its_description_says(tmp_path: Path):
    site = Site(tmp_path, FakeClock(), rate_per_minute=10**9, waiting_cap=10**6)
    report = run(site.app, site.services, examples=4, out=tmp_path / "rows")
    assert report.faults == []
    assert report.operations >= 20
    assert report.calls > 150
    assert not [code for code in report.codes if code >= 500]
    again = run(site.app, site.services, examples=4, out=tmp_path / "rows")
    assert again == report, "what is done is not done again"
