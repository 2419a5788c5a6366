"""The public calls: compose a home, a model store, a backend and the converter for one file.

The worker composes the same parts once and keeps them; this is the short form for scripts and the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvc_batch.engine.precision import FULL, Precision
from rvc_batch.errors import CannotRenderAgain, SettingsInvalid, VoiceNotChosen

if TYPE_CHECKING:
    from rvc_batch.config import Home
    from rvc_batch.engine.converter import Analysis, Progress
    from rvc_batch.engine.f0_file import F0Curve
    from rvc_batch.engine.provenance import Provenance
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.engine.types import ConversionReport, PitchTrack
    from rvc_batch.engine.voice import Voice
    from rvc_batch.importers.store import ModelStore


def convert(
    source: Path | str,
    target: Path | str,
    *,
    voice: str,
    index: Path | None = None,
    f0_file: Path | str | None = None,
    settings: ConversionSettings | None = None,
    is_format_given: bool = False,
    backend: str = "mlx",
    precision: Precision = FULL,
    home: Path | None = None,
    overwrite: bool = False,
    memory_limit: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ConversionReport:
    """Convert one audio file with one voice.

    Args:
        voice: name of a voice in `home/voices` or a configured root, or a path that ends in `.pth`.
        index: retrieval index; None takes the one that belongs to the voice.
        f0_file: CSV of time in s and f0 in Hz (`engine.f0_file`), which is used as it is where it has rows.
        settings: None means the defaults of `ConversionSettings`.
        precision: numbers the networks compute in; anything but the default is for the mlx backend only.
        is_format_given: False lets the suffix of `target` choose the output format.
        home: None means RVC_BATCH_HOME, the checkout, or `~/rvc-batch`.
        memory_limit: for the resident size of this process in bytes; None takes the default sizes.
        progress: called at every segment border, and between in stages that take long; may raise to stop.

    Raises:
        InputError, ModelError, ConfigError, EnvironmentFault, OutputInvalid. `target` appears whole or not at all.
    """
    from rvc_batch.config import locate_home
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.f0_file import read_f0_file
    from rvc_batch.engine.settings import ConversionSettings
    from rvc_batch.importers.embedders import embedder_of

    source, target = Path(source), Path(target)
    settings = settings or ConversionSettings()
    if not is_format_given:
        settings = settings.with_changes(output_format=_format_of(target, settings.output_format))
    if target.exists() and not overwrite:
        raise SettingsInvalid(f"{target} is there already; choose another name, or replace it with --force")
    curve = None if f0_file is None else read_f0_file(Path(f0_file))
    at = locate_home(home)
    store = _store(at)
    chosen = _voice(store, voice, index)
    content_network = store.content_network(embedder_of(chosen, settings))
    engine = open_backend(backend, hubert=content_network, rmvpe=store.rmvpe(), precision=precision)
    partial = _partial(target)
    converter = Converter(engine, scratch=_scratch(at), memory_limit=memory_limit, pitch_network=store.pitch_network)
    report = converter.convert(source, partial, voice=chosen, settings=settings, f0=curve, progress=progress)
    partial.replace(target)
    return report


@dataclass(frozen=True)
class RenderedAgain:
    """What `render_again` did. is_identical: every byte is that of the first result."""

    target: Path
    source: Path
    is_identical: bool
    report: ConversionReport


def render_again(
    result: Path | str,
    target: Path | str | None = None,
    *,
    source: Path | str | None = None,
    voice: str = "",
    index: Path | None = None,
    f0_file: Path | str | None = None,
    home: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> RenderedAgain:
    """Make a result again from what its own tags say.

    Args:
        target: None puts it beside the result, with " (again)" in its name.
        source: None looks for it by its content, in processed/, failed/ and the inbox.
        voice, index: as in `convert`, where the voice has another name now; they must be the same files.
        f0_file: the one the result was made with, if there was one.

    Raises:
        TagsMissing: the result does not say what it was made from. CannotRenderAgain: something it was made with is not
        here any more; the sentence says what. InputError, ModelError, EnvironmentFault, SettingsInvalid: as `convert`.
    """
    from rvc_batch.config import locate_home
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.decoding import open_audio
    from rvc_batch.engine.f0_file import read_f0_file
    from rvc_batch.engine.provenance import Provenance, digest
    from rvc_batch.importers.embedders import embedder_of

    result = Path(result)
    target = result.with_name(f"{result.stem} (again){result.suffix}") if target is None else Path(target)
    if target.exists() and not overwrite:
        raise SettingsInvalid(f"{target} is there already; choose another name, or replace it with --force")
    with open_audio(result) as audio:
        made = Provenance.read(audio.comment, result.name)
    at = locate_home(home)
    found = _source_of(made, at, None if source is None else Path(source))
    curve = None if f0_file is None else read_f0_file(Path(f0_file))
    if (curve.sha256 if curve else "") != made.f0_sha256:
        raise CannotRenderAgain(_about_curve(made, curve))
    store = _store(at)
    chosen = _same_voice(made, _voice(store, voice or made.voice, index))
    content_network = store.content_network(embedder_of(chosen, made.settings))
    engine = open_backend(made.backend, hubert=content_network, rmvpe=store.rmvpe(), precision=made.precision)
    if engine.networks_sha256 != made.networks_sha256:
        raise CannotRenderAgain(
            f"the content and pitch networks in {at.models} are not those that {result.name} was made with; bring back "
            "the ones with the hashes in its tags"
        )
    partial = _partial(target)
    converter = Converter(engine, scratch=_scratch(at), sizes=made.sizes, pitch_network=store.pitch_network)
    report = converter.convert(
        found, partial, voice=chosen, settings=made.settings, f0=curve, source_name=made.source.name, progress=progress
    )
    is_identical = digest(partial) == digest(result)
    partial.replace(target)
    return RenderedAgain(target, found, is_identical, report)


def pitch(
    source: Path | str,
    *,
    backend: str = "mlx",
    home: Path | None = None,
    dialect: str = "rvc-2023",
    pitch_method: str = "rmvpe",
    pitch_threshold: float = 0.0,
) -> PitchTrack:
    """Return the f0 of an audio file as it was measured, one value per 10 ms, 0 where unvoiced.

    Args:
        pitch_method, pitch_threshold: as in `ConversionSettings`.

    Raises:
        InputError, ModelError, ConfigError.
    """
    (found,) = analyse(
        [source],
        backend=backend,
        home=home,
        dialect=dialect,
        pitch_method=pitch_method,
        pitch_threshold=pitch_threshold,
    )
    return found.pitch


def analyse(
    sources: Sequence[Path | str],
    *,
    backend: str = "mlx",
    home: Path | None = None,
    dialect: str = "rvc-2023",
    pitch_method: str = "rmvpe",
    pitch_threshold: float = 0.0,
) -> list[Analysis]:
    """Return f0 and segment borders of audio files; the networks are loaded once.

    Raises:
        InputError, ModelError, ConfigError.
    """
    from rvc_batch.config import locate_home
    from rvc_batch.engine.backend import open_backend
    from rvc_batch.engine.converter import Converter
    from rvc_batch.engine.dialect import dialect_named
    from rvc_batch.engine.pitch_methods import PitchChoice
    from rvc_batch.engine.settings import ConversionSettings

    ConversionSettings(pitch_method=pitch_method, pitch_threshold=pitch_threshold)  # refuses what it does not know
    choice = PitchChoice(pitch_method, pitch_threshold)
    at = locate_home(home)
    store = _store(at)
    rules = dialect_named(dialect)
    engine = open_backend(backend, hubert=store.hubert(), rmvpe=store.rmvpe())
    converter = Converter(engine, scratch=_scratch(at), pitch_network=store.pitch_network)
    return [converter.analyse(Path(source), rules, choice) for source in sources]


def _store(home: Home) -> ModelStore:
    from rvc_batch.config import load_settings
    from rvc_batch.importers.store import ModelStore

    return ModelStore.of(home, load_settings(home).library.folders(home))


def _scratch(home: Home) -> Path:
    """Return where temporary files go: the home's state folder, or the user's cache when there is no home yet."""
    if home.state.is_dir():
        return home.state / "scratch"
    import platformdirs

    return platformdirs.user_cache_path("rvc-batch") / "scratch"


def _voice(store: ModelStore, voice: str, index: Path | None) -> Voice:
    if voice.endswith(".pth"):
        return store.voice_file(Path(voice), index=index)
    if voice:
        return store.voice(voice, index=index)
    names = store.voice_names()
    if len(names) == 1:
        return store.voice(names[0], index=index)
    raise VoiceNotChosen(f"no voice was named and there are {len(names)} in the library; use --voice NAME or FILE.pth")


def _partial(target: Path) -> Path:
    """Return the hidden name beside `target` under which it is written; its folder is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name[:100]}.{os.getpid()}.part")


def _source_of(made: Provenance, home: Home, given: Path | None) -> Path:
    """Return the file that a result was made from, told by its content."""
    from rvc_batch.engine.provenance import Source, digest

    wanted = made.source
    if given is not None:
        if Source.of(given).sha256 != wanted.sha256:
            raise CannotRenderAgain(
                f"{given} is not the source of this result: that was {wanted.name}, {wanted.size} bytes, SHA-256 "
                f"{wanted.sha256}"
            )
        return given
    files = (p for folder in (home.processed, home.failed, home.inbox) for p in sorted(folder.rglob("*")))
    for path in files:
        if path.is_file() and path.stat().st_size == wanted.size and digest(path) == wanted.sha256:
            return path
    raise CannotRenderAgain(
        f"the source {wanted.name} ({wanted.size} bytes, SHA-256 {wanted.sha256}) is neither in {home.processed} "
        f"nor in {home.failed} nor in {home.inbox}; say where it is with --source"
    )


def _about_curve(made: Provenance, curve: F0Curve | None) -> str:
    """Say that the f0 file that was given is not the one a result was made with."""
    if not made.f0_sha256:
        return f"the result was made without an f0 file, {curve.name if curve else ''} was given; leave it out"
    given = "none was given" if curve is None else f"{curve.name} is another"
    return f"the result was made with an f0 file of the SHA-256 {made.f0_sha256}, {given}; name it with --f0-file FILE"


def _same_voice(made: Provenance, voice: Voice) -> Voice:
    """Return the voice as the result was made with it: under that name, with the same index or without one."""
    from rvc_batch.engine.provenance import digest

    if voice.sha256 != made.voice_sha256:
        raise CannotRenderAgain(
            f"the voice {voice.name} is another one now: its file has the SHA-256 {voice.sha256}, the result was made "
            f"with {made.voice_sha256}; bring that file back, or name it with --voice FILE.pth"
        )
    voice = replace(voice, name=made.voice)
    if not made.index_sha256:
        return replace(voice, index=None)
    if voice.index is None or digest(voice.index) != made.index_sha256:
        raise CannotRenderAgain(
            f"the index of voice {voice.name} is {voice.index or 'missing'}, the result was made with one of the "
            f"SHA-256 {made.index_sha256}; bring it back, or name it with --index FILE"
        )
    return voice


def _format_of(target: Path, default: str) -> str:
    from rvc_batch.engine.settings import OUTPUT_FORMATS

    suffix = target.suffix.lower()
    if suffix == OUTPUT_FORMATS[default][0]:
        return default
    for name, (known, _, _) in OUTPUT_FORMATS.items():
        if suffix == known:
            return name
    known = ", ".join(dict.fromkeys(f[0] for f in OUTPUT_FORMATS.values()))
    raise SettingsInvalid(f"{target.name} ends in {suffix or 'nothing'}, expected one of {known}, or use --format")
