"""ConversionSettings: every knob of one conversion, frozen and validated, with a JSON round trip.

It is stored on the job, so a queued job does not change when the configuration does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Self

from rvc_batch.engine.dialect import RVC_2023, dialect_named
from rvc_batch.engine.effects import NO_EFFECTS, parse_effects
from rvc_batch.engine.network_config import PRIOR_NOISE_SCALE
from rvc_batch.engine.pitch_methods import check_threshold, methods_named
from rvc_batch.engine.scales import CHROMATIC, pitch_classes
from rvc_batch.errors import SettingsInvalid

SEAMS = ("exact", "upstream")
CHANNELS = ("mono", "stereo", "mid_side")
# name → (suffix, container, codec) as soundfile calls them; MP4 is PyAV's
OUTPUT_FORMATS: dict[str, tuple[str, str, str]] = {
    "wav": (".wav", "WAV", "PCM_16"),
    "wav24": (".wav", "WAV", "PCM_24"),
    "wav32f": (".wav", "WAV", "FLOAT"),
    "flac": (".flac", "FLAC", "PCM_16"),
    "flac24": (".flac", "FLAC", "PCM_24"),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III"),
    "ogg": (".ogg", "OGG", "VORBIS"),
    "opus": (".opus", "OGG", "OPUS"),
    "m4a": (".m4a", "MP4", "AAC"),
}
SETTINGS_VERSION = 1
AUTO_EMBEDDER = "auto"  # the one that the voice was trained with
EMBEDDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # that of a folder, which it never leaves


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """How one file is converted.

    Defaults are those of the original's user interface, except the noise, which is seeded here.
    """

    transpose: float = 0.0  # semitones, −48…48
    index_rate: float = 0.75  # share of retrieved features, 0…1; 0 = no retrieval
    protect: float = 0.33  # 0…0.5; below 0.5 unvoiced frames keep that share of retrieval
    rms_mix_rate: float = 0.25  # 1 = keep the output's loudness, 0 = copy the source's envelope
    speaker_id: int = 0
    seed: int = 0  # of all noise; 0…2⁶³−1
    noise_scale: float = PRIOR_NOISE_SCALE  # prior noise; 0 = none
    source_noise_scale: float = 1.0  # noise of the excitation; 1 = as published, 0 = none
    dialect: str = RVC_2023.name
    seams: str = "exact"  # "exact": every sample, phase and noise continuous; "upstream": its lengths and restarts
    embedder: str = AUTO_EMBEDDER  # the content network by name; "contentvec" is the one every box has
    pitch_method: str = "rmvpe"
    pitch_threshold: float = 0.0  # of voicing, 0…1; 0 = the method's own
    f0_smoothing: int = 0  # median of so many frames inside voiced runs, odd, 3…31; 0 = off
    auto_key: float = 0.0  # Hz, 50…1200: whole semitones are added that bring the file's median f0 there; 0 = off
    autotune: float = 0.0  # share of the way to the nearest note of the scale, 0…1; 0 = off
    autotune_scale: str = CHROMATIC  # or a note and a kind, such as "C major"
    formant_shift: float = 1.0  # of the input: factor of its formants' frequencies, 0.25…4; 1 = off
    formant_quefrency_ms: float = 1.0  # what is a formant: detail of the envelope, 0.1…16
    resample_rate: int = 0  # Hz; 0 = the voice's own rate, else 16 000…192 000
    output_format: str = "wav"
    channels: str = "mono"  # "mono": the mean of all; "stereo": both converted; "mid_side": the sides as they were
    loudness_lufs: float = 0.0  # integrated loudness of the output, −40…−5; 0 = as it comes
    gate_db: float = 0.0  # silence where the source is below it, −90…−20 dB of full scale; 0 = off
    noise_reduction: float = 0.0  # share of steady noise that is taken out of the output, 0…1; 0 = off
    effects: str = NO_EFFECTS  # a chain, see `effects`

    def __post_init__(self) -> None:
        _within("transpose", self.transpose, -48, 48)
        _within("index_rate", self.index_rate, 0, 1)
        _within("protect", self.protect, 0, 0.5)
        _within("rms_mix_rate", self.rms_mix_rate, 0, 1)
        _within("speaker_id", self.speaker_id, 0, 100_000)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("noise_scale", self.noise_scale, 0, 4)
        _within("source_noise_scale", self.source_noise_scale, 0, 4)
        if self.resample_rate:
            _within("resample_rate", self.resample_rate, 16_000, 192_000)
        dialect_named(self.dialect)
        _one_of("seams", self.seams, SEAMS)
        if not EMBEDDER_NAME.fullmatch(self.embedder):
            raise SettingsInvalid(f"embedder is {self.embedder!r}, expected auto, contentvec, or the name of a folder")
        methods = methods_named(self.pitch_method)
        _within("pitch_threshold", self.pitch_threshold, 0, 1)
        check_threshold(methods, self.pitch_threshold)
        if self.f0_smoothing and not (self.f0_smoothing % 2 and 3 <= self.f0_smoothing <= 31):
            raise SettingsInvalid(f"f0_smoothing is {self.f0_smoothing!r}, expected 0, or an odd number from 3 to 31")
        if self.auto_key:
            _within("auto_key", self.auto_key, 50, 1_200)
        _within("autotune", self.autotune, 0, 1)
        pitch_classes(self.autotune_scale)
        _within("formant_shift", self.formant_shift, 0.25, 4)
        _within("formant_quefrency_ms", self.formant_quefrency_ms, 0.1, 16)
        _one_of("output_format", self.output_format, OUTPUT_FORMATS)
        _one_of("channels", self.channels, CHANNELS)
        if self.channels == "mid_side" and self.seams != "exact":
            raise SettingsInvalid("channels mid_side needs seams exact: the sides would not fit upstream's lengths")
        if self.loudness_lufs:
            _within("loudness_lufs", self.loudness_lufs, -40, -5)
        if self.gate_db:
            _within("gate_db", self.gate_db, -90, -20)
        _within("noise_reduction", self.noise_reduction, 0, 1)
        parse_effects(self.effects)

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with the named fields changed and validated.

        Raises:
            SettingsInvalid: unknown name, wrong type or value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        for name, value in changes.items():
            if name not in fields:
                raise SettingsInvalid(f"unknown setting {name!r}; known: {', '.join(fields)}")
            changes[name] = _typed(name, value, type(getattr(self, name)))
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return one line of JSON that `from_json` reads."""
        return json.dumps({"version": SETTINGS_VERSION, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json` output; fields that are absent keep their defaults."""
        values = json.loads(text)
        if values.pop("version", None) != SETTINGS_VERSION:
            raise SettingsInvalid("the stored settings were written by another version of rvc-batch")
        return cls().with_changes(**values)

    def digest(self) -> str:
        """Return a short hash that is equal for equal settings."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise SettingsInvalid(f"{name} is {value!r} ({type(value).__name__}), expected {kind.__name__}")
    return value


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise SettingsInvalid(f"{name} is {value!r}, expected {low:g} to {high:g}")


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise SettingsInvalid(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
