"""One whole application, pages and all, for the short runs of the harnesses: making it costs some seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.hostile_input import Ground, ground


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("door")) as made:
        yield made
