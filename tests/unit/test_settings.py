"""Conversion settings and the configuration file."""

from pathlib import Path

import pytest

from rvc_batch.config import Home, load_settings, locate_home
from rvc_batch.engine.dialect import DIALECTS
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import HomeInvalid, SettingsInvalid


def test_settings_survive_json() -> None:
    settings = ConversionSettings(transpose=-3.0, seed=7, dialect="applio", output_format="flac")
    assert ConversionSettings.from_json(settings.to_json()) == settings
    assert settings.digest() != ConversionSettings().digest()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"transpose": 49.0}, "transpose is 49.0, expected -48 to 48"),
        ({"index_rate": -0.1}, "index_rate is -0.1, expected 0 to 1"),
        ({"protect": 0.6}, "protect is 0.6, expected 0 to 0.5"),
        ({"rms_mix_rate": float("nan")}, "rms_mix_rate is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"resample_rate": 8_000}, "resample_rate is 8000, expected 16000 to 192000"),
        ({"dialect": "rvc"}, "expected one of rvc-2023, rvc-2026, applio"),
        ({"seams": "soft"}, "expected one of exact, upstream"),
        ({"pitch_method": "magic"}, "pitch_method is 'magic', expected one of rmvpe"),
        ({"pitch_method": "harvest", "pitch_threshold": 0.1}, "harvest decides on voicing without one"),
        ({"pitch_threshold": 1.5}, "pitch_threshold is 1.5, expected 0 to 1"),
        ({"f0_smoothing": 4}, "f0_smoothing is 4, expected 0, or an odd number from 3 to 31"),
        ({"f0_smoothing": 1}, "f0_smoothing is 1"),
        ({"f0_smoothing": 33}, "f0_smoothing is 33"),
        ({"auto_key": 20}, "auto_key is 20.0, expected 50 to 1200"),
        ({"autotune": 1.1}, "autotune is 1.1, expected 0 to 1"),
        ({"formant_shift": 0}, "formant_shift is 0"),
        ({"formant_quefrency_ms": 17}, "formant_quefrency_ms is 17"),
        ({"autotune_scale": "C moll"}, "autotune_scale is 'C moll', expected 'chromatic', or a note"),
        ({"output_format": "aiff"}, "expected one of wav"),
        ({"speaker_id": "zero"}, "speaker_id is 'zero' .str., expected int"),
        ({"speaker_id": True}, "speaker_id is True .bool., expected int"),
        ({"colour": 1}, "unknown setting 'colour'; known: transpose"),
    ],
)
def test_bad_values_are_refused_with_what_was_expected(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsInvalid, match=sentence):
        ConversionSettings().with_changes(**change)


def test_shaping_of_pitch_is_off_unless_asked_for() -> None:
    settings = ConversionSettings(pitch_method="pm", pitch_threshold=0.5, f0_smoothing=31, auto_key=155.0)
    assert ConversionSettings.from_json(settings.to_json()) == settings
    before = '{"version": 1, "transpose": 2.0}'  # a job from before these settings
    assert ConversionSettings.from_json(before) == ConversionSettings(transpose=2.0)


def test_integers_are_taken_for_floats() -> None:
    assert ConversionSettings().with_changes(transpose=5).transpose == 5.0


def test_dialects_are_the_three_published_ones() -> None:
    assert set(DIALECTS) == {"rvc-2023", "rvc-2026", "applio"}
    assert DIALECTS["rvc-2026"].interpolates_f0
    assert not DIALECTS["rvc-2023"].interpolates_f0


def test_file_then_environment(tmp_path: Path) -> None:
    (tmp_path / "rvc-batch.toml").write_text(
        'default_voice = "anna"\n[watch]\nsettle_seconds = 1.5\n[conversion]\ntranspose = 3\n'
    )
    environment = {"RVC_BATCH_WATCH__SETTLE_SECONDS": "0.5", "RVC_BATCH_WORKER__BACKEND": "torch"}
    settings = load_settings(Home(tmp_path), environment)
    assert settings.default_voice == "anna"
    assert settings.watch.settle_seconds == 0.5
    assert settings.worker.backend == "torch"
    assert settings.conversion_settings().transpose == 3.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("default_voice = \n", "rvc-batch.toml: .*line 1"),
        ("\n[watch]\nsettle = 3\n", r"rvc-batch.toml:3: watch.settle: Extra inputs"),
        ("[watch]\nsettle_seconds = -1\n", r"rvc-batch.toml:2: watch.settle_seconds: .*greater than 0"),
        ('[worker]\nbackend = "tpu"\n', r"rvc-batch.toml:2: worker.backend: .*mlx, torch"),
        ('[worker]\nprecision = "half"\n', r"rvc-batch.toml:2: worker.precision: .*float32, float16, bfloat16"),
        ("[worker]\nquantize_bits = 5\n", r"rvc-batch.toml:2: worker.quantize_bits: .*0, 8, 4"),
        (
            '[worker]\nbackend = "torch"\nprecision = "float16"\n',
            "worker: .*torch backend .* float16",
        ),
        ("[conversion]\nprotect = 3\n", "conversion: protect is 3.0, expected 0 to 0.5"),
    ],
)
def test_mistakes_in_the_file_name_file_line_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "rvc-batch.toml").write_text(text)
    with pytest.raises(SettingsInvalid, match=sentence):
        load_settings(Home(tmp_path), {})


def test_a_memory_limit_is_a_size_or_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert load_settings(home, {}).worker.memory_limit_bytes() is None
    home.config_file.write_text('[worker]\nmemory_limit = "1500 MB"\n')
    assert load_settings(home, {}).worker.memory_limit_bytes() == 1_500_000_000
    home.config_file.write_text('[worker]\nmemory_limit = "much"\n')
    with pytest.raises(SettingsInvalid, match=r":2: worker\.memory_limit: .*such as '1500 MB' or '2 GB'"):
        load_settings(home, {})


def test_home_is_the_option_then_the_environment_then_the_checkout(tmp_path: Path) -> None:
    assert locate_home(tmp_path, {"RVC_BATCH_HOME": "/elsewhere"}).root == tmp_path
    assert locate_home(None, {"RVC_BATCH_HOME": str(tmp_path)}).root == tmp_path
    assert (locate_home(None, {}).root / "pyproject.toml").is_file()


def test_home_creates_its_folders_or_says_which_it_cannot(tmp_path: Path) -> None:
    Home(tmp_path / "box").create()
    assert {p.name for p in (tmp_path / "box").iterdir()} == {
        "inbox",
        "outbox",
        "processed",
        "recipes",
        "failed",
        "models",
        "voices",
        "state",
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeInvalid, match=r"cannot create .*file/inbox"):
        Home(tmp_path / "file").create()
