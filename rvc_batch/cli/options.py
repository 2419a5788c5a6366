"""Options that several commands share: one per conversion setting. None means: as configured."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Transpose = Annotated[float | None, Option(help="Semitones.")]
IndexRate = Annotated[float | None, Option(help="Share of retrieved features, 0 to 1.")]
Protect = Annotated[float | None, Option(help="Protection of unvoiced frames, 0 to 0.5 (0.5 = off).")]
RmsMixRate = Annotated[float | None, Option(help="Loudness: 1 keeps the output's, 0 copies the source's.")]
SpeakerId = Annotated[int | None, Option(help="Speaker of a voice that has several.")]
Seed = Annotated[int | None, Option(help="Seed of all noise.")]
NoiseScale = Annotated[float | None, Option(help="Noise of the prior; 0.66666 as published.")]
SourceNoiseScale = Annotated[float | None, Option(help="Noise of the excitation; 1 as published, 0 = none.")]
DialectName = Annotated[str | None, Option("--dialect", help="rvc-2023, rvc-2026 or applio.")]
Seams = Annotated[str | None, Option(help="exact, or upstream (its lengths and restarts).")]
ResampleRate = Annotated[int | None, Option(help="Output rate in Hz; 0 = the voice's own.")]
OutputFormat = Annotated[str | None, Option("--format", help="wav, wav24, wav32f, flac, flac24, mp3, ogg, opus, m4a.")]
Channels = Annotated[str | None, Option(help="mono, stereo or mid_side.")]
LoudnessLufs = Annotated[float | None, Option(help="Integrated loudness of the output, -40 to -5; 0 = as it comes.")]
GateDb = Annotated[float | None, Option(help="Silence where the source is below it, -90 to -20 dB; 0 = off.")]
Effects = Annotated[str | None, Option(help="none, or a chain such as 'reverb(wet_level=0.2)' (docs/audio.md).")]
PitchMethodName = Annotated[
    str | None,
    Option("--pitch-method", help="What measures f0: rmvpe, fcpe, crepe, crepe-tiny, harvest, pm, or rmvpe+fcpe."),
]
PitchThreshold = Annotated[float | None, Option(help="Threshold of voicing, 0 to 1; 0 = that of the method.")]
F0Smoothing = Annotated[int | None, Option(help="Median of so many frames of f0, odd, 3 to 31; 0 = off.")]
AutoKey = Annotated[float | None, Option(help="Bring the median f0 near so many Hz, 50 to 1200; 0 = off.")]
Autotune = Annotated[float | None, Option(help="Snap f0 to the scale, 0 to 1; 0 = off.")]
AutotuneScale = Annotated[str | None, Option(help="chromatic, or such as 'C major', 'F# minor', 'A minor pentatonic'.")]
FormantShift = Annotated[float | None, Option(help="Factor for the formants of the input, 0.25 to 4; 1 = off.")]
FormantQuefrency = Annotated[float | None, Option(help="Detail of what counts as formants, 0.1 to 16 ms.")]
NoiseReduction = Annotated[float | None, Option(help="Share of steady noise taken out of the output, 0 to 1; 0 = off.")]
Embedder = Annotated[str | None, Option(help="Content network: auto, contentvec, or a name in models/embedders/.")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]
