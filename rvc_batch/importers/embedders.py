"""Which content network a voice needs: ContentVec, or another of the same architecture by its name.

Spin and the HuBERTs of other languages have their own feature space: a voice rendered with the wrong one sounds
plausible and says something else. So what a voice names is what it gets, or an error.
"""

from __future__ import annotations

from pathlib import Path

from rvc_batch.engine.settings import AUTO_EMBEDDER, EMBEDDER_NAME, ConversionSettings
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import ModelMissing
from rvc_batch.importers.pickled_data import shown
from rvc_batch.importers.sources import folder_weights
from rvc_batch.importers.voice import CONTENTVEC_NAMES

__all__ = ["CONTENTVEC", "EMBEDDERS_FOLDER", "embedder_of", "find_embedder"]

EMBEDDERS_FOLDER = "embedders"  # below models/
CONTENTVEC = ""  # the name of the content network that every box has


def embedder_of(voice: Voice, settings: ConversionSettings) -> str:
    """Return the name of the content network to render with: that of the settings, else that of the voice.

    Raises:
        ModelMissing: the voice names something that cannot be the name of a folder.
    """
    if settings.embedder != AUTO_EMBEDDER:
        name = settings.embedder
    elif voice.embedder is None:
        return CONTENTVEC
    else:
        name = voice.embedder
    if name.lower() in CONTENTVEC_NAMES:
        return CONTENTVEC
    if not EMBEDDER_NAME.fullmatch(name):
        raise ModelMissing(
            f"voice {voice.name} was trained with the embedder {shown(name)}, which is no name of a folder; put the "
            f'network into models/{EMBEDDERS_FOLDER}/NAME and set embedder = "NAME" for the voice'
        )
    return name


def find_embedder(models: Path, name: str) -> Path:
    """Return the folder or the `.pt` file of a content network by its name.

    Raises:
        ModelMissing: naming what to put where.
    """
    folder = models / EMBEDDERS_FOLDER / name
    if folder_weights(folder) is not None:
        return folder
    file = folder.with_name(f"{name}.pt")
    if file.is_file():
        return file
    raise ModelMissing(
        f"the content network {name} is missing: put its folder with config.json and pytorch_model.bin (or "
        f"model.safetensors) into {models / EMBEDDERS_FOLDER} as {name}/, or name another with the setting embedder"
    )
