"""How a render box behaves (`Settings`: TOML file, then environment). Where it is stands in `rvc_batch.home`.

Nothing is read at import. Unknown keys are errors that name the key and its line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rvc_batch.engine.backend import BACKENDS, check_torch_precision
from rvc_batch.engine.memory import parse_size
from rvc_batch.engine.precision import DTYPES, QUANTIZE_BITS, Precision
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import SettingsInvalid
from rvc_batch.home import Home, locate_home
from rvc_batch.importers.roots import replay_folders

__all__ = [
    "Home",
    "HookSettings",
    "LibrarySettings",
    "LogSettings",
    "MetricsSettings",
    "RetentionSettings",
    "Settings",
    "WatchSettings",
    "WorkerSettings",
    "load_settings",
    "locate_home",
]


NOT_SETTINGS = ("RVC_BATCH_HOME", "RVC_BATCH_FAILPOINTS")  # read by rvc_batch.home and jobs.failpoints


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WatchSettings(_Section):
    """How files are noticed and judged complete."""

    settle_seconds: float = Field(3.0, gt=0, le=3600)
    rescan_seconds: float = Field(30.0, gt=0, le=3600)
    truncated_after_seconds: float = Field(600.0, gt=0)
    depth: int = Field(8, ge=1, le=64)
    max_gb: float = Field(100.0, gt=0, description="larger files stay in the inbox, with the reason")


class LibrarySettings(_Section):
    """Where voices are looked for besides `voices/`."""

    roots: tuple[str, ...] = Field((), description="folders of voices of this or other programs; ~ is your home folder")
    replay: bool = Field(True, description="the voices of the Replay app, where it is installed")

    def folders(self, home: Home) -> tuple[Path, ...]:
        """Return the roots in their order; relative ones are below the home, the Replay app's come last."""
        configured = [home.root / Path(root).expanduser() for root in self.roots]
        return (*configured, *(replay_folders(Path.home()) if self.replay else ()))


class WorkerSettings(_Section):
    """How the worker runs."""

    backend: str = "mlx"
    precision: str = Field("float32", description="of content network and synthesiser; half precision is for GPUs")
    quantize_bits: int = Field(0, description="8 or 4: quantised linear layers, for memory, not for speed; 0 = none")
    max_attempts: int = Field(3, ge=1, le=100)
    recycle_after_jobs: int = Field(1000, ge=1)
    rss_limit_mb: int = Field(0, ge=0, description="0 = none; above it the worker is replaced between jobs")
    stuck_after_seconds: float = Field(600.0, gt=0)
    warm_voice: str = ""
    memory_limit: str = Field("", description='such as "2 GB": tiles are made as small as that needs; empty = none')

    feature_cache_gb: float = Field(
        2.0, ge=0, description="content features and f0 of what was rendered, for the next voice or setting; 0 = none"
    )

    @field_validator("backend")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BACKENDS:
            raise ValueError(f"expected one of {', '.join(BACKENDS)}")
        return value

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, value: str) -> str:
        try:
            parse_size(value or "1 GB")
        except SettingsInvalid as e:
            raise ValueError(str(e)) from e
        return value

    def memory_limit_bytes(self) -> int | None:
        """Return the limit in bytes, None for none."""
        return parse_size(self.memory_limit) if self.memory_limit else None

    @field_validator("precision")
    @classmethod
    def _dtype(cls, value: str) -> str:
        if value not in DTYPES:
            raise ValueError(f"expected one of {', '.join(DTYPES)}")
        return value

    @field_validator("quantize_bits")
    @classmethod
    def _bits(cls, value: int) -> int:
        if value not in QUANTIZE_BITS:
            raise ValueError(f"expected one of {', '.join(map(str, QUANTIZE_BITS))}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.backend == "torch":
            try:
                check_torch_precision(self.numbers())
            except SettingsInvalid as e:
                raise ValueError(str(e)) from e
        return self

    def numbers(self) -> Precision:
        """Return the precision that the networks are loaded in."""
        return Precision(self.precision, self.quantize_bits)


class RetentionSettings(_Section):
    """What is removed by itself, and when; 0 = never. Whatever a job that has not ended needs always stays."""

    processed_days: float = Field(0.0, ge=0, description="sources of finished jobs, since they were put there")
    processed_gb: float = Field(0.0, ge=0, description="the oldest go until the rest is no larger")
    failed_days: float = Field(0.0, ge=0, description="sources of failed and cancelled jobs")
    failed_gb: float = Field(0.0, ge=0)
    history_days: float = Field(365.0, ge=0, description="rows of jobs that ended, with attempts, timings and journal")
    logs_days: float = Field(90.0, ge=0, description="rotated logs")


class HookSettings(_Section):
    """A command or URL that is told what happens."""

    on: tuple[Literal["done", "failed", "paused", "idle"], ...] = ("done", "failed", "paused", "idle")
    command: tuple[str, ...] = ()
    url: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        """What the log and the outbox call it; of a URL only scheme and host, because the rest may be a secret."""
        parts = urlsplit(self.url)
        return self.name or (self.command[0] if self.command else f"{parts.scheme}://{parts.hostname}")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("expected either a command or a url")
        if self.url and (urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname):
            raise ValueError("expected a url that begins with http:// or https://")
        return self


class LogSettings(_Section):
    """The log of the daemon."""

    format: Literal["text", "json"] = "text"
    max_mb: float = Field(10.0, gt=0, le=10_000)
    kept: int = Field(5, ge=1, le=1000)


class MetricsSettings(_Section):
    """A file in Prometheus' text format, for its textfile collector."""

    textfile: str = ""
    every_seconds: float = Field(30.0, ge=1, le=3600)


class Settings(_Section):
    """All of `rvc-batch.toml`."""

    default_voice: str = ""
    keep_sources: bool = True
    network_state: bool = Field(False, description="allow the database on a network volume")
    umask: str = Field("022", pattern="^0?[0-7]{3}$", description="of the service; 002 for folders that a group shares")
    library: LibrarySettings = LibrarySettings()
    watch: WatchSettings = WatchSettings()
    worker: WorkerSettings = WorkerSettings()
    retention: RetentionSettings = RetentionSettings()
    hooks: tuple[HookSettings, ...] = ()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    prevent_sleep: bool = True
    conversion: dict[str, Any] = {}

    @field_validator("hooks")
    @classmethod
    def _told_apart(cls, value: tuple[HookSettings, ...]) -> tuple[HookSettings, ...]:
        keys = [hook.key for hook in value]
        if len(set(keys)) < len(keys):
            raise ValueError(f"expected hooks with names of their own, these are called {', '.join(sorted(keys))}")
        return value

    @field_validator("conversion")
    @classmethod
    def _valid(cls, value: dict[str, Any]) -> dict[str, Any]:
        ConversionSettings().with_changes(**value)
        return value

    def conversion_settings(self) -> ConversionSettings:
        """Return the defaults of the `[conversion]` table."""
        return ConversionSettings().with_changes(**self.conversion)


def load_settings(home: Home, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `rvc-batch.toml` if there is one, then `RVC_BATCH_<SECTION>__<KEY>` from the environment.

    Raises:
        SettingsInvalid: not TOML, unknown key, wrong type or value out of range; names file, line and key.
    """
    text = ""
    values: dict[str, Any] = {}
    if home.config_file.is_file():
        text = home.config_file.read_text(encoding="utf-8")
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            raise SettingsInvalid(f"{home.config_file}: {e}") from e
    for name, raw in environment.items():
        if name.startswith("RVC_BATCH_") and name not in NOT_SETTINGS:
            _set_nested(values, name.removeprefix("RVC_BATCH_").lower().split("__"), raw)
    try:
        return Settings.model_validate(values, strict=False)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        line = _line_of(text, str(first["loc"][-1]) if first["loc"] else "")
        raise SettingsInvalid(f"{home.config_file}{line}: {key}: {first['msg']} (got {first['input']!r})") from e
    except SettingsInvalid as e:
        raise SettingsInvalid(f"{home.config_file}: conversion: {e}") from e


def _set_nested(values: dict[str, Any], path: list[str], raw: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    try:
        values[path[-1]] = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        values[path[-1]] = raw


def _line_of(text: str, key: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        if line.split("=")[0].strip().strip("[]") == key:
            return f":{number}"
    return ""
