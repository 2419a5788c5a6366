"""Jobs, reports and files for tests that need neither database nor daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ConversionReport
from rvc_batch.jobs.models import Job, JobState


def job_like(**changes: Any) -> Job:
    """Return a running job with some fields changed."""
    values: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    values |= {
        "id": 7,
        "public_id": "abc123",
        "state": JobState.RUNNING,
        "source_name": "alto/song.wav",
        "source_rel": b"alto/song.wav",
        "source_size": 1,
        "content_sha256": "0" * 64,
        "voice": "alto",
        "settings": ConversionSettings(),
        "output_rel": b"alto/song.wav",
        "claim_no": 1,
        "attempt": 1,
        "max_attempts": 3,
        "worker_id": "w",
        "cancel_requested": False,
        "warnings": (),
    }
    return Job(**(values | changes))


def report_like(*, samples: int, rate: int) -> ConversionReport:
    """Return the report of a result of this length."""
    return ConversionReport(
        samples_in=samples,
        rate_in=rate,
        samples_out=samples,
        rate_out=rate,
        segments=1,
        stage_seconds={},
        wall_seconds=1.0,
        peak_rss_bytes=1,
        peak_device_bytes=0,
        seed=0,
        dialect="rvc-2023",
        backend="fake",
        voice="alto",
        voice_sha256="0" * 64,
        warnings=(),
        versions={},
    )


def write_audio(path: Path, *, seconds: float = 0.1, seed: int = 0) -> None:
    """Write noise as a WAV file."""
    noise = np.random.default_rng(seed).integers(-3000, 3000, int(16_000 * seconds), dtype=np.int16)
    soundfile.write(path, noise, 16_000, format="WAV", subtype="PCM_16")


def files_below(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink())
