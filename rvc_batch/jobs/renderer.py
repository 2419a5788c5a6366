"""The seam between the worker and the engine: a `Renderer`, and the factory that composes the real one.

The worker gets the factory as "module:function", so tests run the whole service with an engine of their own. The engine
and the importers are imported inside the factory: the daemon reads this file and must load no framework.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from rvc_batch.config import Settings
from rvc_batch.engine.resident import RESIDENT_VOICES
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.engine.types import ConversionReport, DeviceMemory
from rvc_batch.errors import EnvironmentFault, ModelError, SettingsInvalid
from rvc_batch.home import Home

if TYPE_CHECKING:
    from rvc_batch.engine.converter import Converter, Progress
    from rvc_batch.engine.feature_cache import FeatureCache
    from rvc_batch.importers.store import ModelStore

logger = logging.getLogger(__name__)

WORKSPACE = "render"
CONTENT_NETWORKS = 2  # loaded at once, each with a pitch network and voices of its own
DEFAULT_ENGINE = "rvc_batch.jobs.renderer:open_engine"


class Renderer(Protocol):
    """Converts one file after the other with models that stay loaded."""

    device: str
    backend: str

    def warm_voices(self) -> tuple[str, ...]:
        """Return the voices whose networks are loaded, the latest last."""

    def warm_up(self) -> None:
        """Pay all one-time costs, so that the first job does not."""

    def memory(self) -> DeviceMemory | None:
        """Return what is held on the device now; None where nobody counts."""

    def render(
        self,
        source: Path,
        target: Path,
        *,
        voice: str,
        settings: ConversionSettings,
        progress: Callable[[Progress], None],
    ) -> ConversionReport:
        """Convert `source` to `target`, whole and closed, in the format of the settings whatever the suffix.

        Args:
            progress: called at every segment border at least; what it raises ends the conversion.
        """


Factory = Callable[[Home, Settings], Renderer]


def factory_named(name: str) -> Factory:
    """Import the factory called "module:function".

    Raises:
        SettingsInvalid: there is none of that name.
    """
    module, _, function = name.partition(":")
    try:
        return cast(Factory, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as e:
        raise SettingsInvalid(f"engine {name!r} cannot be imported ({e}); expected module:function") from e


def open_engine(home: Home, settings: Settings) -> Renderer:
    """Load the networks and return the renderer of the real engine. Call it in the worker process only.

    Raises:
        ModelError: a network is missing or unusable. DeviceMissing: the backend finds no device.
    """
    return EngineRenderer(home, settings)


def voice_names(home: Home, settings: Settings) -> tuple[str, ...]:
    """Return the voices of the library; loads no framework."""
    return tuple(_store(home, settings).voice_names())


class EngineRenderer:
    """The real engine: model store, backend, converter."""

    def __init__(self, home: Home, settings: Settings) -> None:
        from rvc_batch.engine.dialect import dialect_named
        from rvc_batch.importers.embedders import CONTENTVEC

        self._store, self._settings, self._scratch = _store(home, settings), settings, home.state / "scratch"
        self._features = _feature_cache(home, settings)
        self._converters: dict[str, Converter] = {}  # by the name of the content network, the latest last
        self._warm: dict[str, None] = {}
        backend = self._converter(CONTENTVEC).backend
        self._keeps = RESIDENT_VOICES if settings.worker.memory_limit_bytes() is None else 1  # see `Converter`
        self._rules = dialect_named(settings.conversion_settings().dialect)
        self._preferred = settings.worker.warm_voice or settings.default_voice
        self.device, self.backend = backend.device, backend.name

    def warm_voices(self) -> tuple[str, ...]:
        """Return the voices whose networks are loaded, the latest last."""
        return tuple(self._warm)

    def memory(self) -> DeviceMemory | None:
        """Return what the backends hold on their device."""
        latest = list(self._converters.values())[-1]
        return latest.backend.memory()

    def warm_up(self) -> None:
        """Convert a tone with the configured voice, else the first of the library that can be used.

        A broken voice is its own jobs' trouble: without a usable one nothing is warmed up. So is a full disk.

        Raises:
            SettingsInvalid: the memory limit is too small for the networks.
        """
        from rvc_batch.importers.embedders import embedder_of

        names, settings = self._store.voice_names(), self._settings.conversion_settings()
        for name in sorted(names, key=lambda n: n != self._preferred):
            try:
                voice = self._store.voice(name)
                self._converter(embedder_of(voice, settings)).warm_up(voice, self._rules)
            except ModelError as e:
                logger.warning("voice %s cannot be used: %s %s", name, e.code, e)
            except (EnvironmentFault, OSError) as e:
                logger.warning("nothing is warmed up, the first job will take longer: %s", e)
                return
            else:
                self._note_warm(name)
                return

    def render(
        self,
        source: Path,
        target: Path,
        *,
        voice: str,
        settings: ConversionSettings,
        progress: Callable[[Progress], None],
    ) -> ConversionReport:
        """Convert one file; see `Renderer.render` and `Converter.convert`.

        An interrupted job leaves its workspace beside its source: the next attempt goes on from there, and both go
        when the job has ended.
        """
        from rvc_batch.importers.embedders import embedder_of

        chosen = self._store.voice(voice)
        report = self._converter(embedder_of(chosen, settings)).convert(
            source,
            target,
            voice=chosen,
            settings=settings,
            workspace=source.parent / WORKSPACE,
            progress=progress,
        )
        self._note_warm(voice)
        return report

    def _converter(self, embedder: str) -> Converter:
        """Return the converter with a content network, loaded now if need be; at most two stay, one with a limit."""
        from rvc_batch.engine.backend import open_backend
        from rvc_batch.engine.converter import Converter

        worker = self._settings.worker
        limit = worker.memory_limit_bytes()
        found = self._converters.pop(embedder, None)
        if found is None:
            content_network = self._store.content_network(embedder)  # may be missing: then nothing is let go
            while len(self._converters) >= (CONTENT_NETWORKS if limit is None else 1):
                self._converters.pop(next(iter(self._converters))).backend.release()
                self._warm.clear()
            found = Converter(
                open_backend(
                    worker.backend, hubert=content_network, rmvpe=self._store.rmvpe(), precision=worker.numbers()
                ),
                scratch=self._scratch,
                memory_limit=limit,
                pitch_network=self._store.pitch_network,
                features=self._features,
            )
        self._converters[embedder] = found
        return found

    def _note_warm(self, name: str) -> None:
        self._warm.pop(name, None)
        self._warm[name] = None
        while len(self._warm) > self._keeps:
            del self._warm[next(iter(self._warm))]


def _feature_cache(home: Home, settings: Settings) -> FeatureCache | None:
    from rvc_batch.engine.feature_cache import FeatureCache

    limit = int(settings.worker.feature_cache_gb * 1e9)
    if limit == 0:
        shutil.rmtree(home.features, ignore_errors=True)  # what was kept before it was turned off
        return None
    return FeatureCache(home.features, limit)


def _store(home: Home, settings: Settings) -> ModelStore:
    from rvc_batch.importers.store import ModelStore

    return ModelStore.of(home, settings.library.folders(home))
