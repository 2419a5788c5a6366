"""The table of methods, and what several of them say together."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rvc_batch.engine.pitch_methods import METHODS, methods_named
from rvc_batch.engine.pitch_tracking import majority
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import SettingsInvalid


def test_methods_are_joined_by_plus() -> None:
    assert methods_named("rmvpe+pm") == (METHODS["rmvpe"], METHODS["pm"])
    for name in ("", "rmvpe+", "rmvpe+magic", "RMVPE", "rmvpe, pm"):
        with pytest.raises(SettingsInvalid, match=r"expected one of rmvpe, .* or several joined by"):
            methods_named(name)
    with pytest.raises(SettingsInvalid, match="expected each method once"):
        methods_named("rmvpe+pm+rmvpe")


def test_a_threshold_is_for_one_method_that_has_one() -> None:
    ConversionSettings(pitch_method="pm", pitch_threshold=0.4)
    with pytest.raises(SettingsInvalid, match="2 methods are joined, each with its own"):
        ConversionSettings(pitch_method="rmvpe+pm", pitch_threshold=0.4)


def test_two_methods_must_agree_on_voicing_and_meet_half_way_in_log_frequency() -> None:
    found = majority(np.array([[100, 0, 110, 0], [400, 200, 0, 0]], np.float32))
    np.testing.assert_allclose(found.f0, [200, 0, 0, 0], rtol=1e-6)


def test_of_three_methods_the_median_counts_and_one_may_be_silent() -> None:
    tracks = np.array([[100, 100, 0, 0, 100], [110, 400, 0, 120, 0], [900, 0, 300, 0, 0]], np.float32)
    np.testing.assert_allclose(majority(tracks).f0, [110, 200, 0, 0, 0], rtol=1e-6)


def test_four_methods_need_three_voices() -> None:
    tracks = np.array([[100, 100], [200, 100], [400, 0], [0, 0]], np.float32)
    np.testing.assert_allclose(majority(tracks).f0, [200, 0], rtol=1e-6)


def test_settings_are_checked_without_numpy() -> None:
    """`status` reads stored settings, and must start fast."""
    code = "import sys, rvc_batch.engine.settings as s; s.ConversionSettings(); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
