"""The chain of effects: how it is read, and that it changes neither length nor "same seed, same bytes"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pedalboard
import pytest
import soundfile as sf

from rvc_batch.engine import effects
from rvc_batch.engine.effects import EFFECTS, Effect, EffectChain, parse_effects
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import ExtraMissing, SettingsInvalid
from tests.unit.test_converter import QUIET, convert, speechlike

CHAIN = "compressor(threshold_db=-30, ratio=4), reverb(room_size=0.3, wet_level=0.2)"
GUIDE = (Path(__file__).parents[2] / "docs" / "audio.md").read_text(encoding="utf-8")


def test_a_chain_is_read_as_it_is_written() -> None:
    assert parse_effects("none") == ()
    assert parse_effects(CHAIN) == (
        Effect("compressor", (("threshold_db", -30.0), ("ratio", 4.0))),
        Effect("reverb", (("room_size", 0.3), ("wet_level", 0.2))),
    )
    assert ConversionSettings.from_json(ConversionSettings(effects=CHAIN).to_json()).effects == CHAIN


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected none or a chain such as"),
        ("reverb(", "expected a chain such as"),
        ("a]+[b", "expected none or a chain"),
        ("reverb", "expected links like"),
        ("reverb(1)", "expected links like"),
        ("os.system(a=1)", "expected links like"),
        ("echo()", "effects has 'echo', known: reverb, delay"),
        ("reverb(wet=1)", "reverb has no 'wet', known: room_size"),
        ("reverb(wet_level=2)", "wet_level of reverb is 2, expected 0 to 1"),
        ("reverb(wet_level=1e999)", "wet_level of reverb is 1e"),
        ("reverb(wet_level=True)", "wet_level of reverb is True"),
        ("reverb(wet_level=print(1))", r"wet_level of reverb is print\(1\)"),
        ("reverb(), " * 60, "500 at most"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_never_run(text: str, sentence: str) -> None:
    with pytest.raises(SettingsInvalid, match=sentence):
        ConversionSettings(effects=text)


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_block_by_block_is_the_effect_on_the_whole(name: str) -> None:
    kind, ranges = EFFECTS[name]
    parameters = tuple((p, low + (high - low) / 3) for p, (low, high) in ranges.items())
    wave = 0.1 * np.random.default_rng(0).standard_normal((48_000, 2)).astype(np.float32)
    chain = EffectChain((Effect(name, parameters),), 48_000)
    pieces = np.concatenate([chain.apply(wave[at : at + 7_777]) for at in range(0, len(wave), 7_777)])
    whole = getattr(pedalboard, kind)(**dict(parameters))(wave.T, 48_000).T
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(pieces, whole)
    shown = ", ".join(f"`{p}` {low:g} to {high:g}" for p, (low, high) in ranges.items())
    assert f"\n| `{name}` | {shown} |\n" in GUIDE


def test_a_converted_file_has_its_effects_its_length_and_the_same_bytes(tmp_path: Path) -> None:
    wave = np.stack([speechlike(8_000, 24_000), 0.5 * speechlike(8_000, 24_000)[::-1]], axis=1)
    settings = QUIET.with_changes(channels="mid_side", output_format="wav24")
    plain, _, _ = convert(tmp_path, wave, 8_000, settings)
    found = []
    for _ in range(2):
        out, rate, _ = convert(tmp_path, wave, 8_000, settings.with_changes(effects=CHAIN))
        found.append((tmp_path / "out.wav").read_bytes())
    assert found[0] == found[1]
    assert out.shape == plain.shape == (3 * rate, 2)
    chain = pedalboard.Pedalboard([pedalboard.Compressor(-30, 4), pedalboard.Reverb(room_size=0.3, wet_level=0.2)])
    np.testing.assert_allclose(out, chain(plain.T, rate).T, atol=1e-6)
    assert sf.info(tmp_path / "out.wav").subtype == "PCM_24"


def test_without_pedalboard_a_chain_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects.importlib.util, "find_spec", lambda _: None)
    convert(tmp_path, speechlike(8_000, 8_000), 8_000)
    with pytest.raises(ExtraMissing, match="effects need Pedalboard: pip install pedalboard"):
        convert(tmp_path, speechlike(8_000, 8_000), 8_000, QUIET.with_changes(effects=CHAIN))
