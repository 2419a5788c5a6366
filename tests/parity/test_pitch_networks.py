"""FCPE and CREPE equal what their packages compute, in both backends; recorded by benchmarks/pitch_networks.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import pitch_fcpe
from rvc_batch.engine.backend import Backend, open_backend
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.filters import ScratchSignal
from rvc_batch.engine.pitch_crepe import _frames, crepe_f0_blocks, likeliest_path, smoothed
from rvc_batch.engine.pitch_fcpe import decode_fcpe, fcpe_salience_blocks
from rvc_batch.engine.pitch_methods import PitchChoice
from rvc_batch.engine.pitch_tracking import majority, track_pitch
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.errors import ModelKeys
from tests.conftest import imported
from tests.pitch_checkpoints import crepe_file, fcpe_file

EXPECTED = np.load(Path(__file__).parent / "pitch_networks.npz")
INPUTS = Path(__file__).parents[1] / "golden" / "inputs"
ATOL = 2e-5  # salience in 0–1, float32 through six layers


class ArraySignal:
    """A signal in memory."""

    def __init__(self, wave: np.ndarray) -> None:
        self.wave, self.samples = wave, wave.size

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= self.samples
        return self.wave[start:stop]


@pytest.fixture(scope="module")
def speech() -> ArraySignal:
    return ArraySignal(sf.read(INPUTS / "human_alsa.flac", dtype="float32", frames=2 * 16_000 + 77)[0])


@pytest.fixture(scope="module")
def opened(networks: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backend]:
    """Return a function from a framework to a backend with both networks loaded."""
    folder = tmp_path_factory.mktemp("pitch")
    files = {
        "fcpe": imported(fcpe_file(folder / "fcpe.pt"), folder / "fcpe.safetensors"),
        "crepe-tiny": imported(crepe_file(folder / "crepe.pth"), folder / "crepe.safetensors"),
    }
    found: dict[str, Backend] = {}

    def get(framework: str) -> Backend:
        if framework not in found:
            tiny = networks("tiny")
            backend = open_backend(framework, hubert=tiny / "hubert.safetensors", rmvpe=tiny / "rmvpe.safetensors")
            for method, path in files.items():
                assert backend.load_pitch(method, path) == "0" * 64
            found[framework] = backend
        return found[framework]

    return get


def cents(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    np.testing.assert_array_equal(found > 0, expected > 0)
    return 1_200 * np.abs(np.log2(found[found > 0] / expected[found > 0]))


def salience(backend: Backend, signal: ArraySignal, tile_frames: int = 1 << 20) -> np.ndarray:
    return np.concatenate(list(fcpe_salience_blocks(backend, signal, tile_frames)))


def test_fcpe_equals_its_package(framework: str, opened: Callable[[str], Backend], speech: ArraySignal) -> None:
    found = salience(opened(framework), speech)
    assert found.shape == (1 + speech.samples // 160, 360)
    assert EXPECTED["fcpe_salience"].std() > 0.1
    np.testing.assert_allclose(found[::20], EXPECTED["fcpe_salience"], atol=ATOL)
    assert cents(decode_fcpe(found, 0.006, opened(framework).fcpe_config()).f0, EXPECTED["fcpe_f0"]).max() < 0.1


@pytest.mark.parametrize("tile_frames", [40, 67])  # 40: the last tile keeps one frame, which is heard twice
def test_fcpe_in_tiles_equals_one_pass(
    framework: str, opened: Callable[[str], Backend], speech: ArraySignal, tile_frames: int
) -> None:
    backend = opened(framework)
    np.testing.assert_allclose(salience(backend, speech, tile_frames), salience(backend, speech), atol=2e-6)


def test_fcpe_in_tiles_needs_the_statistics_of_the_whole(
    opened: Callable[[str], Backend], speech: ArraySignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened("torch")
    whole = salience(backend, speech)
    start = ArraySignal(speech.wave[:8_000])
    statistics = pitch_fcpe._statistics(backend, start, 1 + start.samples // 160, 1 << 20)
    monkeypatch.setattr(pitch_fcpe, "_statistics", lambda *_: statistics)
    assert np.abs(salience(backend, speech, 32) - whole).max() > 1e-3


def test_fcpes_reach_is_as_computed(framework: str, opened: Callable[[str], Backend]) -> None:
    backend = opened(framework)
    reach = pitch_fcpe.reach(backend.fcpe_config())
    mean, variance = np.zeros(4, np.float32), np.ones(4, np.float32)
    stem = np.random.default_rng(0).standard_normal((301, 16)).astype(np.float32)
    before = backend.fcpe_salience(stem, mean, variance)
    stem[150] *= -1e4
    changed = np.flatnonzero((backend.fcpe_salience(stem, mean, variance) != before).any(axis=1))
    assert reach == 91
    assert (changed[0], changed[-1]) == (150 - reach, 150 + reach)


def test_fcpes_outermost_bins_stand_in_for_those_beyond(opened: Callable[[str], Backend]) -> None:
    """Of a peak in the first bin five of nine are that bin, as upstream has it."""
    config = opened("torch").fcpe_config()
    peak = np.zeros((2, 360), np.float32)
    peak[0, :2] = 0.5, 0.25
    peak[1, 358] = 0.006
    low, step = 1200 * np.log2(3.27), 1200 * np.log2(1975.5 / 32.7) / 359
    expected = 10 * 2 ** ((low + step * 0.25 / 2.75) / 1200)
    np.testing.assert_allclose(decode_fcpe(peak, 0.006, config).f0, [expected, 0], rtol=1e-6)


def test_crepes_frames_equal_its_packages(speech: ArraySignal) -> None:
    frames = np.concatenate([_frames(speech, first, min(first + 64, 201)) for first in range(0, 201, 64)])
    np.testing.assert_allclose(frames[::40], EXPECTED["crepe_frames"], atol=2e-5)


def test_crepe_equals_its_package(framework: str, opened: Callable[[str], Backend], speech: ArraySignal) -> None:
    backend = opened(framework)
    found = backend.crepe_salience("crepe-tiny", _frames(speech, 0, 1 + speech.samples // 160))
    assert EXPECTED["crepe_salience"].std() > 0.05
    np.testing.assert_allclose(found[::20], EXPECTED["crepe_salience"], atol=ATOL)
    f0 = np.concatenate(list(crepe_f0_blocks(backend, "crepe-tiny", speech, 0.1)))
    assert cents(f0, EXPECTED["crepe_f0"]).max() < 0.1


def disorder() -> np.ndarray:
    random = np.random.default_rng(5).standard_normal((700, 360)).astype(np.float32)
    return 1 / (1 + np.exp(-2 * random))


def test_the_path_is_the_one_that_the_package_finds() -> None:
    bins = likeliest_path(disorder())
    assert np.abs(np.diff(bins)).max() < 12
    np.testing.assert_allclose(10 * 2 ** ((1997.3794084376191 + 20 * bins) / 1200), EXPECTED["path_hz"], rtol=1e-5)


def test_a_path_may_leap_when_nothing_else_is_left() -> None:
    sure = np.full((6, 360), -200.0, np.float32)  # the softmax of anything less leaves some likelihood everywhere
    sure[:3, 50], sure[3:, 300] = 0, 0
    np.testing.assert_array_equal(likeliest_path(sure), [50, 50, 50, 300, 300, 300])


@pytest.mark.parametrize("size", [1, 2, 3, 100, 700])
def test_smoothing_equals_the_packages_however_the_stream_is_cut(size: int) -> None:
    f0, strength = (EXPECTED[name].astype(np.float64) for name in ("path_hz", "path_salience"))
    blocks = [(f0[i : i + size], strength[i : i + size]) for i in range(0, f0.size, size)]
    threshold = float(np.median(EXPECTED["path_smooth_salience"])) + 1e-9
    found = np.concatenate(list(smoothed(iter(blocks), threshold)))
    is_voiced = EXPECTED["path_smooth_salience"] >= threshold
    assert 0.3 < is_voiced.mean() < 0.7
    np.testing.assert_allclose(found, np.where(is_voiced, EXPECTED["path_smooth_hz"], 0), rtol=1e-6)


def test_joined_methods_are_the_majority_of_each(opened: Callable[[str], Backend], tmp_path: Path) -> None:
    wave = sf.read(INPUTS / "human_alsa.flac", frames=16_000)[0]
    (tmp_path / "wave.f64").write_bytes(wave.tobytes())
    signal = ScratchSignal(tmp_path / "wave.f64", wave.size)
    told: list[float] = []

    def track(method: str) -> np.ndarray:
        choice = PitchChoice(method, 0.0)
        return track_pitch(opened("torch"), signal, RVC_2023, WorkSizes(), choice=choice, progress=told.append).f0

    alone = np.stack([track(name) for name in ("rmvpe", "fcpe", "crepe-tiny")])
    assert alone.shape == (3, 1 + 3 * 100)
    told.clear()
    np.testing.assert_array_equal(track("rmvpe+fcpe+crepe-tiny"), majority(alone).f0)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_networks_with_a_tensor_too_few_are_refused(
    framework: str, networks: Callable[[str], Path], tmp_path: Path
) -> None:
    from rvc_batch.engine.checkpoints import NetworkKind, read_header, read_tensors, write_checkpoint

    path = imported(fcpe_file(tmp_path / "fcpe.pt"), tmp_path / "whole.safetensors")
    tensors = read_tensors(path)
    del tensors["norm.bias"]
    write_checkpoint(tmp_path / "less.safetensors", read_header(path, NetworkKind.FCPE), tensors)
    tiny = networks("tiny")
    backend = open_backend(framework, hubert=tiny / "hubert.safetensors", rmvpe=tiny / "rmvpe.safetensors")
    with pytest.raises(ModelKeys, match=r"1 missing \(norm\.bias\)"):
        backend.load_pitch("fcpe", tmp_path / "less.safetensors")
