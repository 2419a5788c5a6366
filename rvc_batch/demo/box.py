"""Make a home whose models are those of the package: two small voices, `slt` and `rms`, and the networks they need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rvc_batch.errors import FolderGone, HomeInvalid
from rvc_batch.home import CONFIG_NAME, Home

__all__ = ["MODELS", "SPEECH", "VOICES", "make_box"]

MODELS = Path(__file__).with_name("models")  # laid out as the recipe in tools/demo_voices writes them
SPEECH = Path(__file__).with_name("speech")
VOICES = ("rms", "slt")
MARK = "# a home of `rvc-batch demo`\n"


def make_box(home: Home) -> None:
    """Copy the models and voices into a home of their own; what is there already in the same form stays.

    Raises:
        HomeInvalid: the folder holds something that this did not make. FolderGone: it cannot be written.
    """
    config = home.root / CONFIG_NAME
    try:
        if not _is_ours(config) and home.root.is_dir() and any(home.root.iterdir()):
            raise HomeInvalid(
                f"{home.root} is not empty and was not made by `rvc-batch demo`; name another folder, or move it away"
            )
        home.inbox.mkdir(parents=True, exist_ok=True)
        if not _is_ours(config):
            config.write_text(MARK, encoding="utf-8")
        for source, target in _files(home):
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    except OSError as e:
        raise FolderGone(f"{home.root} cannot be written ({e.strerror}); name another folder") from e


def _is_ours(config: Path) -> bool:
    return config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(MARK)


def _files(home: Home) -> Iterator[tuple[Path, Path]]:
    for source in sorted(MODELS.rglob("*")):
        if source.is_file():
            place = source.relative_to(MODELS)
            yield source, home.root / place if place.parts[0] == home.voices.name else home.models / place
