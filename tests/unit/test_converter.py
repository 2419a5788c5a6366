"""The main path with a numpy backend: lengths, seams, seeds, stopping, and refusals."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rvc_batch.engine import converter as converter_module
from rvc_batch.engine.converter import Converter, Progress
from rvc_batch.engine.dialect import RVC_2023, dialect_named
from rvc_batch.engine.f0_file import F0Curve
from rvc_batch.engine.pitch_methods import PitchChoice
from rvc_batch.engine.precision import Precision
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import WorkSizes, few_lengths
from rvc_batch.errors import (
    ExtraMissing,
    InputNoAudio,
    ModelMissing,
    ModelNotRvc,
    OutputInvalid,
    SettingsInvalid,
    Stopped,
)
from tests.engine_fakes import NumpyBackend, fake_voice
from tests.unit.test_retrieval import write_index

QUIET = ConversionSettings(index_rate=0.0, output_format="wav32f", rms_mix_rate=1.0)


def speechlike(rate: int, samples: int) -> np.ndarray:
    t = np.arange(samples) / rate
    return 0.3 * np.sin(2 * np.pi * 200 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * t))


def convert(folder: Path, wave: np.ndarray, rate: int, settings: ConversionSettings = QUIET, **options: object):  # type: ignore[no-untyped-def]
    source, target = folder / "in.wav", folder / "out.wav"
    if not source.exists():  # a source written again is another one to a workspace
        sf.write(source, wave, rate, "FLOAT", format="W64")  # a WAV of floats would hold the time of day
    backend = options.pop("backend", NumpyBackend())
    voice = options.pop("voice", fake_voice())
    converter = Converter(backend, scratch=folder / "scratch")  # type: ignore[arg-type]
    report = converter.convert(source, target, voice=voice, settings=settings, **options)  # type: ignore[arg-type]
    out, rate_out = sf.read(target, dtype="float32")
    return out, rate_out, report


def random_length_s(rng: np.random.Generator, seed: int) -> float:
    """Return 10 ms to 5 minutes, evenly over the orders of magnitude; nine of ten files have 3 s at most."""
    if seed < 2:
        return (0.01, 300.0)[seed]
    return float(np.exp(rng.uniform(np.log(0.01), np.log(300.0 if seed % 10 == 0 else 3.0))))


@pytest.mark.parametrize("seed", range(200))
def test_output_length_is_exact_for_random_lengths_and_rates(tmp_path: Path, seed: int) -> None:
    """The arithmetic of frames, segments, tiles and resampling is the real one; the networks are not.

    With networks two hundred files would take an hour. tests/exactness/test_lengths.py has a few of them.
    """
    rng = np.random.default_rng(seed)
    rate = int(rng.choice([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]))
    samples = max(round(random_length_s(rng, seed) * rate), 1)
    voice = fake_voice(int(rng.choice([32_000, 40_000, 48_000])), has_f0=bool(seed % 4))
    settings = QUIET.with_changes(resample_rate=int(rng.choice([0, 44_100])))
    out, rate_out, report = convert(tmp_path, speechlike(rate, samples), rate, settings, voice=voice)
    assert out.size == report.samples_out == round(samples * rate_out / rate)
    assert report.samples_in == samples


def test_the_networks_see_few_shapes_however_many_lengths_there_are(tmp_path: Path) -> None:
    backend = NumpyBackend()
    for number, seconds in enumerate(np.geomspace(0.05, 90, 25)):
        folder = tmp_path / str(number)
        folder.mkdir()
        convert(folder, speechlike(8_000, round(seconds * 8_000)), 8_000, backend=backend)
    shapes = {*backend.decoded, *(x.frames for x in backend.seen)}
    assert shapes <= {few_lengths(n) for n in range(1, 5_400)}
    assert all(x.valid <= x.frames for x in backend.seen)
    assert len(backend.seen) > 25


def test_a_long_file_is_cut_and_stays_exact_and_continuous(tmp_path: Path) -> None:
    rate = 16_000
    out, rate_out, report = convert(
        tmp_path, speechlike(rate, 90 * rate + 37), rate, QUIET.with_changes(source_noise_scale=0.0, noise_scale=0.0)
    )
    assert report.segments == 3
    assert out.size == round((90 * rate + 37) * rate_out / rate)
    # the fake voice hums a constant f0: a jump of the phase at a seam would be a step far above this slope
    assert np.abs(np.diff(out[1_000:])).max() < 0.02


def test_analysis_knows_the_borders_of_the_conversion(tmp_path: Path) -> None:
    cuts: list[int] = []

    def inspect(name: str, array: np.ndarray) -> None:
        cuts.extend(map(int, array) if name == "split" else ())

    _, _, report = convert(tmp_path, speechlike(16_000, 90 * 16_000), 16_000, inspect=inspect)
    converter = Converter(NumpyBackend(), scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    found = converter.analyse(tmp_path / "in.wav", dialect_named("rvc-2023"))
    assert len(found.borders_s) == report.segments - 1 == 2
    assert found.borders_s == tuple(cut // 160 * 160 / 16_000 for cut in cuts)
    assert found.pitch.frames == 1 + 90 * 100


def test_upstream_seams_keep_upstreams_shorter_length(tmp_path: Path) -> None:
    out, _, _ = convert(tmp_path, speechlike(16_000, 32_000), 16_000, QUIET.with_changes(seams="upstream"))
    assert 2 * 40_000 - 1_200 <= out.size < 2 * 40_000


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    wave = speechlike(16_000, 20_000)
    first, _, _ = convert(tmp_path, wave, 16_000)
    second, _, _ = convert(tmp_path, wave, 16_000)
    other, _, _ = convert(tmp_path, wave, 16_000, QUIET.with_changes(seed=1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_digital_silence_comes_out_at_exact_length(tmp_path: Path) -> None:
    settings = ConversionSettings(index_rate=0.0, output_format="wav32f", noise_scale=0.0)
    out, _, _ = convert(tmp_path, np.zeros(24_000), 24_000, settings)
    assert out.size == 40_000
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e-3


def test_an_output_that_is_not_finite_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputInvalid, match="not finite"):
        convert(tmp_path, speechlike(16_000, 16_000), 16_000, backend=NumpyBackend(level=float("nan")))
    assert not (tmp_path / "out.wav").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_stopping_at_a_segment_border_leaves_nothing_behind(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def stop_at_second_segment(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "synth" and progress.seconds_done > 0:
            raise Stopped

    with pytest.raises(Stopped):
        convert(tmp_path, speechlike(8_000, 8_000 * 60), 8_000, progress=stop_at_second_segment)
    assert [(p.stage, p.stage_share) for p in seen] == [
        ("pitch", 0.0),
        ("pitch", 1.0),
        ("synth", 0.0),
        ("synth", pytest.approx(seen[-1].seconds_done / 60)),
    ]
    assert seen[-1].seconds_total == 60
    assert not (tmp_path / "out.wav").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_the_pitch_of_a_long_file_tells_how_far_it_is_and_can_be_stopped(tmp_path: Path) -> None:
    shares: list[float] = []

    def stop_in_the_middle(progress: Progress) -> None:
        assert progress.stage == "pitch"
        shares.append(progress.stage_share)
        if progress.stage_share > 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        convert(tmp_path, speechlike(8_000, 8_000 * 125), 8_000, progress=stop_in_the_middle)
    assert shares == [0.0, pytest.approx(8_192 / 12_701)]


PASSES = QUIET.with_changes(formant_shift=1.2, noise_reduction=0.5)  # slow ones, over the whole file


@pytest.mark.parametrize("stage", ["filter", "encode"])
def test_the_passes_around_the_networks_tell_how_far_they_are(tmp_path: Path, stage: str) -> None:
    seen: list[Progress] = []
    convert(tmp_path, speechlike(8_000, 8_000 * 45), 8_000, PASSES, progress=seen.append)
    shares = [p.stage_share for p in seen if p.stage == stage]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    # pieces of 2 s before; two passes in pieces of 20 s after
    assert np.diff([0.0, *shares]).max() <= {"filter": 2.05 / 45, "encode": 20 / 45 / 2 + 1e-3}[stage]
    assert {p.seconds_total for p in seen} == {45.0}


@pytest.mark.parametrize("stage", ["filter", "encode"])
@pytest.mark.parametrize("after", [0.3, 0.7])
def test_the_passes_around_the_networks_can_be_stopped(tmp_path: Path, stage: str, after: float) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == stage and progress.stage_share > after:
            raise Stopped

    with pytest.raises(Stopped):
        convert(tmp_path, speechlike(8_000, 8_000 * 45), 8_000, PASSES, progress=stop)
    assert not (tmp_path / "out.wav").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_speaker_the_voice_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="speaker_id is 2, voice fake has speakers 0 to 1"):
        convert(tmp_path, speechlike(16_000, 16_000), 16_000, QUIET.with_changes(speaker_id=2))


def test_a_voice_of_another_content_network_is_refused(tmp_path: Path) -> None:
    voice = fake_voice()
    wide = replace(voice, config=replace(voice.config, feature_dim=768))
    with pytest.raises(ModelNotRvc, match="expects content features 768 wide, the content network gives 8"):
        convert(tmp_path, speechlike(16_000, 16_000), 16_000, voice=wide)


def test_a_voice_without_an_index_is_rendered_with_a_warning(tmp_path: Path) -> None:
    _, _, report = convert(tmp_path, speechlike(16_000, 16_000), 16_000, QUIET.with_changes(index_rate=0.75))
    assert report.warnings == ("voice fake has no index: nothing is retrieved",)


def test_loud_output_is_brought_down_to_99_percent(tmp_path: Path) -> None:
    out, _, _ = convert(tmp_path, speechlike(16_000, 16_000), 16_000, backend=NumpyBackend(level=40.0))
    assert np.abs(out).max() == pytest.approx(0.99, rel=1e-6)


@pytest.mark.parametrize(
    ("output_format", "container", "subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("wav24", "WAV", "PCM_24"),
        ("flac", "FLAC", "PCM_16"),
        ("mp3", "MP3", None),
        ("ogg", "OGG", None),
        ("opus", "OGG", "OPUS"),
    ],
)
def test_output_formats(tmp_path: Path, output_format: str, container: str, subtype: str | None) -> None:
    _, rate, report = convert(
        tmp_path, speechlike(16_000, 16_000), 16_000, QUIET.with_changes(output_format=output_format)
    )
    info = sf.info(tmp_path / "out.wav")
    assert info.format == container
    assert subtype in (None, info.subtype)
    assert rate == report.rate_out == {"mp3": 44_100, "opus": 48_000}.get(output_format, 40_000)
    # MP3 adds its encoder padding
    assert info.frames >= report.samples_out - 1


class _KilledError(BaseException):
    """Stands for a process that is gone: nothing of ours catches it."""


def interrupted(folder: Path, wave: np.ndarray, rate: int, after_s: float, **options: object) -> None:
    """Run a conversion with a workspace until `after_s` seconds of its input are done."""

    def stop(progress: Progress) -> None:
        if progress.stage == "synth" and progress.seconds_done >= after_s:
            raise _KilledError

    with pytest.raises(_KilledError):
        convert(folder, wave, rate, workspace=folder / "work", progress=stop, **options)


def test_an_interrupted_conversion_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    rate = 8_000
    wave = speechlike(rate, 116 * rate + 11)
    settings = QUIET.with_changes(rms_mix_rate=0.25)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    convert(tmp_path / "a", wave, rate, settings)
    interrupted(tmp_path / "b", wave, rate, 60, settings=settings)
    # what a killed process had appended beyond its last record must not survive
    with (tmp_path / "b" / "work" / "rendered.f32").open("ab") as file:
        file.write(bytes(4_000))
    backend = NumpyBackend()
    source, target = tmp_path / "b" / "in.wav", tmp_path / "b" / "out.wav"
    converter = Converter(backend, scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    report = converter.convert(source, target, voice=fake_voice(), settings=settings, workspace=tmp_path / "b" / "work")
    assert report.segments == 4
    assert len(backend.seen) == 2
    assert target.read_bytes() == (tmp_path / "a" / "out.wav").read_bytes()
    assert not (tmp_path / "b" / "work").exists()


def test_a_workspace_of_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    interrupted(tmp_path, wave, 8_000, 30)
    backend = NumpyBackend()
    convert(tmp_path, wave, 8_000, QUIET.with_changes(seed=1), workspace=tmp_path / "work", backend=backend)
    assert len(backend.seen) == 2


def test_a_workspace_of_other_networks_is_not_taken_over(tmp_path: Path) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    interrupted(tmp_path, wave, 8_000, 30)
    backend = NumpyBackend()
    backend.networks_sha256 = "1"
    convert(tmp_path, wave, 8_000, workspace=tmp_path / "work", backend=backend)
    assert len(backend.seen) == 2


def test_a_workspace_of_another_precision_is_not_taken_over(tmp_path: Path) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    interrupted(tmp_path, wave, 8_000, 30)
    backend = NumpyBackend()
    backend.precision = Precision("float16")
    _, _, report = convert(tmp_path, wave, 8_000, workspace=tmp_path / "work", backend=backend)
    assert len(backend.seen) == 2
    assert report.precision == "float16"


def source_f0(backend: NumpyBackend, rate: int = 40_000) -> float:
    """Return the frequency that the source of the first segment hums at, in Hz."""
    source = backend.seen[0].source[: rate // 2]
    spectrum = np.abs(np.fft.rfft(source * np.hanning(source.size), 1 << 20))
    return float(spectrum.argmax() * rate / (1 << 20))


MEASURED_HZ = 10 * 2 ** ((1997.3794084376191 + 20 * 180) / 1200)  # of the fake network: 253.6 Hz


def test_pitch_is_shaped_before_the_synthesiser_hears_it(tmp_path: Path) -> None:
    for name, changes, expected in (
        ("plain", {}, MEASURED_HZ),
        ("key", {"auto_key": 155.0}, MEASURED_HZ * 2 ** (-9 / 12)),
        ("both", {"auto_key": 155.0, "transpose": 2.0}, MEASURED_HZ * 2 ** (-7 / 12)),
        ("tune", {"autotune": 1.0, "autotune_scale": "C major", "transpose": 0.7}, 261.626),
        ("half", {"autotune": 0.5}, (MEASURED_HZ * 246.942) ** 0.5),
    ):
        (tmp_path / name).mkdir()
        backend = NumpyBackend()
        _, _, report = convert(
            tmp_path / name, speechlike(16_000, 16_000), 16_000, QUIET.with_changes(**changes), backend=backend
        )
        assert source_f0(backend) == pytest.approx(expected, rel=1e-3), name
        assert report.auto_key == (-9 if "auto_key" in changes else 0), name


def test_the_key_is_one_for_the_file_and_survives_an_interruption(tmp_path: Path) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    settings = QUIET.with_changes(auto_key=155.0)
    whole, _, first = convert(tmp_path, wave, 8_000, settings)
    interrupted(tmp_path, wave, 8_000, 30, settings=settings)
    again, _, report = convert(tmp_path, wave, 8_000, settings, workspace=tmp_path / "work")
    np.testing.assert_array_equal(again, whole)
    assert report.auto_key == first.auto_key == -9


def test_the_key_is_told_when_only_the_encoding_was_left(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "encode":
            raise _KilledError

    wave, settings = speechlike(8_000, 8_000), QUIET.with_changes(auto_key=155.0)
    with pytest.raises(_KilledError):
        convert(tmp_path, wave, 8_000, settings, workspace=tmp_path / "work", progress=stop)
    backend = NumpyBackend()
    _, _, report = convert(tmp_path, wave, 8_000, settings, workspace=tmp_path / "work", backend=backend)
    assert not backend.seen
    assert report.auto_key == -9


def test_an_f0_file_replaces_the_pitch_as_it_is(tmp_path: Path) -> None:
    curve = F0Curve("f0.csv", np.array([0.0, 2.0]), np.array([150.0, 150.0]))
    backend = NumpyBackend()
    settings = QUIET.with_changes(transpose=5.0, autotune=1.0)
    wave = speechlike(16_000, 16_000)
    _, _, report = convert(tmp_path, wave, 16_000, settings, backend=backend, f0=curve)
    source = backend.seen[0].source[40_000:80_000]  # the second that is kept, without its context
    spectrum = np.abs(np.fft.rfft(source * np.hanning(source.size), 1 << 20))
    assert spectrum.argmax() * 40_000 / (1 << 20) == pytest.approx(150.0, rel=1e-3)
    assert report.warnings == ("f0.csv goes on to 2.00 s, the audio ends at 1.00 s: is it the f0 of another file?",)


def test_a_workspace_of_another_f0_file_is_not_taken_over(tmp_path: Path) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    interrupted(tmp_path, wave, 8_000, 30)
    backend = NumpyBackend()
    curve = F0Curve("f0.csv", np.array([0.0, 2.0]), np.array([150.0, 150.0]))
    convert(tmp_path, wave, 8_000, workspace=tmp_path / "work", backend=backend, f0=curve)
    assert len(backend.seen) == 2


def test_an_f0_file_for_a_voice_without_f0_is_refused(tmp_path: Path) -> None:
    curve = F0Curve("f0.csv", np.array([0.0]), np.array([150.0]))
    with pytest.raises(SettingsInvalid, match=r"f0\.csv cannot be used: voice fake has no f0"):
        convert(tmp_path, speechlike(16_000, 16_000), 16_000, voice=fake_voice(has_f0=False), f0=curve)


@pytest.mark.parametrize("method", ["harvest", "pm"])
def test_methods_of_libraries_measure_the_file(tmp_path: Path, method: str) -> None:
    backend = NumpyBackend()
    time = np.arange(24_000) / 16_000
    wave = 0.2 * sum(np.sin(2 * np.pi * 200 * k * time) / k for k in range(1, 6))
    convert(tmp_path, wave, 16_000, QUIET.with_changes(pitch_method=method), backend=backend)
    source = backend.seen[0].source[45_000:95_000]
    spectrum = np.abs(np.fft.rfft(source * np.hanning(source.size), 1 << 20))
    assert spectrum.argmax() * 40_000 / (1 << 20) == pytest.approx(200.0, rel=2e-3)


def test_a_method_without_its_network_is_refused_and_another_network_is_another_conversion(tmp_path: Path) -> None:
    settings = QUIET.with_changes(pitch_method="fcpe")
    with pytest.raises(ModelMissing, match="no network for the pitch method fcpe"):
        convert(tmp_path, speechlike(16_000, 16_000), 16_000, settings)

    class Backend(NumpyBackend):
        def load_pitch(self, method: str, checkpoint: Path) -> str:
            return f"{method} {checkpoint}"

    backend = Backend()
    keys = []
    for name in ("a", "a", "b"):
        converter = Converter(
            backend, scratch=tmp_path, pitch_network=lambda method, name=name: Path(f"{method}-{name}")
        )  # type: ignore[arg-type, misc]
        keys.append(converter._prepare_pitch(PitchChoice("fcpe+rmvpe")))
    assert keys == ["fcpe fcpe-a", "fcpe fcpe-a", "fcpe fcpe-b"]


def test_a_missing_library_is_said_before_the_audio_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(ExtraMissing, match="pitch method harvest needs pyworld-prebuilt"):
        convert(tmp_path, np.zeros(0), 16_000, QUIET.with_changes(pitch_method="harvest"))
    with pytest.raises(InputNoAudio):  # nobody asks for the f0 of a voice without any
        convert(
            tmp_path, np.zeros(0), 16_000, QUIET.with_changes(pitch_method="harvest"), voice=fake_voice(has_f0=False)
        )


def test_a_replaced_index_is_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_index(tmp_path / "a.index", rng.standard_normal((50, 8)).astype(np.float32))
    converter = Converter(NumpyBackend(), scratch=tmp_path)  # type: ignore[arg-type]
    voice = fake_voice(index=path)
    first = converter.index_for(voice)
    assert first is not None
    assert converter.index_for(voice) is first
    write_index(path, rng.standard_normal((60, 8)).astype(np.float32))
    second = converter.index_for(voice)
    assert second is not None
    assert second.count == 60


@pytest.mark.parametrize(("device", "frames"), [("cpu", 100), ("gpu", 300)])  # a GPU plans for the shape of a tile
def test_warm_up_meets_what_a_job_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, frames: int
) -> None:
    path = write_index(tmp_path / "a.index", np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32))
    reads: list[Path] = []
    monkeypatch.setattr(converter_module, "FeatureIndex", lambda p: reads.append(p) or FeatureIndex(p))
    backend = NumpyBackend()
    backend.device = device
    scratch = tmp_path / "scratch"
    converter = Converter(backend, scratch=scratch, sizes=WorkSizes(tile_frames=300))  # type: ignore[arg-type]
    voice = fake_voice(index=path)
    converter.warm_up(voice, RVC_2023)
    assert backend.voice is voice
    assert [round(x.valid - 200, -1) for x in backend.seen] == [frames]  # with a second of context on each side
    assert not list(scratch.iterdir())
    sf.write(tmp_path / "in.wav", speechlike(8_000, 8_000), 8_000)
    converter.convert(tmp_path / "in.wav", tmp_path / "out.wav", voice=voice, settings=ConversionSettings())
    assert reads == [path]


@pytest.mark.parametrize(
    "damage", ["record.json", "rendered.f32", "energies.f64", "signal.f32", "envelope.npy", "levels.npy"]
)
def test_a_damaged_workspace_costs_time_and_nothing_else(tmp_path: Path, damage: str) -> None:
    wave = speechlike(8_000, 8_000 * 60)
    whole, _, _ = convert(tmp_path, wave, 8_000)
    interrupted(tmp_path, wave, 8_000, 30)
    if damage in ("signal.f32", "envelope.npy", "levels.npy"):
        (tmp_path / "work" / damage).unlink()
    else:
        (tmp_path / "work" / damage).write_bytes(b"{")
    again, _, _ = convert(tmp_path, wave, 8_000, workspace=tmp_path / "work")
    np.testing.assert_array_equal(again, whole)


def test_tile_sizes_do_not_change_what_comes_out(tmp_path: Path) -> None:
    wave = speechlike(16_000, 16_000 * 5)
    whole, _, _ = convert(tmp_path, wave, 16_000)
    source, target = tmp_path / "in.wav", tmp_path / "tiled.wav"
    converter = Converter(NumpyBackend(), scratch=tmp_path, sizes=WorkSizes(tile_frames=37))  # type: ignore[arg-type]
    converter.convert(source, target, voice=fake_voice(), settings=QUIET)
    np.testing.assert_array_equal(sf.read(target, dtype="float32")[0], whole)
