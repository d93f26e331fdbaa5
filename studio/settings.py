"""Every setting of Atelier: one environment variable each, typed, documented, read once and only here.

A value that cannot be used stops the start with the variable's name, the value and what was expected.
`python -m studio settings` prints this table; docs/operations.md explains it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

GIB = 2**30


class SettingsError(ValueError):
    """An environment variable holds something that cannot be used."""


def _whole(text: str) -> int:
    return int(text.replace("_", ""))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _size(text: str) -> int:
    """'8GB', '512MB' or plain bytes; GB and MB are powers of 1024."""
    text = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(text[-1:], 1)
    return int(float(text.rstrip("KMGT")) * unit)


def _flag(text: str) -> bool:
    return {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }[text.strip().lower()]


def _choice(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if (word := text.strip().lower()) not in words:
            raise ValueError(text)
        return word

    _EXPECTED[read] = " or ".join(words)
    return read


_EXPECTED: dict[Callable[[str], Any], str] = {
    _whole: "a whole number",
    float: "a number",
    _size: "a size such as 8GB or 512MB",
    _words: "names separated by commas",
    _flag: "1 or 0",
    Path: "a folder",
    str: "text",
}


def _setting(
    variable: str,
    default: Any,
    read: Callable[[str], Any],
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    hidden: bool = False,
) -> Any:
    return field(
        default=default,
        repr=not hidden,
        metadata={"variable": variable, "read": read, "help": text, "low": low, "high": high},
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one process. Times are seconds, sizes bytes."""

    home: Path = _setting(
        "ATELIER_HOME", Path.home() / ".atelier", Path, "Folder of all data: store, files, secret, logs."
    )
    host: str = _setting("ATELIER_HOST", "127.0.0.1", str, "Address the server listens on.")
    port: int = _setting("ATELIER_PORT", 7860, _whole, "Port the server listens on.", low=0, high=65535)
    devices: tuple[str, ...] = _setting(
        "ATELIER_DEVICES", ("auto",), _words, "Devices with one worker each: cpu, cuda:0, ...; auto picks."
    )
    engines: tuple[str, ...] = _setting(
        "ATELIER_ENGINES", (), _words, "Further engines as dotted package names, beside those of the house."
    )
    weights: Path | None = _setting(
        "ATELIER_WEIGHTS", None, Path, "Folder with published checkpoints as sub-folders named owner--name."
    )
    secret: str = _setting(
        "ATELIER_SECRET", "", str, "Key that signs cookies; empty: made once in the home folder.", hidden=True
    )
    lease: float = _setting("ATELIER_LEASE", 30.0, float, "Seconds a silent worker keeps its job.", low=0.2)
    heartbeat: float = _setting("ATELIER_HEARTBEAT", 5.0, float, "Seconds between signs of life.", low=0.05)
    grace: float = _setting("ATELIER_GRACE", 20.0, float, "Seconds a cancelled job has to stop by itself.", low=0.0)
    poll: float = _setting("ATELIER_POLL", 0.5, float, "Longest pause of an idle worker between looks.", low=0.01)
    max_attempts: int = _setting("ATELIER_MAX_ATTEMPTS", 3, _whole, "Times a job is begun before it fails.", low=1)
    waiting_cap: int = _setting("ATELIER_WAITING_CAP", 100, _whole, "Waiting jobs one owner may have.", low=1)
    running_cap: int = _setting("ATELIER_RUNNING_CAP", 4, _whole, "Running jobs one owner may have.", low=1)
    ram_budget: int = _setting(
        "ATELIER_RAM_BUDGET",
        0,
        _size,
        "RAM for cached models of one worker; 0: half of the machine's.",
        low=0,
    )
    vram_budget: int = _setting(
        "ATELIER_VRAM_BUDGET", 0, _size, "GPU memory for cached models; 0: 80 % of the device's.", low=0
    )
    threads: int = _setting(
        "ATELIER_THREADS", 0, _whole, "CPU threads of one worker; 0: all cores divided by workers.", low=0
    )
    upload_bytes: int = _setting("ATELIER_UPLOAD_BYTES", 64 * 2**20, _size, "Largest upload.", low=1)
    upload_pixels: int = _setting("ATELIER_UPLOAD_PIXELS", 50_000_000, _whole, "Most pixels of one picture.", low=1)
    rate_per_minute: int = _setting(
        "ATELIER_RATE_PER_MINUTE",
        120,
        _whole,
        "State-changing HTTP requests one owner may make a minute.",
        low=1,
    )
    upload_seconds: float = _setting("ATELIER_UPLOAD_SECONDS", 120.0, float, "Longest video, in seconds.", low=0.1)
    upload_frames: int = _setting("ATELIER_UPLOAD_FRAMES", 3_600, _whole, "Most frames of one video.", low=1)
    upload_faces: int = _setting(
        "ATELIER_UPLOAD_FACES", 2_000_000, _whole, "Most faces, vertices or points of one mesh.", low=1
    )
    login: str = _setting(
        "ATELIER_LOGIN", "optional", _choice("optional", "required"), "optional: anybody; required: only accounts."
    )
    metrics: str = _setting(
        "ATELIER_METRICS",
        "local",
        _choice("local", "public", "off"),
        "Who may read /metrics and the details of /healthz: local, public, off.",
    )
    metrics_token: str = _setting(
        "ATELIER_METRICS_TOKEN", "", str, "Whoever sends it as a bearer token may read them as well.", hidden=True
    )
    hub_client: str = _setting("OAUTH_CLIENT_ID", "", str, "Client of the Hugging Face login; a Space sets it.")
    hub_secret: str = _setting("OAUTH_CLIENT_SECRET", "", str, "Its secret; a Space sets it.", hidden=True)
    hub: str = _setting(
        "OPENID_PROVIDER_URL", "https://huggingface.co", str, "Where that login takes place; a Space sets it."
    )
    space: str = _setting("SPACE_HOST", "", str, "Public host name of a Hugging Face Space; the Space sets it.")
    retention_days: float = _setting(
        "ATELIER_RETENTION_DAYS", 30.0, float, "Days a finished, unshared job is kept; 0: for ever.", low=0.0
    )
    disk_reserve: int = _setting(
        "ATELIER_DISK_RESERVE", 256 * 2**20, _size, "Free disk below which no job is taken.", low=0
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read all variables (of this process by default). Raises SettingsError with key, value, expected type."""
        environ = os.environ if environ is None else environ
        known = {item.metadata["variable"] for item in fields(cls)}
        unknown = sorted(key for key in environ if key.startswith("ATELIER_") and key not in known | _FOREIGN)
        if unknown:
            raise SettingsError(f"{unknown[0]} is no setting of Atelier. Known ones: {', '.join(sorted(known))}.")
        values = {}
        for item in fields(cls):
            text = environ.get(item.metadata["variable"], "")
            if text != "":
                values[item.name] = _parse(item.metadata, text)
        return cls(**values)

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed, e.g. another home or port."""
        return dataclasses.replace(self, **changes)

    def child_environ(self) -> dict[str, str]:
        """The environment for a child process of the studio: this process's own, with these settings on top."""
        return {**os.environ, **self.environ()}

    def environ(self) -> dict[str, str]:
        """The variables that make another process read these same settings."""
        written = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                written[item.metadata["variable"]] = text
        return written


def quiet_libraries() -> None:
    """Switch off telemetry, downloads and chatter in the libraries we use; call before importing them.

    `CUBLAS_WORKSPACE_CONFIG` makes matrix products on a GPU repeatable. `OMP_WAIT_POLICY` lets threads that wait for
    each other sleep: they would spin else, and where a browser or another worker needs a core, spin away the very
    time that the thread they wait for should have. It costs an eighth where nothing else runs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        DO_NOT_TRACK="1",
        TQDM_DISABLE="1",
        TRANSFORMERS_VERBOSITY="error",
        CUBLAS_WORKSPACE_CONFIG=":4096:8",
    )


# Variables of this prefix that are not settings of a running studio.
_FOREIGN = {"ATELIER_FIXTURES"}  # folder with further numeric cases for the kernel-contract tests


def _parse(metadata: Mapping[str, Any], text: str) -> Any:
    key, read = metadata["variable"], metadata["read"]
    try:
        value = read(text)
    except (ValueError, KeyError):
        raise SettingsError(f"{key}={text!r}: expected {_EXPECTED[read]}.") from None
    low, high = metadata["low"], metadata["high"]
    if low is not None and value < low:
        raise SettingsError(f"{key}={text!r}: expected {_EXPECTED[read]} of at least {low:g}.")
    if high is not None and value > high:
        raise SettingsError(f"{key}={text!r}: expected {_EXPECTED[read]} of at most {high:g}.")
    return value.expanduser() if isinstance(value, Path) else value


def table() -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting, for `python -m studio settings` and the documentation test."""
    return [(item.metadata["variable"], str(item.default), item.metadata["help"]) for item in fields(Settings)]
