"""Converter: the main path of one file, from audio to audio. Orchestration only.

    decode → high-pass → cut → pitch → for each segment: content → retrieve → align → prior → flow → generator
           → loudness → peak → encode

Every numerical step lives in the file named after it; what the networks do is behind `Backend`.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine import excitation, loudness, pitch
from rvc_batch.engine.audio_io import decode_to_scratch
from rvc_batch.engine.backend import Backend, peak_rss
from rvc_batch.engine.dialect import Dialect, dialect_named
from rvc_batch.engine.excitation import HarmonicPhase
from rvc_batch.engine.features import align
from rvc_batch.engine.filters import ScratchSignal, highpass_to_file
from rvc_batch.engine.finishing import Rendering, encode, finish, source_envelope
from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.pitch_windows import salience_blocks
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.segments import find_cuts, plan_segments, segment_frames, upstream_frames
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import synthesis_halo, tiles
from rvc_batch.engine.types import (
    F32,
    F64,
    I64,
    AudioInfo,
    ContentFeatures,
    ConversionReport,
    PitchTrack,
    Segment,
    StageClock,
    SynthesisInputs,
)
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import SettingsInvalid
from rvc_batch.version import __version__

MIN_SAMPLES = 2 * HOP_16K  # shorter inputs are padded with silence and trimmed back
V2_LAYER = 12
RESIDENT_INDEXES = 4
TILE_FRAMES = 1_000  # 10 s; bounds the memory of the generator, never changes what comes out


@dataclass(frozen=True)
class Progress:
    """How far a conversion is, in seconds of its input."""

    stage: str
    seconds_done: float
    seconds_total: float


Inspect = Callable[[str, F32 | I64], None]


class Converter:
    """Converts files with one backend; keeps a few indexes warm between calls."""

    def __init__(self, backend: Backend, *, scratch: Path, tile_frames: int = TILE_FRAMES) -> None:
        """Use `backend`, put temporary files below `scratch`, synthesise `tile_frames` frames at once."""
        self.backend = backend
        self.tile_frames = tile_frames
        self._scratch = scratch
        self._indexes: dict[Path, FeatureIndex] = {}

    def convert(
        self,
        source: Path,
        target: Path,
        *,
        voice: Voice,
        settings: ConversionSettings,
        rules: Dialect | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        inspect: Inspect = lambda _name, _array: None,
    ) -> ConversionReport:
        """Convert one file; `target` is complete when this returns and absent when it raises.

        Args:
            rules: stand in for those of `settings.dialect`; parity reports use other windows.
            progress: called at every segment border; may raise to stop the conversion.
            inspect: called with named intermediate arrays, for parity reports.

        Raises:
            InputError, ModelError, EnvironmentFault, OutputInvalid, SettingsInvalid; whatever `progress` raises.
        """
        if settings.speaker_id >= voice.config.n_speakers:
            raise SettingsInvalid(
                f"speaker_id is {settings.speaker_id}, voice {voice.name} has speakers 0 to "
                f"{voice.config.n_speakers - 1}"
            )
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="convert-", dir=self._scratch))
        try:
            rules = rules or dialect_named(settings.dialect)
            return _Conversion(self, folder, voice, settings, rules, progress, inspect).run(source, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.backend.release()

    def index_for(self, voice: Voice) -> FeatureIndex | None:
        """Return the voice's index, kept warm; None when it has none."""
        if voice.index is None:
            return None
        index = self._indexes.pop(voice.index, None) or FeatureIndex(voice.index)
        self._indexes[voice.index] = index
        while len(self._indexes) > RESIDENT_INDEXES:
            self._indexes.pop(next(iter(self._indexes)))
        return index

    def pitch_of_file(self, source: Path, dialect: Dialect) -> PitchTrack:
        """Return f0 of an audio file, [1 + N // 160] frames of 10 ms, context removed.

        Raises:
            InputError: see `decode_to_scratch`.
        """
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pitch-", dir=self._scratch) as name:
            folder = Path(name)
            decoded = decode_to_scratch(source, folder / "decoded.f64", MIN_SAMPLES)
            gain = loudness.input_gain(decoded.info.peak)
            signal = highpass_to_file(decoded.signal, folder / "filtered.f64", gain)
            track = self.track_pitch(signal, dialect)
        context = dialect.pad // HOP_16K
        return track.cut(context, context + 1 + signal.samples // HOP_16K)

    def track_pitch(self, signal: ScratchSignal, dialect: Dialect) -> PitchTrack:
        """Return f0 of the signal with one pad of reflection on both sides."""
        blocks = salience_blocks(self.backend, _Padded(signal, dialect.pad), dialect.mel_padding)
        return PitchTrack(np.concatenate([pitch.decode_salience(block).f0 for block in blocks]))


@dataclass(frozen=True)
class _Padded:
    """A signal with its reflected context, positions counted from the start of the context."""

    signal: ScratchSignal
    pad: int

    @property
    def samples(self) -> int:
        return self.signal.samples + 2 * self.pad

    def read(self, start: int, stop: int) -> F64:
        return self.signal.read(start - self.pad, stop - self.pad)


class _Conversion:
    """One run of the main path; its steps share what the run is about."""

    def __init__(
        self,
        converter: Converter,
        folder: Path,
        voice: Voice,
        settings: ConversionSettings,
        dialect: Dialect,
        progress: Callable[[Progress], None],
        inspect: Inspect,
    ) -> None:
        self.converter, self.backend = converter, converter.backend
        self.folder, self.voice, self.settings = folder, voice, settings
        self.progress, self.inspect = progress, inspect
        self.dialect = dialect
        self.halo = synthesis_halo(voice.config)
        self.is_exact = settings.seams == "exact"
        self.clock = StageClock()
        self.warnings: list[str] = []

    def run(self, source: Path, target: Path) -> ConversionReport:
        started = time.perf_counter()
        with self._timed("load"):
            self.backend.load_voice(self.voice)
            index = self._index()
        with self._timed("decode"):
            decoded = decode_to_scratch(source, self.folder / "decoded.f64", MIN_SAMPLES)
            self.warnings += decoded.warnings
        with self._timed("filter"):
            gain = loudness.input_gain(decoded.info.peak)
            signal = highpass_to_file(decoded.signal, self.folder / "filtered.f64", gain)
            decoded.signal.remove()
            segments = self._plan(signal)
        self._report("pitch", 0, signal)
        with self._timed("pitch"):
            track = self._pitch(signal) if self.voice.config.has_f0 else None
        rendering = Rendering(self.folder / "rendered.f32", self.voice.sample_rate)
        for segment in segments:
            self._report("synth", segment.start, signal)
            for wave in self._render(segment, signal, index, track):
                rendering.append(wave)
        self._report("encode", signal.samples, signal)
        with self._timed("post"):
            envelope = source_envelope(signal) if self.settings.rms_mix_rate < 1 else None
            length = decoded.info if self.is_exact else None
            finished = finish(rendering, envelope, self.settings, length=length, path=self.folder / "finished.f32")
            self.warnings += finished.warnings
        with self._timed("encode"):
            encode(finished, self.settings, target)
        return self._summary(decoded.info, finished.wave.samples, finished.sample_rate, len(segments), started)

    def _index(self) -> FeatureIndex | None:
        if self.settings.index_rate <= 0:
            return None
        index = self.converter.index_for(self.voice)
        if index is None:
            self.warnings.append(f"voice {self.voice.name} has no index: nothing is retrieved")
        return index

    def _plan(self, signal: ScratchSignal) -> list[Segment]:
        cuts = find_cuts(signal, self.dialect)
        segments = plan_segments(cuts, signal.samples, self.dialect, exact=self.is_exact)
        self.inspect("split", np.array(cuts, np.int64))
        self.inspect("segments", np.array([s.samples for s in segments], np.int64))
        return segments

    def _pitch(self, signal: ScratchSignal) -> PitchTrack:
        track = self.converter.track_pitch(signal, self.dialect)
        if self.dialect.interpolates_f0:
            track = pitch.fill_unvoiced(track)
        track = pitch.transpose(track, self.settings.transpose)
        n_frames = (signal.samples + 2 * self.dialect.pad) // HOP_16K
        self.inspect("pitchf", track.f0[:n_frames])
        self.inspect("pitch", track.coarse()[:n_frames])
        self._phase = HarmonicPhase.of(track, self.voice.sample_rate, self.voice.config.hop_samples)
        return track

    def _render(
        self, segment: Segment, signal: ScratchSignal, index: FeatureIndex | None, track: PitchTrack | None
    ) -> Iterator[F32]:
        """Yield the kept audio of one segment, tile by tile; its context is never synthesised beyond the halo."""
        wave = signal.read(segment.start - segment.left, segment.stop + segment.right).astype(np.float32)
        with self._timed("features"):
            raw = self._content(wave)
        with self._timed("index"):
            mixed = index.blend(raw, self.settings.index_rate) if index else raw
        inputs = self._align(segment, mixed, raw, track)
        if segment.index == 0:
            self.inspect("phone", inputs.content)
        with self._timed("synth"):
            mean, log_std = self.backend.encode_prior(inputs)
            first = segment.start // HOP_16K
            noise = excitation.prior_noise(self.settings.seed, first, *mean.shape)
            scale = self.settings.noise_scale
            latent = excitation.sample_prior(mean, log_std, noise, scale, inputs.mask())
        context = self.dialect.pad // HOP_16K
        hop, size = self.voice.config.hop_samples, self.converter.tile_frames
        for tile in tiles(context, inputs.frames - context, inputs.frames, size, self.halo):
            with self._timed("synth"):
                local = inputs.cut(tile.first, tile.last)
                audio = self.backend.decode(latent[tile.first : tile.last], local)
            yield audio[(tile.keep_first - tile.first) * hop : (tile.keep_last - tile.first) * hop]

    def _content(self, wave: F32) -> ContentFeatures:
        is_v1 = self.voice.config.version == "v1"
        layer = self.dialect.v1_layer if is_v1 else V2_LAYER
        return ContentFeatures(self.backend.content(wave, layer=layer, project=is_v1))

    def _align(
        self, segment: Segment, mixed: ContentFeatures, raw: ContentFeatures, track: PitchTrack | None
    ) -> SynthesisInputs:
        """Bring content and pitch to the same frames, counted from the start of the padded signal."""
        first = segment.start // HOP_16K
        if self.is_exact:
            n_frames = segment_frames(segment)
        else:
            pitch_frames = track.frames - first if track else None
            n_frames = upstream_frames(segment.samples, raw.frames, pitch_frames)
        local = track.cut(first, first + n_frames) if track else None
        return SynthesisInputs(
            content=align(mixed, raw, local, n_frames=n_frames, share=self.settings.protect),
            coarse=local.coarse() if local else np.zeros(0, np.int64),
            source=self._source(local, first) if local else np.zeros(0, np.float32),
            speaker=self.settings.speaker_id,
            valid=n_frames,
        )

    def _source(self, local: PitchTrack, first: int) -> F32:
        """Return the excitation; its phase runs through the file, or restarts here as upstream's does."""
        hop = self.voice.config.hop_samples
        noise = excitation.source_noise(self.settings.seed, first * hop, local.frames * hop)
        if self.is_exact:
            return self._phase.source(first, local.frames, noise, self.settings.source_noise_scale)
        phase = HarmonicPhase.of(local, self.voice.sample_rate, hop)
        return phase.source(0, local.frames, noise, self.settings.source_noise_scale)

    def _summary(
        self, info: AudioInfo, samples_out: int, rate_out: int, n_segments: int, started: float
    ) -> ConversionReport:
        return ConversionReport(
            samples_in=info.frames,
            rate_in=info.sample_rate,
            samples_out=samples_out,
            rate_out=rate_out,
            segments=n_segments,
            stage_seconds=self.clock.seconds,
            wall_seconds=time.perf_counter() - started,
            peak_rss_bytes=peak_rss(),
            peak_device_bytes=self.backend.peak_memory(),
            seed=self.settings.seed,
            dialect=self.dialect.name,
            backend=self.backend.name,
            voice=self.voice.name,
            voice_sha256=self.voice.sha256,
            warnings=tuple(self.warnings),
            versions={"rvc-batch": __version__, "python": platform.python_version()},
        )

    def _report(self, stage: str, samples_done: int, signal: ScratchSignal) -> None:
        self.progress(Progress(stage, samples_done / SAMPLE_RATE_16K, signal.samples / SAMPLE_RATE_16K))

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.clock.add(stage, time.perf_counter() - started)
