"""The mel front end equals the original's, in both backends."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from rvc_batch.engine.blas import prepare_process
from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.mel_basis import mel_filter_bank
from tests.parity import golden


@pytest.fixture(params=["mlx", "torch"])
def mel(request: pytest.FixtureRequest) -> ModuleType:
    prepare_process()
    return importlib.import_module(f"rvc_batch.engine.{request.param}_nets.mel")


def tensor(mel: ModuleType, a: np.ndarray) -> object:
    framework = importlib.import_module("mlx.core" if "mlx" in mel.__name__ else "torch")
    return framework.array(a) if "mlx" in mel.__name__ else framework.from_numpy(a)


def test_filter_bank_equals_the_original() -> None:
    golden.assert_golden("mel_basis", "basis", mel_filter_bank())


@pytest.mark.parametrize("name", [n for n in golden.entries("mel_") if n != "mel_basis"])
def test_log_mel_equals_the_original(mel: ModuleType, name: str) -> None:
    frames = mel.LogMel()(tensor(mel, golden.audio(golden.ENTRIES[name])))
    golden.assert_golden(name, "mel", np.asarray(frames).T)


@pytest.mark.parametrize("samples", [513, 800, 1600])
def test_short_waves_have_one_frame_per_hop_and_one_more(mel: ModuleType, samples: int) -> None:
    assert tuple(mel.LogMel()(tensor(mel, np.zeros(samples, np.float32))).shape) == (1 + samples // 160, 128)


def test_wave_too_short_to_be_reflected_is_refused(mel: ModuleType) -> None:
    with pytest.raises(ValueError, match="512 samples"):
        mel.LogMel()(tensor(mel, np.zeros(512, np.float32)))


@pytest.mark.parametrize("frames", [32, 33, 50, 63])
def test_frames_are_padded_to_a_multiple_as_numpy_pads(mel: ModuleType, frames: int) -> None:
    a = np.random.default_rng(0).standard_normal((frames, 3)).astype(np.float32)
    width = [(0, -frames % 32), (0, 0)]
    for padding, expected in (
        (MelPadding.ZEROS, np.pad(a, width)),
        (MelPadding.REFLECT, np.pad(a, width, mode="reflect")),
    ):
        np.testing.assert_array_equal(np.asarray(mel.pad_frames(tensor(mel, a), 32, padding)), expected)


def test_too_few_frames_to_be_reflected_are_refused(mel: ModuleType) -> None:
    with pytest.raises(ValueError, match="5 frames"):
        mel.pad_frames(tensor(mel, np.zeros((5, 3), np.float32)), 32, MelPadding.REFLECT)
