"""Every setting is typed, and a bad one stops the start with key, value and expectation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.settings import GIB, Settings, SettingsError, quiet_libraries, table


def test_defaults_listen_on_this_machine_only():
    settings = Settings.from_env({})
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)
    assert settings.home == Path.home() / ".atelier"


def test_values_are_read_and_typed():
    settings = Settings.from_env(
        {
            "ATELIER_HOME": "~/studio",
            "ATELIER_DEVICES": "cuda:0, cuda:1",
            "ATELIER_RAM_BUDGET": "8GB",
            "ATELIER_LEASE": "12.5",
        }
    )
    assert settings.home == Path.home() / "studio"
    assert settings.devices == ("cuda:0", "cuda:1")
    assert settings.ram_budget == 8 * GIB
    assert settings.lease == 12.5


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("ATELIER_PORT", "eight", "a whole number"),
        ("ATELIER_PORT", "70000", "at most 65535"),
        ("ATELIER_LEASE", "0", "at least 0.2"),
        ("ATELIER_LEASE", "soon", "a number"),
        ("ATELIER_RAM_BUDGET", "plenty", "a size such as 8GB"),
        ("ATELIER_MAX_ATTEMPTS", "0", "at least 1"),
    ],
)
def test_bad_values_name_key_value_and_expectation(key: str, value: str, expected: str):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({key: value})
    for part in (key, value, expected):
        assert part in str(caught.value)


def test_a_misspelt_variable_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"ATELIER_PROT is no setting.*ATELIER_PORT"):
        Settings.from_env({"ATELIER_PROT": "7860"})


def test_a_child_process_reads_the_same_settings():
    settings = Settings.from_env(
        {"ATELIER_DEVICES": "cpu,cpu", "ATELIER_HOME": "/data/atelier", "ATELIER_VRAM_BUDGET": "3GB"}
    )
    assert Settings.from_env(settings.environ()) == settings
    assert settings.child_environ()["ATELIER_HOME"] == "/data/atelier"


SET_BY_A_SPACE = {"OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OPENID_PROVIDER_URL", "SPACE_HOST"}


def test_every_setting_has_help():
    for variable, _default, text in table():
        assert variable.startswith("ATELIER_") or variable in SET_BY_A_SPACE
        assert text.endswith(".")


def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for said, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        os.environ.pop("OMP_WAIT_POLICY", None)
        if said:
            os.environ["OMP_WAIT_POLICY"] = said
        quiet_libraries()
        assert os.environ["OMP_WAIT_POLICY"] == found
    assert os.environ["HF_HUB_OFFLINE"] == "1"
