"""The length is exact with real networks too: a few of the hundreds in tests/unit/test_converter.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.converter import Converter
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.voice import Voice


@pytest.mark.parametrize(
    ("samples", "rate", "voice"),
    [
        (80, 8_000, "v2_40k_f0_feat48"),  # 10 ms
        (1, 44_100, "v2_32k_f0_feat48"),
        (14_699, 44_100, "v2_48k_f0_feat48"),
        (48_001, 48_000, "v2_40k_nof0_feat48"),
        (47_777, 22_050, "v2_40k_f0_feat48"),
    ],
)
def test_length_is_exact_with_networks(
    tmp_path: Path,
    framework: str,
    samples: int,
    rate: int,
    voice: str,
    open_networks: Callable[[str, str], Backend],
    open_voice: Callable[[str, str], Voice],
) -> None:
    sf.write(tmp_path / "in.wav", np.random.default_rng(0).uniform(-0.3, 0.3, samples), rate)
    report = Converter(open_networks(framework, "tiny"), scratch=tmp_path).convert(
        tmp_path / "in.wav",
        tmp_path / "out.wav",
        voice=open_voice("tiny", voice),
        settings=ConversionSettings(index_rate=0.0),
    )
    found = sf.info(tmp_path / "out.wav")
    assert found.frames == report.samples_out == round(samples * found.samplerate / rate)
