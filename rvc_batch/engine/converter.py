"""Converter: a backend and what stays warm between files; `convert` is the public form of the main path.

The path itself is in `conversion.py`.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from rvc_batch.engine import loudness
from rvc_batch.engine.audio_io import check_output_format, decode_to_scratch
from rvc_batch.engine.backend import Backend
from rvc_batch.engine.checkpointing import Workspace, conversion_key
from rvc_batch.engine.checkpoints import PITCH_KINDS
from rvc_batch.engine.conversion import V2_LAYER, Conversion, Inspect, Progress, Request
from rvc_batch.engine.dialect import Dialect, dialect_named
from rvc_batch.engine.effects import check_effects
from rvc_batch.engine.f0_file import F0Curve
from rvc_batch.engine.feature_cache import FeatureCache
from rvc_batch.engine.filters import highpass_to_file
from rvc_batch.engine.memory import PITCH_TILE_RANGE, TILE_RANGE, Needs, plan_memory
from rvc_batch.engine.network_config import HOP_16K, SAMPLE_RATE_16K
from rvc_batch.engine.pitch_libraries import LIBRARIES, library
from rvc_batch.engine.pitch_methods import PitchChoice, methods_named
from rvc_batch.engine.pitch_tracking import track_pitch
from rvc_batch.engine.preparation import MIN_SAMPLES
from rvc_batch.engine.provenance import Provenance, Source
from rvc_batch.engine.retrieval import FeatureIndex
from rvc_batch.engine.segments import find_cuts, plan_segments
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.tiling import WorkSizes
from rvc_batch.engine.types import ConversionReport, PitchTrack
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelMissing, SettingsInvalid

__all__ = ["V2_LAYER", "Analysis", "Converter", "Progress"]

RESIDENT_INDEXES = 4
WARM_UP_SECONDS = 1.0  # on a CPU, where a shape that was not met before costs nothing
PITCH_ALONE = WorkSizes(tile_frames=TILE_RANGE[1], pitch_tile_frames=PITCH_TILE_RANGE[1])  # no voice is involved
DEFAULT_PITCH = PitchChoice()


@dataclass(frozen=True)
class Analysis:
    """What is known of a file without a voice: `pitch` at 100 frames per second, `borders_s` where segments meet."""

    pitch: PitchTrack
    borders_s: tuple[float, ...]


class Converter:
    """Converts files with one backend; keeps a few indexes warm between calls."""

    def __init__(
        self,
        backend: Backend,
        *,
        scratch: Path,
        memory_limit: int | None = None,
        sizes: WorkSizes | None = None,
        pitch_network: Callable[[str], Path] | None = None,
        features: FeatureCache | None = None,
    ) -> None:
        """Use `backend` and put temporary files below `scratch`.

        Args:
            memory_limit: for the resident size of the process in bytes; with one, a single voice and a single index
                stay loaded. None takes the default sizes and keeps a few of each.
            sizes: to work in, whatever the limit; None lets the limit decide.
            pitch_network: finds the canonical checkpoint of a pitch method of `PITCH_KINDS`; None knows of none.
            features: keeps what the networks say of the audio alone, for the next conversion of it; None keeps nothing.
        """
        self.backend = backend
        self._scratch = scratch
        self._memory_limit = memory_limit
        self._sizes = sizes
        self._pitch_network = pitch_network
        self._features = features
        self._indexes: dict[tuple[Path, int, int, int], FeatureIndex] = {}

    def convert(
        self,
        source: Path,
        target: Path,
        *,
        voice: Voice,
        settings: ConversionSettings,
        f0: F0Curve | None = None,
        rules: Dialect | None = None,
        workspace: Path | None = None,
        source_name: str | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        inspect: Inspect | None = None,
    ) -> ConversionReport:
        """Convert one file; `target` is complete when this returns and absent when it raises.

        Args:
            f0: replaces the measured f0 where it has rows, as it is: neither transposed nor shaped.
            rules: stand in for those of `settings.dialect`; parity reports use other windows.
            workspace: folder in which an interrupted conversion is kept, so that the next call with the same source,
                voice and settings goes on from the last segment border with the same bytes; None keeps nothing. It is
                removed when the conversion is complete.
            source_name: as the tags of the result tell it; None takes that of the file.
            progress: called at every segment border, window of the pitch network, piece of the formant shift and block
                of the passes that finish the file; may raise to stop the conversion.
            inspect: called with named intermediate arrays, for parity reports.

        Raises:
            InputError, ModelError, EnvironmentFault, OutputInvalid, SettingsInvalid; whatever `progress` raises.
        """
        if settings.speaker_id >= voice.config.n_speakers:
            raise SettingsInvalid(
                f"speaker_id is {settings.speaker_id}, voice {voice.name} has speakers 0 to "
                f"{voice.config.n_speakers - 1}"
            )
        check_output_format(settings.output_format)
        check_effects(settings.effects)
        if f0 is not None and not voice.config.has_f0:
            raise SettingsInvalid(f"{f0.name} cannot be used: voice {voice.name} has no f0; convert without an f0 file")
        choice = PitchChoice(settings.pitch_method, settings.pitch_threshold)
        pitch_sha256 = self._prepare_pitch(choice) if voice.config.has_f0 else ""
        self._scratch.mkdir(parents=True, exist_ok=True)
        place = Workspace(workspace or Path(tempfile.mkdtemp(prefix="convert-", dir=self._scratch)))
        is_done = False
        try:
            chosen = rules or dialect_named(settings.dialect)
            index = self.index_for(voice) if settings.index_rate > 0 else None
            provenance = Provenance(
                voice=voice.name,
                voice_sha256=voice.sha256,
                index_sha256=index.sha256 if index else "",
                networks_sha256=self.backend.networks_sha256,
                pitch_sha256=pitch_sha256,
                f0_sha256=f0.sha256 if f0 else "",
                source=Source.of(source, source_name),
                settings=settings,
                backend=self.backend.name,
                precision=self.backend.precision,
                sizes=self.plan(voice, chosen),
            )
            key = conversion_key(provenance, str(chosen))
            if self._features is not None:
                self._features.begin()
            request = Request(voice, chosen, provenance, key, progress, inspect, f0, self._features)
            report = Conversion(self.backend, index, place, request).run(source, target)
            is_done = True
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            if is_done or workspace is None:
                place.remove()
            self.backend.release()
        return report

    def warm_up(self, voice: Voice, rules: Dialect) -> None:
        """Convert a tone and throw it away, so that the first job meets nothing for the first time.

        Everything a job meets is met here: modules, tables, threads, codecs, the networks, the voice and its index,
        the kernels. On a GPU, where kernels are planned by shape, the tone fills a tile of the synthesis.

        Raises:
            ModelError, SettingsInvalid: as in `convert`. EnvironmentFault, OSError: the tone cannot be written or read.
        """
        seconds = WARM_UP_SECONDS
        if self.backend.device != "cpu":
            seconds = max(seconds, self.plan(voice, rules).tile_frames * HOP_16K / SAMPLE_RATE_16K)
        time = np.arange(round(seconds * SAMPLE_RATE_16K)) / SAMPLE_RATE_16K
        tone = io.BytesIO()
        sf.write(tone, 0.1 * np.sin(2 * np.pi * 220 * time), SAMPLE_RATE_16K, format="WAV")
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="warm-up-", dir=self._scratch) as name:
            source = Path(name) / "tone.wav"
            source.write_bytes(tone.getvalue())
            settings = ConversionSettings(dialect=rules.name)
            self.convert(source, source.with_name("warm.wav"), voice=voice, settings=settings, rules=rules)

    def plan(self, voice: Voice, rules: Dialect) -> WorkSizes:
        """Return the sizes to work in for a voice, and hold the backend to what goes with them.

        Raises:
            SettingsInvalid: the memory limit is too small; says the least that works.
        """
        if self._sizes is not None:
            return self._sizes
        index_bytes = voice.index.stat().st_size if voice.index else 0
        needs = Needs.of(
            self.backend.appetite,
            self.backend.content_config,
            self.backend.pitch_config,
            voice.config,
            loaded=self.backend.networks_bytes + voice.checkpoint.stat().st_size + index_bytes,
            rules=rules,
        )
        plan = plan_memory(self._memory_limit, needs)
        if self._memory_limit is not None:
            self.backend.limit_memory(cache_bytes=plan.cache_bytes, voices=1)
        return plan.sizes

    def index_for(self, voice: Voice) -> FeatureIndex | None:
        """Return the voice's index, kept warm; None when it has none."""
        if voice.index is None:
            return None
        stat = voice.index.stat()
        key = (voice.index, stat.st_size, stat.st_mtime_ns, stat.st_ino)  # a replaced file is another index
        index = self._indexes.pop(key, None) or FeatureIndex(voice.index)
        self._indexes[key] = index
        while len(self._indexes) > (RESIDENT_INDEXES if self._memory_limit is None else 1):
            self._indexes.pop(next(iter(self._indexes)))
        return index

    def analyse(self, source: Path, rules: Dialect, choice: PitchChoice = DEFAULT_PITCH) -> Analysis:
        """Return f0 of an audio file as it was measured, and where a conversion would cut it.

        Raises:
            InputError: see `decode_to_scratch`. ExtraMissing: the method needs a library that is not installed.
        """
        self._prepare_pitch(choice)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pitch-", dir=self._scratch) as name:
            folder = Path(name)
            decoded = decode_to_scratch(source, folder / "decoded.f32", MIN_SAMPLES)
            gain = loudness.input_gain(decoded.info.peak)
            signal = highpass_to_file(decoded.signal, folder / "filtered.f64", gain)
            track = track_pitch(self.backend, signal, rules, PITCH_ALONE, choice=choice, progress=lambda _: None)
            cuts = find_cuts(signal, rules)
            borders = [s.start / SAMPLE_RATE_16K for s in plan_segments(cuts, signal.samples, rules, exact=True)[1:]]
        context = rules.pad // HOP_16K
        return Analysis(track.cut(context, context + 1 + signal.samples // HOP_16K), tuple(borders))

    def _prepare_pitch(self, choice: PitchChoice) -> str:
        """Fail before the audio is touched, if at all; return the hashes of the networks that are needed besides.

        Raises:
            SettingsInvalid: unknown method. ExtraMissing: it needs a library that is not installed.
            ModelError: it needs a network that is missing or cannot be used.
        """
        hashes = []
        for method in methods_named(choice.method):
            if method.name in LIBRARIES:
                library(method.name)
            if method.name in PITCH_KINDS:
                if self._pitch_network is None:
                    raise ModelMissing(f"there is no network for the pitch method {method.name} here; use another")
                hashes.append(self.backend.load_pitch(method.name, self._pitch_network(method.name)))
        return " ".join(hashes)
