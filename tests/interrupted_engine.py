"""The real engine, which interrupts itself at the border after its first segment, once per home.

`open_killed` ends its own process by SIGKILL, as the system would that runs out of memory; `open_terminated` sends
SIGTERM to the daemon and goes on until it is told to stop. Cuts lie two seconds apart instead of 38, so that a short
file has segments.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rvc_batch.config import Settings
from rvc_batch.engine.dialect import DIALECTS, RVC_2023
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ConversionReport
from rvc_batch.home import Home
from rvc_batch.jobs.renderer import EngineRenderer, Renderer

TIMEOUT_S = 60.0
SHORT_CUTS = replace(RVC_2023, centre=32_000, query=8_000, longest=48_000)


def open_killed(home: Home, settings: Settings) -> Renderer:
    return _Interrupted(home, settings, lambda: os.kill(os.getpid(), signal.SIGKILL))


def open_terminated(home: Home, settings: Settings) -> Renderer:
    return _Interrupted(home, settings, lambda: os.kill(os.getppid(), signal.SIGTERM))


class _Interrupted(EngineRenderer):
    def __init__(self, home: Home, settings: Settings, interrupt: Callable[[], None]) -> None:
        DIALECTS[RVC_2023.name] = SHORT_CUTS
        super().__init__(home, settings)
        self._marker = home.state / "interrupted"
        self._interrupt = interrupt

    def render(
        self,
        source: Path,
        target: Path,
        *,
        voice: str,
        settings: ConversionSettings,
        progress: Callable[[Any], None],
    ) -> ConversionReport:
        def at_border(found: Any) -> None:
            progress(found)
            if found.stage == "synth" and found.seconds_done > 0 and not self._marker.exists():
                self._marker.touch()
                self._interrupt()
                deadline = time.monotonic() + TIMEOUT_S
                while time.monotonic() < deadline:  # raises as soon as the word has come
                    progress(found)
                    time.sleep(0.05)
                raise AssertionError("nobody stopped the worker")

        return super().render(source, target, voice=voice, settings=settings, progress=at_border)
