"""A renderer without networks: it copies the audio, and misbehaves as the name of the source asks.

    slow-0.5-x.wav     half a second, in ten segments          hang-x.wav      no progress, holding the GIL not
    raise-x.wav        unexpected exception                    abort-x.wav     os.abort()
    enospc-x.wav       no space left                           segfault-x.wav  reads address 0
    short-x.wav        leaves half of the audio                kill-x.wav      SIGKILL to itself
    leak-x.wav         keeps 60 MB                             append-x.wav    the source grows meanwhile
    nan-x.wav          a sample that is no number              oom-x.wav       no memory is left for it

With `once` in the name it does so the first time only. Each call leaves a line in state/renders.log.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import soundfile

from rvc_batch.config import Settings
from rvc_batch.engine.decoding import open_audio
from rvc_batch.engine.settings import OUTPUT_FORMATS, ConversionSettings
from rvc_batch.engine.types import ConversionReport, DeviceMemory
from rvc_batch.errors import ModelMissing, OutputInvalid
from rvc_batch.home import Home
from rvc_batch.logs import printable

SEGMENTS = 10


class Progress(NamedTuple):
    """As `engine.converter.Progress`, which would load the whole engine."""

    stage: str
    seconds_done: float
    seconds_total: float


LEAK_BYTES = 60_000_000
VERBS = ("raise", "enospc", "invalid", "abort", "segfault", "kill", "hang", "leak", "append", "nan", "oom")


class FakeRenderer:
    """See above."""

    device, backend = "imaginary", "fake"

    def __init__(self, home: Home) -> None:
        self._home = home
        self._voices: list[str] = []
        self._leaked: list[bytes] = []
        self._is_nan = False

    def warm_voices(self) -> tuple[str, ...]:
        return tuple(self._voices)

    def memory(self) -> DeviceMemory:
        return DeviceMemory(active=sum(map(len, self._leaked)), cache=0, cache_limit=1 << 30)

    def warm_up(self) -> None:
        pass

    def render(
        self,
        source: Path,
        target: Path,
        *,
        voice: str,
        settings: ConversionSettings,
        progress: Callable[[Any], None],
    ) -> ConversionReport:
        with (self._home.state / "renders.log").open("a+", errors="surrogateescape") as log:
            log.write(f"{os.getpid()} {printable(source.name, keep='')} {voice} {settings.transpose:g}\n")
            log.seek(0)
            number = len(log.readlines())
        self._voices = [v for v in self._voices if v != voice] + [voice]
        with open_audio(source) as opened:  # refuses what the true engine refuses, also when it is retried
            rate, blocks = opened.sample_rate, list(opened.blocks())
        audio = np.round(np.concatenate(blocks) * 32768).astype(np.int16)
        seconds = len(audio) / rate
        delay = float(source.name.split("-")[1]) if source.name.startswith("slow-") else 0.0
        for segment in range(SEGMENTS):
            progress(Progress("synth", seconds * segment / SEGMENTS, seconds))
            time.sleep(delay / SEGMENTS)
            if segment == SEGMENTS // 2:
                target.write_bytes(b"half of a result")
                self._misbehave(source)
        if self._is_nan:
            soundfile.write(target, [float("nan")] * len(audio), rate, format="WAV", subtype="FLOAT")
            return self._report(len(audio), rate, voice, settings)
        audio[0] = number  # no two renders are the same bytes: one published twice would show
        kept = audio[: len(audio) // 2] if source.name.startswith("short-") else audio
        _, kind, subtype = OUTPUT_FORMATS[settings.output_format]
        soundfile.write(target, kept, rate, format=kind, subtype=subtype)
        return self._report(len(audio), rate, voice, settings)

    def _report(self, samples: int, rate: int, voice: str, settings: ConversionSettings) -> ConversionReport:
        return ConversionReport(
            samples_in=samples,
            rate_in=rate,
            samples_out=samples,
            rate_out=rate,
            segments=SEGMENTS,
            stage_seconds={"synth": 0.1},
            wall_seconds=0.1,
            peak_rss_bytes=1,
            peak_device_bytes=0,
            seed=settings.seed,
            dialect=settings.dialect,
            backend=self.backend,
            voice=voice,
            voice_sha256="0" * 64,
            warnings=(),
            versions={},
        )

    def _misbehave(self, source: Path) -> None:
        self._is_nan = False
        verb = source.name.split("-")[0]
        if verb not in VERBS:
            return
        marker = self._home.state / f"fake-{source.name}"
        if "once" in source.name and marker.exists():
            return
        marker.touch()
        if verb == "raise":
            raise RuntimeError("the fake engine was asked to fail")
        if verb == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if verb == "invalid":
            raise OutputInvalid("the fake engine was asked to render nonsense")
        if verb == "abort":
            os.abort()
        if verb == "segfault":
            ctypes.string_at(0)
        if verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if verb == "hang":
            time.sleep(3600)
        if verb == "nan":
            self._is_nan = True
        if verb == "oom":
            _exhaust_memory()
        if verb == "leak":
            self._leaked.append(os.urandom(1) * LEAK_BYTES)
        if verb == "append":
            with source.open("ab") as file:
                file.write(b"LIST\4\0\0\0INFO")


def _exhaust_memory() -> None:
    """Ask for more than this process may have."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (16 << 20), limits[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def open_engine(home: Home, settings: Settings) -> FakeRenderer:
    """The factory for `DaemonOptions.engine`."""
    return FakeRenderer(home)


def open_broken_engine(home: Home, settings: Settings) -> FakeRenderer:
    """A factory that finds no models until state/models-are-there exists."""
    if not (home.state / "models-are-there").exists():
        raise ModelMissing("rmvpe.pt is not in models/; put it there")
    return FakeRenderer(home)


def open_dying_engine(home: Home, settings: Settings) -> FakeRenderer:
    """A factory that takes the process down."""
    os.abort()
