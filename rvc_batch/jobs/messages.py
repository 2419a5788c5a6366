"""What daemon and worker say to each other over their pipe. Frozen records, no behaviour.

The daemon speaks `Start`, `Assignment`, `Cancel`, `Stop`; the worker the rest. Everything about a job carries its claim
number, so that a late word about an earlier job is recognised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvc_batch.config import Settings
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ConversionReport, DeviceMemory
from rvc_batch.errors import RetryClass
from rvc_batch.jobs.models import JobError
from rvc_batch.jobs.publish import Sealed


@dataclass(frozen=True)
class Start:
    """The first word to a new worker."""

    home: Path
    settings: Settings
    engine: str  # "module:function" of the factory of its renderer
    log_level: int


@dataclass(frozen=True)
class Assignment:
    """Render this."""

    job_id: int
    claim_no: int
    source: Path
    target: Path
    voice: str
    settings: ConversionSettings


@dataclass(frozen=True)
class Cancel:
    """Stop this claim at the next segment."""

    claim_no: int


@dataclass(frozen=True)
class Stop:
    """Stop at the next segment, and exit."""


@dataclass(frozen=True)
class Warming:
    """Networks are loaded; kernels are being compiled."""


@dataclass(frozen=True)
class Ready:
    """Waiting for work."""

    device: str
    backend: str
    warm_voices: tuple[str, ...]
    memory: DeviceMemory | None = None


@dataclass(frozen=True)
class StartFailed:
    """The engine cannot be opened; the worker exits."""

    error: JobError


@dataclass(frozen=True)
class Progressed:
    """How far the job is, in seconds of audio."""

    claim_no: int
    stage: str
    done: float
    total: float
    memory: DeviceMemory | None = None


@dataclass(frozen=True)
class Rendered:
    """The result is whole, verified and durable under its temporary name."""

    claim_no: int
    sealed: Sealed
    report: ConversionReport
    warm_voices: tuple[str, ...]
    memory: DeviceMemory | None = None


@dataclass(frozen=True)
class Failed:
    """The job failed; nothing is left under its temporary name."""

    claim_no: int
    error: JobError
    retry: RetryClass


@dataclass(frozen=True)
class Halted:
    """The job was stopped between two segments, as asked."""

    claim_no: int


@dataclass(frozen=True)
class LogLine:
    """A log record of the worker; the daemon alone writes the log file."""

    logger: str
    level: int
    text: str
    job_id: int | None = None  # that was being rendered


ToWorker = Start | Assignment | Cancel | Stop
FromWorker = Warming | Ready | StartFailed | Progressed | Rendered | Failed | Halted | LogLine
