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
DialectName = Annotated[str | None, Option("--dialect", help="rvc-2023, rvc-2026 or applio.")]
Seams = Annotated[str | None, Option(help="exact, or upstream (its lengths and restarts).")]
ResampleRate = Annotated[int | None, Option(help="Output rate in Hz; 0 = the voice's own.")]
OutputFormat = Annotated[str | None, Option("--format", help="wav, wav24, wav32f, flac, flac24, mp3, ogg, opus, m4a.")]
Channels = Annotated[str | None, Option(help="mono, stereo or mid_side.")]
LoudnessLufs = Annotated[float | None, Option(help="Integrated loudness of the output, -40 to -5; 0 = as it comes.")]
GateDb = Annotated[float | None, Option(help="Silence where the source is below it, -90 to -20 dB; 0 = off.")]
Effects = Annotated[str | None, Option(help="none, or a chain such as 'reverb(wet_level=0.2)' (docs/audio.md).")]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]
