"""The main path of one file, from audio to audio. Orchestration only.

    decode → high-pass → cut → pitch → for each segment: content → retrieve → align → prior → flow → generator
           → loudness → peak → encode

Every numerical step lives in the file named after it; what the networks do is behind `Backend`. At every segment
border the work so far is recorded, so that an interrupted conversion goes on where it was.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvc_batch.engine import excitation, loudness
from rvc_batch.engine.audio_io import decode_to_scratch
from rvc_batch.engine.backend import Backend
from rvc_batch.engine.checkpointing import Workspace
from rvc_batch.engine.decoding import side
from rvc_batch.engine.dialect import Dialect
from rvc_batch.engine.excitation import HarmonicPhase
from rvc_batch.engine.f0_file import F0Curve
from rvc_batch.engine.feature_cache import FeatureCache, feature_key
from rvc_batch.engine.features import align
from rvc_batch.engine.filters import ScratchSignal
from rvc_batch.engine.finishing import Finished, Sides, encode, find_level
from rvc_batch.engine.formants import FormantShift
from rvc_batch.engine.gate import Gate
from rvc_batch.engine.lanes import Lane, Lanes
from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.pitch_methods import PitchChoice
from rvc_batch.engine.pitch_shaping import shape_pitch
from rvc_batch.engine.pitch_tracking import track_pitch
from rvc_batch.engine.preparation import Prepared
from rvc_batch.engine.provenance import Provenance
from rvc_batch.engine.resident_size import ResidentPeak
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.segments import plan_segments, segment_frames, upstream_frames
from rvc_batch.engine.space import check_space
from rvc_batch.engine.tiling import few_lengths, synthesis_halo, synthesis_tiles
from rvc_batch.engine.types import (
    F32,
    F64,
    I64,
    AudioInfo,
    ContentFeatures,
    ConversionReport,
    NoiseOrigin,
    PitchTrack,
    Segment,
    StageClock,
    SynthesisInputs,
)
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import InputChannels, ModelNotRvc
from rvc_batch.version import __version__

logger = logging.getLogger(__name__)

V2_LAYER = 12
SPARE_CURVE_S = 0.1  # an f0 file may be so much longer than the audio without a warning


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: seconds of the input that are rendered, and the part of the present stage that is done.

    stage_share: 0–1; stages before and after the rendering move it while `seconds_done` stands still.
    """

    stage: str
    seconds_done: float
    seconds_total: float
    stage_share: float


Inspect = Callable[[str, F32 | I64], None]


@dataclass(frozen=True)
class Request:
    """What one conversion is about.

    rules: those of `settings.dialect`, or variants of them with other windows. key: see `checkpointing`.
    provenance: names the settings, among all else that the tags of the result say. f0: a curve that replaces what is
    measured, where it has rows. features: keeps what the networks say of the audio alone.
    """

    voice: Voice
    rules: Dialect
    provenance: Provenance
    key: str
    progress: Callable[[Progress], None]
    inspect: Inspect | None
    f0: F0Curve | None = None
    features: FeatureCache | None = None


class Conversion:
    """One run of the main path; its steps share what the run is about."""

    def __init__(self, backend: Backend, index: FeatureIndex | None, workspace: Workspace, request: Request) -> None:
        self.backend, self.index, self.workspace = backend, index, workspace
        self.request, self.voice, self.rules = request, request.voice, request.rules
        self.settings, self.sizes = request.provenance.settings, request.provenance.sizes
        self.progress = request.progress
        self.is_exact = self.settings.seams == "exact"
        self.halo = synthesis_halo(self.voice.config)
        self.clock = StageClock()
        self.resident = ResidentPeak()
        self.auto_key = 0
        self.reused: list[str] = []

    def run(self, source: Path, target: Path) -> ConversionReport:
        """Convert `source` into `target`; see `Converter.convert`."""
        started = time.perf_counter()
        self.backend.peak_memory()  # what came before is not ours
        with self.clock.timed("load"):
            self.backend.load_voice(self.voice)
        opening = Lanes(
            source,
            self.request.key,
            self.voice.sample_rate,
            self.rules,
            self.clock,
            check=lambda info: self._check(info, target),
            formants=FormantShift(self.settings.formant_shift, self.settings.formant_quefrency_ms),
            progress=lambda share, seconds: self.progress(Progress("filter", 0.0, seconds, share)),
        )
        whole = opening.whole(self.workspace)
        prepared = whole.prepared
        segments = plan_segments(prepared.cuts, prepared.signal.samples, self.rules, exact=self.is_exact)
        if self.request.inspect is not None:
            self.request.inspect("split", np.array(prepared.cuts, np.int64))
            self.request.inspect("segments", np.array([s.samples for s in segments], np.int64))
        is_stereo = self.settings.channels == "stereo" and prepared.info.channels == 2
        lanes = opening.channels(whole) if is_stereo else [whole]
        self.auto_key = lanes[-1].auto_key
        if any(lane.done < len(segments) for lane in lanes):
            track = self._pitch(prepared) if self.voice.config.has_f0 else None
            for number, lane in enumerate(lanes):
                for segment in segments[lane.done :]:
                    at = (number * prepared.signal.samples + segment.start) // len(lanes)
                    self._report("synth", at, prepared)
                    for wave in self._render(segment, lane.prepared.signal, track):
                        lane.rendering.append(wave)
                        self.resident.look()
                    self.backend.release()
                    lane.save(self.request.key, segment.index + 1, self.auto_key)
                lane.prepared.signal.remove()  # the rendering is all that is needed now

        def report_end(share: float) -> None:
            self._report("encode", prepared.signal.samples, prepared, share=share)

        report_end(0.0)
        with self.clock.timed("post"):
            finished = self._finished(source, whole, lanes)
            level = find_level(finished, self.settings.loudness_lufs, lambda share: report_end(share / 2))
        with self.clock.timed("encode"):
            encode(finished, level.gain, self.request.provenance, target, lambda share: report_end((1 + share) / 2))
        warnings = (*prepared.warnings, *finished.warnings, *level.warnings)
        return self._summary(prepared, finished, warnings, len(segments), started)

    def _check(self, info: AudioInfo, target: Path) -> None:
        """Refuse what cannot be rendered, before it is."""
        wanted, rendered = self.settings.channels, self.voice.sample_rate
        if wanted != "mono" and info.channels > 2:
            raise InputChannels(
                f"the source has {info.channels} channels, and channels = {wanted} keeps two at most; use mono, or mix "
                "it down to two first"
            )
        check_space(
            target,
            self.workspace.folder,
            seconds=info.seconds,
            rates=(rendered, self.settings.resample_rate or rendered),
            channels=1 if wanted == "mono" else info.channels,
            output_format=self.settings.output_format,
        )

    def _pitch(self, prepared: Prepared) -> PitchTrack:
        """Return f0 of the whole input as the voice is to have it; what was measured is kept beside the input."""
        samples = prepared.signal.samples
        context = self.rules.pad // HOP_16K
        shaped = shape_pitch(
            self._measured_pitch(prepared), self.settings, context=context, fills_unvoiced=self.rules.interpolates_f0
        )
        self.auto_key, track = shaped.auto_key, shaped.pitch
        if self.settings.auto_key:
            logger.info("auto key: %+d semitones towards %g Hz", self.auto_key, self.settings.auto_key)
        if self.request.f0 is not None:
            track = self.request.f0.laid_over(track, context)
        n_frames = (samples + 2 * self.rules.pad) // HOP_16K
        if self.request.inspect is not None:
            self.request.inspect("pitchf", track.f0[:n_frames])
            self.request.inspect("pitch", track.coarse()[:n_frames])
        self._phase = self._phase_of(track)
        return track

    def _measured_pitch(self, prepared: Prepared) -> PitchTrack:
        if self.workspace.pitch.is_file():
            return PitchTrack(np.load(self.workspace.pitch))
        self._report("pitch", 0, prepared)
        choice = PitchChoice(self.settings.pitch_method, self.settings.pitch_threshold)

        def track() -> F32:
            return track_pitch(
                self.backend,
                prepared.signal,
                self.rules,
                self.sizes,
                choice=choice,
                progress=lambda share: self._report("pitch", 0, prepared, share=share),
            ).f0

        with self.clock.timed("pitch"):
            networks = self.request.provenance.pitch_sha256
            parts = ("f0", choice, networks, self.rules, self.sizes.pitch_tile_frames)
            measured = PitchTrack(self._computed_once(parts, prepared.signal.blocks(), track))
        self.backend.release()
        self.workspace.keep_pitch(measured)
        return measured

    def _computed_once(
        self, parts: tuple[object, ...], samples: Iterable[F32 | F64], compute: Callable[[], F32]
    ) -> F32:
        """Return what the networks compute from audio, from the cache if it is there.

        parts: what it depends on besides the samples, the backend and the networks that every conversion has.
        """
        cache, backend = self.request.features, self.backend
        if cache is None:
            return compute()
        key = feature_key((*parts, backend.name, backend.device, backend.precision, backend.networks_sha256), samples)
        values = cache.get(key)
        if values is None:
            values = compute()
            cache.keep(key, values)
        else:
            self.reused.append(str(parts[0]))
        return values

    def _render(self, segment: Segment, signal: ScratchSignal, track: PitchTrack | None) -> Iterator[F32]:
        """Yield the kept audio of one segment, tile by tile; its context is never synthesised beyond the halo."""
        wave = signal.read(segment.start - segment.left, segment.stop + segment.right).astype(np.float32)
        with self.clock.timed("features"):
            raw = self._content(wave)
        with self.clock.timed("index"):
            mixed = self.index.blend(raw, self.settings.index_rate) if self.index else raw
        with self.clock.timed("synth"):
            inputs = self._align(segment, mixed, raw, track)
            latent = self._latent(segment, inputs)
        if self.request.inspect is not None and segment.index == 0:
            self.request.inspect("phone", inputs.content)
        context = self.rules.pad // HOP_16K
        hop, size = self.voice.config.hop_samples, self.sizes.tile_frames
        for tile in synthesis_tiles(context, inputs.frames - context, inputs.frames, size, self.halo):
            with self.clock.timed("synth"):
                local = inputs.cut(tile.first, tile.last)
                audio = self.backend.decode(latent[tile.first : tile.last], local)
            yield audio[(tile.keep_first - tile.first) * hop : (tile.keep_last - tile.first) * hop]

    def _latent(self, segment: Segment, inputs: SynthesisInputs) -> F32:
        """Return a sample of the prior, [T, C], with as many frames of zeros after it as a tile may reach for."""
        padded = inputs.cut(0, few_lengths(inputs.frames))
        mean, log_std = self.backend.encode_prior(padded)
        noise = excitation.prior_noise(self.settings.seed, segment.start // HOP_16K, *mean.shape)
        return excitation.sample_prior(mean, log_std, noise, self.settings.noise_scale, padded.mask())

    def _content(self, wave: F32) -> ContentFeatures:
        is_v1 = self.voice.config.version == "v1"
        layer = self.rules.v1_layer if is_v1 else V2_LAYER
        features = ContentFeatures(
            self._computed_once(
                ("content", layer, is_v1), [wave], lambda: self.backend.content(wave, layer=layer, project=is_v1)
            )
        )
        if features.dim != self.voice.config.feature_dim:
            raise ModelNotRvc(
                f"voice {self.voice.name} ({self.voice.config.version}) expects content features "
                f"{self.voice.config.feature_dim} wide, the content network gives {features.dim}; it was trained with "
                "another one"
            )
        return features

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
            origin=NoiseOrigin(excitation.stage_noise_key(self.settings.seed), first),
        )

    def _source(self, local: PitchTrack, first: int) -> F32:
        """Return the excitation; its phase runs through the file, or restarts here as upstream's does."""
        hop, harmonics = self.voice.config.hop_samples, self.voice.config.n_harmonics
        seed, scale = self.settings.seed, self.settings.source_noise_scale
        noise = excitation.source_noise(seed, first * hop, local.frames * hop, harmonics)
        phases = excitation.first_phases(seed, harmonics)
        if self.is_exact:
            return self._phase.source(first, local.frames, noise, scale, phases)
        return self._phase_of(local).source(0, local.frames, noise, scale, phases)

    def _phase_of(self, track: PitchTrack) -> HarmonicPhase:
        config = self.voice.config
        return HarmonicPhase.of(track, config.sample_rate, config.hop_samples, is_gliding=config.is_refinegan)

    def _finished(self, source: Path, whole: Lane, lanes: list[Lane]) -> Finished:
        mixes = self.settings.rms_mix_rate < 1
        envelopes = [np.load(lane.workspace.envelope) if mixes else None for lane in lanes]
        info = whole.prepared.info
        finished = Finished(
            [lane.rendering for lane in lanes], envelopes, self.settings, length=info if self.is_exact else None
        )
        rate = finished.sample_rate
        if self.settings.gate_db:
            finished.gate = Gate(np.load(self.workspace.levels), self.settings.gate_db, rate)
        if self.settings.channels == "mid_side" and info.channels == 2:
            sides = decode_to_scratch(source, self.workspace.sides, 0, pick=side, rate_out=rate).signal
            finished.sides = Sides(sides, loudness.input_gain(info.peak))
        return finished

    def _summary(
        self, prepared: Prepared, finished: Finished, warnings: tuple[str, ...], n_segments: int, started: float
    ) -> ConversionReport:
        if self.settings.index_rate > 0 and self.index is None:
            warnings = (*warnings, f"voice {self.voice.name} has no index: nothing is retrieved")
        if self.request.f0 is not None and self.request.f0.end_s > prepared.info.seconds + SPARE_CURVE_S:
            warnings = (
                *warnings,
                f"{self.request.f0.name} goes on to {self.request.f0.end_s:.2f} s, the audio ends at "
                f"{prepared.info.seconds:.2f} s: is it the f0 of another file?",
            )
        return ConversionReport(
            samples_in=prepared.info.frames,
            rate_in=prepared.info.sample_rate,
            samples_out=finished.samples,
            rate_out=finished.sample_rate,
            segments=n_segments,
            stage_seconds=self.clock.seconds,
            wall_seconds=time.perf_counter() - started,
            peak_rss_bytes=self.resident.peak(),
            peak_device_bytes=self.backend.peak_memory(),
            seed=self.settings.seed,
            dialect=self.rules.name,
            backend=self.backend.name,
            voice=self.voice.name,
            voice_sha256=self.voice.sha256,
            warnings=warnings,
            versions={"rvc-batch": __version__, "python": platform.python_version()},
            precision=str(self.backend.precision),
            channels_out=finished.channels,
            auto_key=self.auto_key,
            reused=dict(Counter(self.reused)),
        )

    def _report(self, stage: str, samples_done: int, prepared: Prepared, *, share: float | None = None) -> None:
        total = prepared.signal.samples
        known = samples_done / total if share is None else share
        self.progress(Progress(stage, samples_done / SAMPLE_RATE_16K, total / SAMPLE_RATE_16K, known))
