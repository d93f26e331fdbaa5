"""Opening the services: one server a store, sentences for folders that cannot be used."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from studio.errors import StoreUnavailable
from studio.services import Services, open_services
from studio.settings import Settings


def test_the_bundle_stays_small():
    assert len(fields(Services)) <= 8


def test_a_store_has_one_server_and_any_number_of_others(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    first = open_services(settings, exclusive=True)
    open_services(settings)
    with pytest.raises(StoreUnavailable, match="Another Atelier is using"):
        open_services(settings, exclusive=True)
    first.close()
    open_services(settings, exclusive=True).close()


def test_a_home_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for exclusive in (True, False):
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            open_services(Settings(home=tmp_path / "file" / "home"), exclusive=exclusive)
